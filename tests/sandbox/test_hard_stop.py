"""The pids cgroup behind the box's own limit: whatever gets past that one ends the box, and is told as what it is."""

from dataclasses import replace

import pytest

from sandbox.outcome import Outcome
from sandbox.probes import PROBES
from tests.sandbox.conftest import Place, ran, request_of

pytestmark = pytest.mark.gvisor

HARD_STOP = 96
"""More than gVisor itself needs here, and far less than the code below would take."""


@pytest.mark.parametrize(
    ("language", "code"),
    [
        pytest.param(
            "bash", "n=0; while [ $n -lt 300 ]; do (kill -STOP $BASHPID) & n=$((n+1)); done; echo made", id="stopped"
        ),
        pytest.param("bash", "bomb() { bomb | bomb & }; bomb; while :; do :; done", id="fork-bomb"),
        pytest.param(
            "python",
            "import os, time\nfor n in range(300):\n    if os.fork() == 0: time.sleep(60)\nprint('made')",
            id="waiting",
        ),
    ],
)
async def test_code_past_its_own_limit_of_processes_meets_the_hard_stop(place: Place, language: str, code: str) -> None:
    request = request_of(code, language, max_processes=4_096, max_ram_megabytes=512)

    result = await ran(place.equipment, replace(request, processes_hard_stop=HARD_STOP))

    assert result.outcome is Outcome.TOO_MANY_PROCESSES
    assert result.exit_code is None
    assert "limit" in result.sentence
    assert result.output == ""


async def test_probe_of_the_hard_stop_fails_where_nothing_stops_the_box(place: Place) -> None:
    (probe,) = [probe for probe in PROBES if probe.processes_hard_stop is not None]

    held = await ran(place.equipment, probe.request())
    unstopped = await ran(place.equipment, replace(probe.request(), processes_hard_stop=None))

    assert (held.outcome, probe.held(held)) == (Outcome.TOO_MANY_PROCESSES, True)
    assert (unstopped.outcome, probe.held(unstopped)) == (Outcome.OK, False)
