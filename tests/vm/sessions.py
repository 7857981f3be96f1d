"""Which tests run in the virtual machine, where in the hierarchy, and as whom.

They are those of `tests/sandbox` whose outcome depends on the kernel's interface for cgroups, or that show what a run
leaves behind. Emulation makes a box take five seconds, so of several that show the same thing one is chosen.
"""

from dataclasses import dataclass

from tests.vm.places import PERSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One run of pytest in a delegated service."""

    name: str
    """Whose it is, for people; the service's name, too."""
    user: int
    """Whose service it is."""
    tests: tuple[str, ...]
    """Files and tests, as pytest takes them; one that does not exist fails."""


_CGROUPS = (
    "test_cgroups.py",
    "test_leases.py::test_cgroups_that_the_note_names_are_removed_where_others_would_be_made_now",
    "test_leases.py::test_cgroup_that_is_there_to_stay_keeps_the_folder_that_leads_to_it",
)
_LIMITS = (
    "test_runner.py::test_twice_the_ram_is_out_of_memory_in_whichever_way",
    "test_runner.py::test_no_more_processes_and_threads_than_permitted_are_to_be_had",
    "test_runner.py::test_nothing_is_left_behind_however_a_run_ends[out-of-memory]",
)
_MORE = (
    "test_noted_cgroups.py",
    "test_runner.py::test_nothing_is_left_behind_however_a_run_ends[timed-out]",
    "test_runner.py::test_a_result_names_what_ran_it_and_what_it_used",
    "test_runner.py::test_a_busy_loop_gets_its_share_of_a_cpu",
    "test_runner.py::test_fork_bomb_ends_in_a_sane_outcome_with_the_loop_responsive_and_the_box_gone[32-bash]",
    "test_runner.py::test_one_missing_controller_is_named_alone_and_the_others_still_bite",
    "test_runner.py::test_a_killed_caller_leaves_no_box_running_and_the_next_runner_removes_the_rest",
    "test_runner.py::test_a_box_outside_its_cgroup_is_refused_before_it_gets_any_code",
    "test_pool.py::test_limits_of_a_pooled_box_bite",
    "test_kill.py::test_run_that_an_administrator_ends_says_so_and_leaves_nothing",
)


def _of_sandbox(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"tests/sandbox/{name}" for name in names)


SESSIONS = (
    Session(name="root", user=0, tests=("tests/vm/test_places.py", *_of_sandbox(_CGROUPS + _LIMITS + _MORE))),
    Session(name="person", user=PERSON, tests=_of_sandbox(_CGROUPS + _LIMITS)),
)
