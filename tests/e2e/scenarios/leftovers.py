"""The server is stopped in the middle of a run: its boxes end with it, and the next run removes what they left."""

import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.report import ScenarioError
from tests.e2e.stage import Stage, start_python
from tests.e2e.waiting import wait_for

_SETTLING_SECONDS = 3.0


def play(stage: Stage) -> None:
    """8. The server, stopped in the middle of a run, leaves no process; after the next run, no cgroup or folder."""
    start_python(stage, "import time\ntime.sleep(60)")
    wait_for(lambda: stage.watch.boxes() or None, what="a box below the server", seconds=30.0)
    time.sleep(1.0)
    stopping = time.monotonic()
    code = stage.host.stop()
    stage.report.note(f"the server ended with code {code}, {time.monotonic() - stopping:.1f} s after SIGTERM")
    wait_for(lambda: None if stage.watch.left_processes() else True, what="no process", seconds=_SETTLING_SECONDS)
    stage.report.check("no process is left", not stage.watch.left_processes(), "0")
    _run_once_more()
    _let_settle(stage)
    stage.watch.close()
    names = stage.watch.run_names()
    stage.report.check("runs were seen, so that there was something to leave", bool(names), f"{len(names)} runs")
    for what, left in _left(stage).items():
        stage.report.check(f"no {what} is left", not left, left or "0")


def _run_once_more() -> None:
    """Run something as the same user; uvicorn ends itself before any clean-up of ours, so this is who cleans up."""
    plugin = Path(__file__).parents[3] / "plugins" / "generated" / "tools" / "run_code.py"
    subprocess.run([sys.executable, plugin], input=b"print(1)", check=True, timeout=120, stdout=subprocess.DEVNULL)


def _let_settle(stage: Stage) -> None:
    try:
        wait_for(lambda: None if any(_left(stage).values()) else True, what="quiet", seconds=_SETTLING_SECONDS)
    except ScenarioError:
        return  # the assertions say what is left


def _left(stage: Stage) -> dict[str, list[str]]:
    return {
        "process": stage.watch.left_processes(),
        "cgroup": stage.watch.left_cgroups(),
        "run folder": stage.watch.left_folders(),
    }
