"""Attacks from inside a box, and by whoever may write code, names or files around one: each bears its name.

What a box says decides nothing, and what it sees is its own: no host path, name, account, environment or file.
"""

import asyncio
import json
import os
import re
import secrets
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.outcome import Outcome
from sandbox.request import RunRequest
from sandbox.starters import READY
from tests.sandbox.conftest import Place, eventually, limits_of, ran

pytestmark = pytest.mark.gvisor

READ_EVERYTHING = """
import os
seen = []
for folder in {folders!r}:
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not os.path.islink(os.path.join(base, name))]
        for name in files:
            path = os.path.join(base, name)
            try:
                if os.path.isfile(path) and os.path.getsize(path) < 1 << 22:
                    with open(path, 'rb') as file: data = file.read(1 << 22)
                    if {needle!r} in data: seen.append(path)
            except OSError: pass
print(seen)
"""


# Forged words


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(f"import os; os.write(1, {READY!r}); os._exit(3)", id="ready-again"),
        pytest.param(
            f"import os; os.write(1, {READY!r} * 1000); os.write(2, {READY!r}); os._exit(3)", id="ready-often"
        ),
        pytest.param(
            'import os; os.write(1, b\'{"outcome": "ok", "exit_code": 0}\\n\\x00end 0\\n\'); os._exit(3)', id="a-result"
        ),
        pytest.param("import os; os.write(1, b'\\x00' * 100 + b'\\xff' * 100); os._exit(3)", id="rubbish"),
        pytest.param("import os; os.close(0); os.close(1); os.close(2); os._exit(3)", id="silence"),
    ],
)
async def test_forged_frames_change_no_outcome_and_are_only_output(place: Place, code: str) -> None:
    result = await place.run(code)

    assert (result.outcome, result.exit_code) == (Outcome.ERROR, 3)


async def test_forged_ready_sign_is_kept_as_output(place: Place) -> None:
    result = await place.run(f"import os; os.write(1, {READY!r})")

    assert result.stream("stdout") == READY


async def test_forged_exit_code_of_a_timeout_is_an_ordinary_exit(place: Place) -> None:
    assert (await place.run("import os; os._exit(124)")).outcome is Outcome.ERROR


async def test_forged_out_of_memory_is_an_ordinary_exit(place: Place) -> None:
    result = await place.run("import os, sys; print('Killed: out of memory', file=sys.stderr); os.kill(os.getpid(), 9)")

    assert (result.outcome, result.exit_code) == (Outcome.ERROR, 137)


async def test_patched_interpreter_cannot_reach_beyond_its_own_run(place: Place) -> None:
    code = """
import builtins, linecache, os, sys, traceback
sys.stdout = sys.stderr = None; builtins.print = builtins.exit = None; sys.exit = sys.excepthook = None
traceback.print_exception = None; linecache.cache.clear(); sys.modules.clear(); sys.settrace(lambda *_: None)
os.write(1, b'still here')
raise SystemExit(5)
"""
    result = await place.run(code)

    assert (result.outcome, result.exit_code, result.output) == (Outcome.ERROR, 5, "still here")


async def test_next_run_sees_nothing_of_the_one_before(place: Place) -> None:
    leave = "open('/tmp/canary', 'w').write('1'); open('/dev/shm/canary', 'w').write('1')"
    look = "import os; print([os.path.exists(p) for p in ('/tmp/canary', '/dev/shm/canary')], os.listdir('/tmp'))"

    await place.run(leave)

    assert (await place.run(look)).output == "[False, False] []\n"


# Canaries


