import pytest

from tests.policy.lint.linting import findings, of_rule, places, written

LOADING = "SANDBOX_POLICY_PATH=/etc/policies\nSANDBOX_POLICY_KEYS=/etc/keys\n"


def test_an_audience_without_the_instance_is_found_in_the_policy() -> None:
    (found,) = of_rule("SBP414", findings(written(""), environment="SANDBOX_INSTANCE=prod-us\n"))

    assert (found.location.file, found.location.line, found.location.key) == ("acme.toml", 6, "audience")
    assert [(place.file, place.key) for place in found.related] == [("prod.env", "SANDBOX_INSTANCE")]


@pytest.mark.parametrize("audience", ['["prod-us"]', '["prod-eu", "prod-us"]', '["*"]'])
def test_an_audience_with_the_instance_or_any_is_not_found(audience: str) -> None:
    assert not places("SBP414", written("", audience=audience), environment="SANDBOX_INSTANCE=prod-us\n")


def test_an_unset_instance_is_only_any() -> None:
    assert places("SBP414", written(""), environment=LOADING) == [(6, 1, "audience")]
    assert not places("SBP414", written("", audience='["*"]'), environment=LOADING)


def test_names_are_taken_letter_by_letter() -> None:
    assert places("SBP414", written(""), environment="SANDBOX_INSTANCE=Prod-EU\n")


def test_variables_that_have_nothing_to_do_with_policies_say_nothing_of_the_instance() -> None:
    assert not places("SBP414", written(""), environment="SANDBOX_DEBUG=false\n")
