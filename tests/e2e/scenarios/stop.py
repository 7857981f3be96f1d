"""Stop ends the box at once, and nobody else has to wait meanwhile."""

import http.client
import time

from tests.e2e.client import Chat
from tests.e2e.health import HealthWatch
from tests.e2e.stage import Stage, start_python
from tests.e2e.traces import Process, alive, command_lines
from tests.e2e.waiting import wait_for

STOP_SECONDS = 1.0
"""A box lives no longer than this after Stop."""

LATENCY_SECONDS = 0.5
"""No answer to anybody else takes longer than this meanwhile."""

_BOX_SECONDS = 30.0
_RUNNING_SECONDS = 1.5  # by then the code sleeps; the runtime limit of 5 s is still far


def play(stage: Stage) -> None:
    """4. Stop kills the box within a second, while other requests are still served."""
    with HealthWatch(stage.host.url) as health:
        chat, box = _sleeping_box(stage)
        stopping = time.monotonic()
        answer = stage.person.stop_chat(chat)
        answered = time.monotonic() - stopping
        gone = _gone_after(box, stopping)
    runs_runsc = any("runsc" in line for line in box.values())
    stage.report.check("a gVisor box was running", runs_runsc, f"{len(box)} processes")
    stage.report.check("Stop is answered with success", answer.status == http.client.OK, answer.body)
    stage.report.check("Stop is answered within a second", answered < STOP_SECONDS, f"{answered:.3f} s")
    stage.report.check("no process of the box is left within a second", gone < STOP_SECONDS, f"{gone:.3f} s")
    count = len(health.latencies_seconds)
    seen = f"{count} answers, worst {health.worst_seconds:.3f} s"
    stage.report.check("GET /health answered fast all the time", health.worst_seconds < LATENCY_SECONDS, seen)
    stage.report.check("GET /health never failed", not health.failures, health.failures or "0 failures")
    cgroups = stage.watch.left_cgroups()
    stage.report.check("no cgroup of a run is left", not cgroups, cgroups or "0")
    folders = stage.watch.left_folders()
    stage.report.check("no folder of a run is left", not folders, folders or "0")
    message = stage.person.finished_message(chat)
    stage.report.check("the stopped chat is in order", message.get("error") is None, message.get("error") or "no error")


def _sleeping_box(stage: Stage) -> tuple[Chat, dict[Process, str]]:
    """Start a chat whose tool sleeps, and give the box's processes with their command lines."""
    chat = start_python(stage, "import time\ntime.sleep(60)")
    wait_for(lambda: stage.watch.boxes() or None, what="a box below the server", seconds=_BOX_SECONDS)
    time.sleep(_RUNNING_SECONDS)
    return chat, command_lines(stage.watch.boxes())


def _gone_after(box: dict[Process, str], since: float) -> float:
    wait_for(lambda: None if alive(set(box)) else True, what="the box to end", seconds=20.0, pause_seconds=0.01)
    return time.monotonic() - since
