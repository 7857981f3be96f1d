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


_CGROUPS = "tests/sandbox/test_cgroups.py"
_PLACES = "tests/vm/test_places.py"
_RUNNER = "tests/sandbox/test_runner.py"
_OF_PERSON = (
    "test_twice_the_ram_is_out_of_memory_in_whichever_way",
    "test_no_more_processes_and_threads_than_permitted_are_to_be_had",
    "test_nothing_is_left_behind_however_a_run_ends[out-of-memory]",
)
_OF_ROOT = (
    "test_twice_the_ram_is_out_of_memory_in_whichever_way",
    "test_no_more_processes_and_threads_than_permitted_are_to_be_had",
    "test_nothing_is_left_behind_however_a_run_ends[out-of-memory]",
    "test_nothing_is_left_behind_however_a_run_ends[timed-out]",
    "test_a_result_names_what_ran_it_and_what_it_used",
    "test_a_busy_loop_gets_its_share_of_a_cpu",
    "test_fork_bomb_ends_in_a_sane_outcome_with_the_loop_responsive_and_the_box_gone[32-bash]",
    "test_fork_bomb_ends_in_a_sane_outcome_with_the_loop_responsive_and_the_box_gone[Unlimited.UNLIMITED-python]",
    "test_one_missing_controller_is_named_alone_and_the_others_still_bite",
    "test_a_killed_caller_leaves_no_box_running_and_the_next_runner_removes_the_rest",
    "test_a_box_outside_its_cgroup_is_refused_before_it_gets_any_code",
)


def _of_runner(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{_RUNNER}::{name}" for name in names)


SESSIONS = (
    Session(name="root", user=0, tests=(_CGROUPS, _PLACES, *_of_runner(_OF_ROOT))),
    Session(name="person", user=PERSON, tests=(_CGROUPS, *_of_runner(_OF_PERSON))),
)
