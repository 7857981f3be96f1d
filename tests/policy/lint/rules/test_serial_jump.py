import pytest

from tests.policy.lint.linting import places, written


def found(before: int, now: int) -> bool:
    return bool(places("SBP321", written(f"serial = {now}\n"), base=written(f"serial = {before}\n")))


@pytest.mark.parametrize(("before", "now"), [(7, 8), (7, 10_007), (20261231, 20270101), (7, 7), (7, 6), (10_008, 1)])
def test_a_step_that_dates_have_too_is_not_found(before: int, now: int) -> None:
    assert not found(before, now)


@pytest.mark.parametrize(("before", "now"), [(7, 10_008), (7, 2**53 - 1)])
def test_a_larger_step_is_found(before: int, now: int) -> None:
    assert found(before, now)


def test_it_is_found_at_the_serial() -> None:
    assert [key for _, _, key in places("SBP321", written("serial = 99999\n"), base=written("serial = 7\n"))] == [
        "serial"
    ]
