from tests.policy.lint.linting import places, written


def test_key_of_a_later_version_is_found_and_not_called_unknown() -> None:
    text = written("[limits]\ndebug = false\n[rollout]\nstages = [1]\n")

    assert places("SBP007", text) == [(11, 2, "rollout")]
    assert not places("SBP005", text)


def test_the_same_word_elsewhere_is_only_unknown() -> None:
    text = written("[limits]\ndebug = false\nrollout = 1\n")

    assert not places("SBP007", text)
    assert places("SBP005", text) == [(11, 1, "limits.rollout")]
