import pytest

from policy.keys import generate_key
from policy.lint.findings import Severity
from policy.lint.fixing import with_fixes
from policy.settings import MAX_SERIAL
from tests.policy.lint.linting import findings, of_rule, places, written
from tests.policy.lint.signing import signed


def text(serial: int, cpus: int = 1, more: str = "") -> str:
    return written(f"serial = {serial} # raise me\n{more}\n[limits]\nmax_cpus = {cpus}\n")


@pytest.mark.parametrize("serial", [7, 6, 1])
def test_another_text_under_a_serial_that_is_no_higher_is_an_error_at_the_serial(serial: int) -> None:
    (found,) = of_rule("SBP320", findings(text(serial, cpus=2), base=text(7)))

    assert (found.severity, found.location.key) == (Severity.ERROR, "serial")
    assert "serial = 8" in found.remedy


def test_the_same_text_needs_no_higher_serial_whoever_signed_it() -> None:
    assert not places("SBP320", text(7), base=text(7))
    assert not places("SBP320", signed(text(7), generate_key()), base=signed(text(7), generate_key()))


def test_a_comment_is_another_text() -> None:
    assert places("SBP320", f"{text(7)}# agreed\n", base=text(7))


def test_a_raised_serial_is_not_found() -> None:
    assert not places("SBP320", text(8, cpus=2), base=text(7))


def test_a_new_file_or_another_id_begins_a_history_of_its_own() -> None:
    assert not places("SBP320", text(7), base=written("", id='"acme-other"', serial="9"))


def test_the_fix_raises_a_serial_that_stayed_and_keeps_all_else() -> None:
    (found,) = of_rule("SBP320", findings(text(7, cpus=2), base=text(7)))
    assert found.fix is not None

    mended, _ = with_fixes(text(7, cpus=2), [found.fix])

    assert mended == text(8, cpus=2)
    assert not places("SBP320", mended, base=text(7))


@pytest.mark.parametrize(("serial", "base"), [(6, 7), (MAX_SERIAL, MAX_SERIAL)], ids=["lower", "the highest"])
def test_what_may_be_an_old_file_or_cannot_be_raised_has_no_fix(serial: int, base: int) -> None:
    (found,) = of_rule("SBP320", findings(text(serial, cpus=2), base=text(base)))

    assert found.fix is None


def test_a_comment_takes_it_out_but_not_in_production() -> None:
    comment = '# policy: ignore[SBP320] reason="never shipped" until=2027-01-31\n'
    changed = text(7, cpus=2).replace("serial =", f"{comment}serial =")

    assert not of_rule("SBP320", findings(changed, base=text(7)))
    assert of_rule("SBP320", findings(changed, base=text(7), production=True))
