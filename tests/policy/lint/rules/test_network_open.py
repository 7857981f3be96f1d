import pytest

from policy.lint.findings import Severity
from tests.policy.lint.linting import findings, of_rule, places, written


@pytest.mark.parametrize("verb", ["lock", "ceiling", "default"])
def test_every_way_to_permit_networking_is_found(verb: str) -> None:
    text = written(f"[limits]\nnetworking_allowed.{verb} = true\n")

    assert places("SBP203", text) == [(10, 20, f"limits.networking_allowed.{verb}")]


@pytest.mark.parametrize(
    "bound", ['= ["public"]', '.ceiling = ["public"]', '= ["public:443"]', '.default = ["a.example"]']
)
def test_a_list_that_holds_public_or_is_a_default_narrows_nothing(bound: str) -> None:
    assert places("SBP203", written(f"[limits]\nnetworking_allowed = true\nnetwork_allowlist{bound}\n"))


@pytest.mark.parametrize("bound", ['= ["a.example"]', '.ceiling = ["*.com"]', "= []"])
def test_a_bound_without_public_is_enough(bound: str) -> None:
    assert not places("SBP203", written(f"[limits]\nnetworking_allowed = true\nnetwork_allowlist{bound}\n"))


def test_a_policy_that_does_not_speak_of_networking_is_left_to_coverage() -> None:
    assert not places("SBP203", written("[limits]\nmax_cpus = 1\n"))
    assert not places("SBP203", written('[limits]\nnetwork_allowlist = ["public"]\n'))


def test_a_default_within_a_closed_ceiling_of_another_file_is_not_found() -> None:
    other = written("[limits.networking_allowed]\nceiling = false\n", id='"other"')

    assert not places("SBP203", written("[limits.networking_allowed]\ndefault = true\n"), other=other)


def test_another_file_of_the_folder_or_a_variable_may_narrow_the_list() -> None:
    text = written("[limits]\nnetworking_allowed = true\n")
    other = written('[limits.network_allowlist]\nceiling = ["pypi.org"]\n', id='"other"')

    assert not places("SBP203", text, other=other)
    assert not places("SBP203", text, environment="SANDBOX_NETWORK_ALLOWLIST__CEILING=pypi.org\n")


def test_a_variable_that_locks_public_opens_what_the_policy_narrows() -> None:
    text = written('[limits]\nnetworking_allowed = true\nnetwork_allowlist = ["pypi.org"]\n')

    assert places("SBP203", text, environment="SANDBOX_NETWORK_ALLOWLIST=public\n")


def test_a_file_is_found_once_though_it_says_so_twice() -> None:
    assert len(places("SBP203", written("[limits.networking_allowed]\nceiling = true\ndefault = true\n"))) == 1


def test_it_is_an_error_in_production_alone() -> None:
    text = written("[limits]\nnetworking_allowed = true\n")

    assert of_rule("SBP203", findings(text))[0].severity is Severity.WARNING
    assert of_rule("SBP203", findings(text, production=True))[0].severity is Severity.ERROR
