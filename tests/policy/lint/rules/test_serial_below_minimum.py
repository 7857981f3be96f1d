import pytest

from tests.policy.lint.linting import findings, of_rule, places, written


def test_an_older_serial_is_found_at_the_variable() -> None:
    environment = "SANDBOX_INSTANCE=prod-eu\nSANDBOX_POLICY_MIN_SERIAL=acme-prod=8\n"

    (found,) = of_rule("SBP415", findings(written("", serial="7"), environment=environment))

    assert (found.location.file, found.location.line) == ("prod.env", 2)
    assert [place.file for place in found.related] == ["acme.toml"]


@pytest.mark.parametrize("minimum", ["acme-prod=7", "acme-prod=1", "acme=9", "acme-other=9"])
def test_the_serial_itself_and_other_ids_are_not_found(minimum: str) -> None:
    environment = f"SANDBOX_POLICY_MIN_SERIAL={minimum}\n"

    assert not places("SBP415", written("", serial="7"), environment=environment)
