from policy.lint.findings import Severity
from tests.policy.lint.linting import findings, of_rule, places, written

BEFORE = written('id = "acme-prod"\nserial = 7\n')


def test_another_id_in_the_same_file_is_an_error_at_the_id() -> None:
    (found,) = of_rule("SBP323", findings(written('id = "acme-eu"\n'), base=BEFORE))

    assert (found.severity, found.location.key) == (Severity.ERROR, "id")
    assert 'retires = ["acme-prod"]' in found.remedy


def test_the_old_id_may_be_retired_or_go_on_in_another_file() -> None:
    assert not places("SBP323", written('id = "acme-eu"\nretires = ["acme-prod"]\n'), base=BEFORE)
    assert not places("SBP323", written('id = "acme-eu"\n'), base=BEFORE, other=written("serial = 8\n"))
    retiring = written('id = "acme-us"\nretires = ["acme-prod"]\n')
    assert not places("SBP323", written('id = "acme-eu"\n'), base=BEFORE, other=retiring)


def test_the_same_id_is_not_found() -> None:
    assert not places("SBP323", written("serial = 8\n"), base=BEFORE)
