import pytest

from policy.lint.findings import Severity
from tests.policy.lint.linting import findings, of_rule, places, written


@pytest.mark.parametrize("verb", ["lock", "ceiling", "default"])
def test_false_is_the_loose_side_of_every_statement(verb: str) -> None:
    text = written(f"[limits]\nrequire_resource_limiting.{verb} = false\n")

    assert places("SBP207", text) == [(10, 27, f"limits.require_resource_limiting.{verb}")]


@pytest.mark.parametrize("verb", ["lock", "ceiling", "default"])
def test_true_is_not_found(verb: str) -> None:
    assert not places("SBP207", written(f"[limits]\nrequire_resource_limiting.{verb} = true\n"))


def test_a_ceiling_of_true_elsewhere_closes_a_default_of_false() -> None:
    other = written("[limits.require_resource_limiting]\nceiling = true\n", id='"other"')

    assert not places("SBP207", written("[limits.require_resource_limiting]\ndefault = false\n"), other=other)


def test_it_is_an_error_everywhere_and_can_be_taken_out_but_in_production() -> None:
    text = written(
        '[limits]\nrequire_resource_limiting = false  # policy: ignore[SBP207] reason="GPU tests" until=2027-01-31\n'
    )

    assert not of_rule("SBP207", findings(text))
    assert of_rule("SBP207", findings(text, production=True))[0].severity is Severity.ERROR
