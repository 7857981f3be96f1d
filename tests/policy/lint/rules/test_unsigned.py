from dataclasses import replace

import pytest

from policy.keys import generate_key
from policy.lint.environments import environment_of_text
from policy.lint.findings import Severity
from policy.lint.subjects import Setup
from tests.policy.lint.linting import NOW, findings, of_rule
from tests.policy.lint.signing import LOCKED, found_with, signed

KEY = generate_key()


def test_with_a_key_an_unsigned_policy_is_an_error_at_the_start_of_the_file() -> None:
    (found,) = found_with("SBP302", LOCKED, KEY.public)

    assert (found.severity, found.location.line, found.location.key) == (Severity.ERROR, 1, "")
    assert "policy sign" in found.remedy


def test_in_production_without_a_key_it_is_a_warning_since_it_may_be_signed_later() -> None:
    (found,) = of_rule("SBP302", findings(LOCKED, production=True))

    assert found.severity is Severity.WARNING


def test_a_key_makes_it_an_error_in_production_too() -> None:
    (found,) = of_rule("SBP302", findings(LOCKED, setup=Setup(now=NOW, keys=(KEY.public,), production=True)))

    assert found.severity is Severity.ERROR


def test_where_no_key_is_named_drafts_are_not_found() -> None:
    assert not of_rule("SBP302", findings(LOCKED))


def test_a_signature_of_whomever_is_one() -> None:
    text = signed(LOCKED, generate_key())

    assert not found_with("SBP302", text, KEY.public)
    assert not of_rule("SBP302", findings(text, production=True))


@pytest.mark.parametrize("with_key", [False, True])
def test_where_variables_permit_unsigned_policies_only_a_key_asks_for_signatures(with_key: bool) -> None:  # noqa: FBT001
    environment = environment_of_text("prod.env", b"SANDBOX_POLICY_UNSIGNED_ALLOWED=true\n")
    setup = Setup(now=NOW, production=True, environment=environment, keys=(KEY.public,) if with_key else None)

    assert bool(of_rule("SBP302", findings(LOCKED, setup=setup))) is with_key


def test_variables_that_cannot_be_read_permit_nothing() -> None:
    broken = environment_of_text("prod.env", b"SANDBOX_POLICY_UNSIGNED_ALLOWED=perhaps\n")
    setup = Setup(now=NOW, production=True, environment=broken)

    assert of_rule("SBP302", findings(LOCKED, setup=setup))
    assert not of_rule("SBP302", findings(LOCKED, setup=replace(setup, production=False)))
