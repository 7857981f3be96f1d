from tests.policy.lint.linting import places, written

BARE = written("").replace('description = "Production"\n', "")


def test_a_file_without_description_is_found_as_a_whole() -> None:
    assert places("SBP502", BARE) == [(1, 1, "")]


def test_a_description_of_a_scope_is_not_the_files_own() -> None:
    scope = '[[scope]]\ndescription = "students"\nmatch.groups = ["students"]\nlimits.max_cpus.ceiling = 0.5\n'

    assert places("SBP502", f"{BARE}{scope}") == [(1, 1, "")]


def test_any_description_is_enough() -> None:
    assert not places("SBP502", written('description = "x"\n'))
