"""Runs all scenarios in order against one Open WebUI of its own, and exits 0 where every assertion held.

python -m tests.e2e [--plugins FOLDER] [--output FOLDER]
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from playwright.sync_api import Error as PageError

from tests.e2e.client import Client
from tests.e2e.host import LOCKDOWN, Host
from tests.e2e.model import MODEL_ID, StandInModel
from tests.e2e.page import chromium, signed_in_page
from tests.e2e.report import Report, ScenarioError
from tests.e2e.scenarios import action, chat, leftovers, loading, lockdown, scopes, stop, valves_form
from tests.e2e.stage import Stage
from tests.e2e.traces import Watch

SCENARIOS: tuple[Callable[[Stage], None], ...] = (
    loading.play,
    chat.play,
    action.play,
    stop.play,
    lockdown.play,
    valves_form.play,
    scopes.play,
    leftovers.play,
)
_PASSWORD = "only-for-this-run"
_STEP_ERRORS = (ScenarioError, PageError, AssertionError, OSError)


def main() -> int:
    """Run the scenarios; 0 all assertions held, 1 some did not, 2 the plugins are not there."""
    options = _parser().parse_args()
    # Whoever ends this run must not leave its server behind.
    signal.signal(signal.SIGTERM, _leave)
    missing = [path for path in _plugin_files(options.plugins) if not path.is_file()]
    if missing:
        sys.stderr.write(f"no plugin at {missing[0]}; make it with `make plugins`\n")
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    report = Report(sys.stdout)
    try:
        with _stage(report, options.plugins, options.output) as stage:
            for play in SCENARIOS:
                _play(stage, play)
    except _STEP_ERRORS as error:
        report.fail("Open WebUI is set up", error)
    report.note(f"screenshots and the server's log are in {options.output}")
    return report.close()


def _leave(signal_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal_number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e", description="Runs all scenarios against one Open WebUI."
    )
    parser.add_argument("--plugins", type=Path, default=Path("plugins/generated"), help="folder of the plugins to load")
    parser.add_argument("--output", type=Path, default=Path("build/e2e"), help="folder for screenshots and the log")
    return parser


def _plugin_files(plugins: Path) -> list[Path]:
    return [plugins / kind / "run_code.py" for kind in ("tools", "functions")]


def _play(stage: Stage, play: Callable[[Stage], None]) -> None:
    stage.report.heading(play.__doc__ or play.__module__)
    try:
        play(stage)
    except _STEP_ERRORS as error:
        stage.report.fail("the scenario comes to its end", f"{type(error).__name__}: {error}")


@contextmanager
def _stage(report: Report, plugins: Path, output: Path) -> Iterator[Stage]:
    report.heading("Starting Open WebUI, a stand-in for a model, and Chromium")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sandbox-e2e-")))
        model = StandInModel()
        stack.callback(model.close)
        host = Host(folder=folder, log=output / "open-webui.log", model_url=model.base_url, variables=LOCKDOWN)
        stack.callback(host.stop)
        watch = Watch(host.pid)
        stack.callback(watch.close)
        browser = stack.enter_context(chromium())
        nobody = Client(host.url)
        host.wait_until_ready(report, nobody.is_ready)
        administrator, person = _accounts(nobody)
        yield Stage(
            report=report,
            plugins=plugins,
            output=output,
            model=model,
            host=host,
            watch=watch,
            administrator=administrator,
            person=person,
            administrator_page=signed_in_page(browser, administrator, output),
            person_page=signed_in_page(browser, person, output),
        )


def _accounts(nobody: Client) -> tuple[Client, Client]:
    """Make an administrator, an ordinary person, and the model that both may use."""
    administrator = nobody.signed_up("Ada", "ada@example.com", _PASSWORD)
    person = administrator.with_account("Uma", "uma@example.com", _PASSWORD)
    administrator.get("/api/models")
    administrator.share_model(MODEL_ID)
    version = nobody.get("/api/config")["version"]
    for client in (administrator, person):
        # As if the release notes, which cover the page at the first visit, had been read.
        client.post("/api/v1/users/user/settings/update", {"ui": {"version": version}})
    return administrator, person


if __name__ == "__main__":
    sys.exit(main())
