"""How a run ended, from what the kernels say alone; no box is needed to tell that."""

import pytest

from sandbox.box import BoxEnd
from sandbox.cgroup_counters import Counters
from sandbox.outcome import Outcome
from sandbox.runner import outcome_of


def counted(*, oom_kills: int = 0, pids_limit_hits: int = 0) -> Counters:
    return Counters(oom_kills=oom_kills, peak_memory_bytes=None, cpu_seconds=None, pids_limit_hits=pids_limit_hits)


def end_with(exit_code: int, *, told: bool = False, timed_out: bool = False) -> BoxEnd:
    return BoxEnd(exit_code=exit_code, told_by_gvisor=told, timed_out=timed_out)


@pytest.mark.parametrize(
    ("end", "counters", "asked", "by_hand", "outcome"),
    [
        pytest.param(end_with(0, told=True), counted(), True, False, Outcome.OK, id="told-zero"),
        pytest.param(end_with(137, told=True), counted(), True, False, Outcome.ERROR, id="told-other"),
        pytest.param(end_with(0), counted(), False, False, Outcome.OK, id="not-asked-zero"),
        pytest.param(end_with(3), counted(), False, False, Outcome.ERROR, id="not-asked-other"),
        pytest.param(end_with(3), counted(), True, False, Outcome.GVISOR_FAILED, id="asked-and-not-told"),
        pytest.param(end_with(-9), counted(), True, False, Outcome.KILLED, id="killed"),
        pytest.param(end_with(-9), counted(), False, False, Outcome.KILLED, id="killed-not-asked"),
        pytest.param(end_with(-9), counted(), True, True, Outcome.KILLED, id="killed-by-hand"),
        pytest.param(end_with(2), counted(), True, True, Outcome.KILLED, id="by-hand-and-gvisor-failed"),
        pytest.param(end_with(0, told=True), counted(), True, True, Outcome.OK, id="by-hand-too-late"),
        pytest.param(end_with(137, told=True), counted(), True, True, Outcome.KILLED, id="by-hand-gofer-first"),
        pytest.param(end_with(2), counted(pids_limit_hits=1), True, False, Outcome.TOO_MANY_PROCESSES, id="pids"),
        pytest.param(
            end_with(2), counted(pids_limit_hits=1), False, False, Outcome.TOO_MANY_PROCESSES, id="pids-not-asked"
        ),
        pytest.param(end_with(0), counted(pids_limit_hits=1), False, False, Outcome.OK, id="pids-hit-and-lived"),
        pytest.param(end_with(2, told=True), counted(pids_limit_hits=1), True, False, Outcome.ERROR, id="pids-told"),
        pytest.param(end_with(137, told=True), counted(oom_kills=1), True, False, Outcome.OUT_OF_MEMORY, id="oom"),
        pytest.param(
            end_with(-9, timed_out=True), counted(oom_kills=1), True, False, Outcome.OUT_OF_MEMORY, id="oom-and-late"
        ),
        pytest.param(end_with(-9, timed_out=True), counted(), True, True, Outcome.TIMED_OUT, id="late"),
    ],
)
def test_the_outcome_follows_from_wait_status_and_counters(
    end: BoxEnd,
    counters: Counters,
    asked: bool,  # noqa: FBT001 -- a column of the table
    by_hand: bool,  # noqa: FBT001 -- a column of the table
    outcome: Outcome,
) -> None:
    assert outcome_of(end, counters, asked=asked, ended_by_hand=by_hand) is outcome