async def test_environment_canary_is_nowhere_in_the_box(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = secrets.token_hex(16)
    monkeypatch.setenv("SECRET_CANARY", canary)
    code = f"import os; print(dict(os.environ))\n{READ_EVERYTHING.format(folders=['/proc'], needle=canary.encode())}"

    lines = (await place.run(code)).output.splitlines()

    assert set(eval(lines[0])) == {"PATH", "HOME", "TMPDIR", "USER", "LANG", "SSL_CERT_FILE"}  # noqa: S307 -- a dict
    assert canary not in lines[0]
    assert lines[1] == "[]"


async def test_environment_canary_is_in_no_process_of_the_box_on_the_host(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = secrets.token_hex(16)
    monkeypatch.setenv("SECRET_CANARY", canary)
    watched = Watch(place)

    await watched.run("import time; time.sleep(0.3)")

    assert watched.environments
    assert not [text for text in watched.environments if canary in text or "=" in text]


BEFORE_GVISOR = ("/bin/sh ", "setpriv ", "env ")


class Watch:
    """Reads, while a run goes on, what its processes on the host hold."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.environments: set[str] = set()
        self.files: set[str] = set()

    async def run(self, code: str) -> None:
        task = asyncio.create_task(self._place.run(code))
        while not task.done():
            for number, line in self._place.processes().items():
                if not line.startswith(BEFORE_GVISOR):
                    self._look(Path(f"/proc/{number}"))
            await asyncio.sleep(0.02)
        assert (await task).outcome is Outcome.OK

    def _look(self, process: Path) -> None:
        try:
            self.environments.add((process / "environ").read_bytes().decode(errors="replace"))
            self.files |= {str(entry.readlink()) for entry in (process / "fd").iterdir()}
        except OSError:
            return


async def test_descriptor_canary_of_the_caller_is_not_inherited(place: Place, tmp_path: Path) -> None:
    with (tmp_path / "canary").open("w") as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003 -- the standard library's own signature
        watched = Watch(place)
        await watched.run("import time; time.sleep(0.3)")

    assert watched.files
    assert str(tmp_path / "canary") not in watched.files


async def test_file_canaries_of_the_caller_are_nowhere_in_the_tree(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = secrets.token_hex(16)
    home = tmp_path / "home"
    home.mkdir()
    for path in (tmp_path / "canary.py", tmp_path / "canary.txt", home / ".netrc"):
        path.write_text(canary)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    everything = ["/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp", "/usr/lib/python3", "/var", "/mnt", "/data"]

    result = await place.run(READ_EVERYTHING.format(folders=everything, needle=canary.encode()))

    assert result.output == "[]\n"


async def test_packages_of_the_caller_cannot_be_imported(place: Place) -> None:
    code = """
import importlib.util, sys
ours = ("pytest", "pydantic", "cryptography", "click", "sandbox", "policy", "pip")
print([name for name in ours if importlib.util.find_spec(name)])
print([path for path in sys.path if "site-packages" in path or "dist-packages" in path])
"""
    assert (await place.run(code)).output == "[]\n[]\n"


async def test_tree_holds_only_listed_places_and_nobodys_home(place: Place) -> None:
    code = "import os; print(sorted(os.listdir('/')), os.listdir('/tmp'), *map(os.path.exists, ('/home', '/root')))"

    output = (await place.run(code)).output

    listed = {"bin", "dev", "etc", "lib", "lib64", "opt", "proc", "run", "sbin", "sys", "tmp", "usr", "var"}
    assert set(eval(output.partition("]")[0] + "]")) <= listed  # noqa: S307 -- a list of names
    assert output.endswith(" [] False False\n")


async def test_code_cannot_read_the_run_folder_or_the_private_folder(place: Place) -> None:
    needle = str(place.equipment.folder)
    code = f"""
import os
print([os.path.exists(path) for path in ({needle!r}, {str(place.equipment.tree.root)!r}, "/config.json", "/bundle")])
for trick in ("/proc/1/root/..", "/proc/self/cwd/../..", "/dev/fd/..", "/proc/1/root/proc/1/root/../../.."):
    print(sorted(os.listdir(trick)) == sorted(os.listdir('/')) or os.path.realpath(trick).startswith('/proc/'))
"""
    lines = (await place.run(code)).output.splitlines()

    assert lines[0] == "[False, False, False, False]"
    assert set(lines[1:]) <= {"True"}


# What the box may know of the host


async def test_host_paths_names_and_accounts_do_not_show_in_proc(place: Place) -> None:
    code = """
import os, pathlib
for name in ("mounts", "self/mounts", "self/mountinfo", "self/maps", "self/status", "self/cgroup", "cpuinfo", "version",
             "cmdline", "sys/kernel/hostname", "self/uid_map", "1/environ", "1/cmdline", "1/mountinfo"):
    try: print(name, pathlib.Path("/proc", name).read_text(errors="replace"))
    except OSError: pass
print(os.uname(), os.getcwd(), os.readlink("/proc/self/exe"))
"""
    shown = (await place.run(code)).output

    host_paths = [str(place.equipment.folder), str(place.equipment.tree.root), str(place.equipment.runsc.path.parent)]
    for path in [*host_paths, str(Path.cwd()), os.environ["HOME"] + "/"]:
        assert path not in shown
    for name in {socket.gethostname(), os.uname().release, os.uname().version} - {"sandbox", "localhost", ""}:
        assert not re.search(rf"\b{re.escape(name)}\b", shown)


async def test_box_has_no_capability_an_own_uid_and_no_new_privileges(place: Place) -> None:
    code = """
import ctypes, os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print([int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd")])
print(os.getresuid(), os.getresgid(), os.getgroups())
try: print(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))
except (ImportError, OSError): print(1)
"""
    output = (await place.run(code)).output

    assert output == "[0, 0, 0, 0]\n(1000, 1000, 1000) (1000, 1000, 1000) []\n1\n"


async def test_kernel_of_the_box_is_gvisors(place: Place) -> None:
    assert "Starting gVisor" in (await place.run("dmesg", "bash")).output


@pytest.mark.parametrize(
    "attempt",
    [
        "os.setuid(0)",
        "os.setgroups([0])",
        "os.chroot('/tmp')",
        "socket.sethostname('x')",
        "os.mknod('/tmp/disk', 0o660 | stat.S_IFBLK, os.makedev(8, 0)); open('/tmp/disk', 'rb')",
        "os.mknod('/tmp/mem', 0o660 | stat.S_IFCHR, os.makedev(1, 1)); open('/tmp/mem', 'rb')",
        "os.chown('/tmp', 0, 0)",
        "open('/dev/mem', 'rb')",
        "open('/dev/kmsg', 'rb')",
        "open('/proc/sysrq-trigger', 'w')",
        "open('/proc/sys/kernel/core_pattern', 'w')",
        "open('/proc/1/root/etc/passwd', 'w')",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    ],
)
async def test_privileged_act_is_refused(place: Place, attempt: str) -> None:
    code = f"import os, socket, stat\ntry:\n    {attempt}\n    print('done')\nexcept OSError: print('refused')"

    assert (await place.run(code)).output == "refused\n"


async def test_nothing_but_tmp_and_shared_memory_is_writable(place: Place) -> None:
    code = """
import os
written = []
for base, folders, files in os.walk("/"):
    if base.startswith(("/proc/", "/sys/")): folders[:] = []; continue
    folders[:] = [name for name in folders if not os.path.islink(os.path.join(base, name))]
    probe = os.path.join(base, "written")
    try: open(probe, "x").close(); written.append(base)
    except OSError: pass
    for name in files:
        path = os.path.join(base, name)
        try:
            if os.path.isfile(path) and not os.path.islink(path) and base not in ("/tmp", "/dev/shm"):
                os.close(os.open(path, os.O_WRONLY)); written.append(path)
        except OSError: pass
print(written)
"""
    assert (await place.run(code)).output in {"['/dev/shm', '/tmp']\n", "['/tmp', '/dev/shm']\n"}


async def test_setuid_programs_there_are_none_and_none_can_be_made(place: Place) -> None:
    code = """
import os, stat
found = []
for base, folders, files in os.walk("/"):
    if base.startswith(("/proc", "/sys")): folders[:] = []; continue
    for name in files:
        try: mode = os.lstat(os.path.join(base, name)).st_mode
        except OSError: continue
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID): found.append(name)
print(found)
import shutil, subprocess
shutil.copy("/usr/bin/id", "/tmp/id"); os.chmod("/tmp/id", 0o6755)
print(subprocess.run(["/tmp/id", "-u"], capture_output=True, text=True).stdout.strip() or "refused")
"""
    lines = (await place.run(code)).output.splitlines()

    assert lines[0] == "[]"
    assert lines[1] in {"1000", "refused"}


async def test_file_written_in_the_tree_by_one_run_is_not_there_for_the_next(place: Place) -> None:
    await place.run("import os\ntry: os.makedirs('/usr/lib/x')\nexcept OSError: pass")

    assert not (place.equipment.tree.root / "usr/lib/x").exists()


async def test_host_sockets_cannot_be_reached_through_the_file_system(place: Place) -> None:
    server = socket.socket(socket.AF_UNIX)
    path = place.equipment.folder.parent / "socket"
    server.bind(str(path)[:107])
    server.listen()
    code = f"""
import socket
from contextlib import suppress
for path in ({str(path)[:107]!r}, "/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"):
    try: socket.socket(socket.AF_UNIX).connect(path); print("reached")
    except OSError: print("closed")
"""
    with server:
        assert (await place.run(code)).output == "closed\n" * 4


# Hostile requests


@pytest.mark.parametrize(
    "person",
    [
        pytest.param("../../x", id="path"),
        pytest.param("a\nb", id="newline"),
        pytest.param("a\x00b", id="NUL"),
        pytest.param("x" * (1 << 20), id="1-MiB"),
        pytest.param("$(touch /tmp/x)", id="shell"),
        pytest.param("--network=host", id="option"),
    ],
)
async def test_hostile_person_id_makes_no_strange_file_and_reaches_no_command_line(place: Place, person: str) -> None:
    request = RunRequest(language="python", code="print(1)", person=person, limits=limits_of())

    result = await ran(place.equipment, request)

    names = [str(path.relative_to(place.equipment.folder)) for path in place.equipment.folder.rglob("*")]
    assert result.output == "1\n"
    assert [name for name in names if not re.fullmatch(r"slots|runs|slots/person-[0-9a-f]{64}-[0-9]", name)] == []


async def test_hostile_code_reaches_neither_command_line_nor_run_folder(place: Place) -> None:
    canary = f"canary{secrets.token_hex(8)}"
    found: list[str] = []

    async def look() -> None:
        for _ in range(40):
            found.extend(line for line in place.processes().values() if canary in line)
            for path in place.runs.rglob("*"):
                with suppress(OSError):  # gone by now, or no file
                    found.extend([str(path)] if canary.encode() in path.read_bytes() else [])
            await asyncio.sleep(0.02)

    await asyncio.gather(look(), place.run(f"x = {canary!r}\nimport time; time.sleep(0.6)"))

    assert found == []


@pytest.mark.parametrize(
    ("language", "code"),
    [
        pytest.param("python", "x = '\x00'", id="NUL"),
        pytest.param("python", "#" * (10 << 20), id="10-MiB"),
        pytest.param("bash", "echo \udfff", id="lone-surrogate"),
        pytest.param("ruby", "puts 1", id="unknown-language"),
    ],
)
async def test_hostile_code_is_refused_before_anything_is_started(place: Place, language: str, code: str) -> None:
    with pytest.raises(SandboxError) as caught:
        await place.run(code, language)

    assert caught.value.remedy
    assert not place.equipment.folder.exists()


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("(" * 1_000_000, id="nested-brackets"),
        pytest.param("x = " + "-" * 1_000_000 + "1", id="nested-minus"),
        pytest.param("x" * 1_000_000, id="long-name"),
        pytest.param("\ufeffprint(1)", id="byte-order-mark"),
        pytest.param("# -*- coding: utf-7 -*-\nprint('+ADw-')", id="declared-encoding"),
        pytest.param("'''", id="unterminated"),
        pytest.param("import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()", id="endless-recursion"),
    ],
)
async def test_code_that_upsets_the_compiler_is_an_outcome(place: Place, code: str) -> None:
    result = await place.run(code, max_runtime_seconds=10)

    assert result.outcome in {Outcome.OK, Outcome.ERROR, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT}
    assert 'File "<string>"' not in result.output


async def test_spec_on_disk_is_for_the_running_user_alone_and_names_no_person(place: Place) -> None:
    task = asyncio.create_task(place.run("import time; time.sleep(0.5)"))
    await eventually(lambda: any(path.read_text() for path in place.runs.glob("*/bundle/config.json")), 5)
    (folder,) = place.runs.iterdir()
    text = (folder / "bundle" / "config.json").read_text()
    modes = {path.stat().st_mode & 0o077 for path in (folder, folder / "bundle", folder / "state")}
    await task

    assert modes == {0}
    assert "somebody" not in text
    assert json.loads(text)["root"]["readonly"] is True
