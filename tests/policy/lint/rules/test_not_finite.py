import pytest

from tests.policy.lint.linting import places, written


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "+nan", "1e400"])
def test_what_cannot_be_compared_is_found_at_its_key(value: str) -> None:
    assert places("SBP011", written(f"[limits.max_cpus]\nceiling = {value}\n")) == [(10, 1, "limits.max_cpus.ceiling")]


def test_every_one_is_found_within_lists_too() -> None:
    text = written("limits.debug = nan\n", audience='["a", nan]')

    assert [key for _, _, key in places("SBP011", text)] == ["audience[1]", "limits.debug"]


def test_word_of_those_letters_is_a_text() -> None:
    assert not places("SBP011", written('owner = "nan"\nlimits.debug = false\n'))
