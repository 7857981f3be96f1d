"""Runs in the virtual machine, as root in the true root of its hierarchy: lays cgroups out, and runs each session.

A session is pytest in a service of its own with `Delegate=yes` and `DelegateSubgroup=runner`, as on a host of systemd.
All run at once, on the machine's two processors. The file tree of boxes, which takes a minute to build here, is built
once and copied for the ordinary user; private folders lie in memory.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from sandbox.folders import private_folder
from tests.vm.machine import PORT
from tests.vm.places import HIERARCHY, command_in, delegated_service, made_slice
from tests.vm.recorder import SESSION_VARIABLE, say
from tests.vm.sessions import SESSIONS, Session

HOMES = Path("/run/homes")
SLICE = "system.slice"
PATIENCE = "6"
"""How many times longer than on real hardware the tests wait."""
PYTEST = (
    "-m",
    "pytest",
    "-ptests.vm.recorder",
    "-pno:cacheprovider",
    "--refuse-skips",
    "--color=no",
    "-q",
    "-otimeout=300",
)


def main() -> int:
    """Run all sessions; what became of them is reported, and so is the end."""
    PORT.chmod(0o666)
    _open_the_way(Path(sys.prefix), Path(sys.base_prefix), Path.cwd())
    HOMES.mkdir()
    system = made_slice(SLICE)
    environ = _home_of(0, private_folder(), "gvisor")
    preparing = subprocess.Popen(
        command_in(delegated_service(system / "preparing.service", 0), [sys.executable, "-m", "tests.vm.box_probe"]),
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    running = {session: _started(session, environ) for session in SESSIONS if not session.user}
    say({"kind": "first box", "said": preparing.communicate()[0].strip()})
    for session in SESSIONS:
        if session.user:
            running[session] = _started(session, _home_of(session.user, private_folder(environ), "gvisor", "trees"))
    for session, process in running.items():
        say({"kind": "session", "session": session.name, "exit_code": process.wait()})
    say({"kind": "end"})
    return 0


def _started(session: Session, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    runner = delegated_service(HIERARCHY / SLICE / f"{session.name}.service", session.user)
    command = [sys.executable, *PYTEST, *session.tests]
    return subprocess.Popen(
        command_in(runner, command, user=session.user), env={**environ, SESSION_VARIABLE: session.name}
    )


def _open_the_way(*folders: Path) -> None:
    """Let the ordinary user reach Python and the checkout, which may lie in root's home."""
    for folder in {above for path in folders for above in (path, *path.parents)}:
        folder.chmod(folder.stat().st_mode | 0o011)


def _home_of(user: int, source: Path, *copied: str) -> dict[str, str]:
    """Make a home with folders of a private folder in its own; returns an environment that names it."""
    home = HOMES / str(user)
    environ = {**os.environ, "TESTS_PATIENCE": PATIENCE, "HOME": str(home), "XDG_CACHE_HOME": str(home)}
    home.mkdir(mode=0o700)
    folders = [source / name for name in copied if (source / name).exists()]
    if folders:
        subprocess.run(["/bin/cp", "-a", *folders, private_folder(environ)], check=True)
    subprocess.run(["/bin/chown", "-R", f"{user}:{user}", home], check=True)
    return environ


if __name__ == "__main__":
    sys.exit(main())
