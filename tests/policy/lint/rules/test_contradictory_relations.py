import pytest

from tests.policy.lint.linting import places, written


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ('requires = ["acme-base", "acme-prod"]', "requires"),
        ('retires = ["acme-prod"]', "retires"),
        ('retires = ["acme-base"]\nrequires = ["acme-base"]', "retires"),
        ("rollback_of = 7", "rollback_of"),
        ("rollback_of = 8", "rollback_of"),
    ],
)
def test_what_no_set_can_satisfy_is_found_at_its_key(lines: str, key: str) -> None:
    assert places("SBP105", written(f"{lines}\n")) == [(9, 1, key)]


def test_other_ids_and_an_earlier_serial_are_not_found() -> None:
    assert not places("SBP105", written('requires = ["acme-base"]\nretires = ["acme-2025"]\nrollback_of = 6\n'))
