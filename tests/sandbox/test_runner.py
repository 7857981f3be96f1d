"""Code runs in real boxes: what it says and how it ends is told truly, limits bite, and nothing is left behind.

Each test has a folder and a cgroup of its own (`place`), which are looked through at its end.
"""

import asyncio
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from policy.values import UNLIMITED
from sandbox.cgroup_files import cgroup_members
from sandbox.cgroup_places import ACCOUNTING_CONTROLLER, CgroupController, CgroupVersion
from sandbox.cgroups import CgroupsUnavailable, MissingController
from sandbox.equipment import Equipment
from sandbox.errors import BusyError, StartError, UnenforceableError
from sandbox.gvisor import Runsc, RunscOrigin
from sandbox.leases import remove_leftovers
from sandbox.outcome import Outcome, RunResult
from sandbox.request import MAX_CODE_BYTES
from sandbox.run_notes import RunState, read_run_note
from sandbox.runner import Runner
from tests.sandbox.conftest import GONE_SECONDS, PATIENCE, Place, command_lines_with, eventually, ran, request_of

pytestmark = pytest.mark.gvisor

MEBIBYTE = 1 << 20
NO_CGROUPS = CgroupsUnavailable(reason="there are none in this test", remedy="Mount them")


def ended(result: RunResult) -> tuple[Outcome, int | None]:
    return result.outcome, result.exit_code


def open_descriptors() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that this very listing has open
            found.add(f"{entry.name} {entry.readlink()}")
    return found


@asynccontextmanager
async def started(
    place: Place, code: str, language: str = "python", **values: object
) -> AsyncIterator[asyncio.Task[RunResult]]:
    """A run under way: its box has got the code."""
    task = asyncio.create_task(place.run(code, language, **values))
    try:
        await eventually(lambda: code_is_handed_over(place), 20)
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def code_is_handed_over(place: Place) -> bool:
    """The run's own note says so, which is written just before."""
    notes = map(read_run_note, place.runs.iterdir() if place.runs.exists() else ())
    return any(note is not None and note.state is RunState.RUNNING for note in notes)


# What people see


async def test_python_runs(place: Place) -> None:
    result = await place.run("print(6 * 7)")

    assert ended(result) == (Outcome.OK, 0)
    assert result.output == "42\n"
    assert (result.truncated, result.unenforced, result.notices) == (False, (), ())


async def test_bash_runs(place: Place) -> None:
    result = await place.run("echo $((6 * 7)) | cat; printf '%s\\n' {a,b}", "bash")

    assert ended(result) == (Outcome.OK, 0)
    assert result.output == "42\na\nb\n"


@pytest.mark.parametrize("language", ["python", "bash"])
async def test_empty_code_ends_well(place: Place, language: str) -> None:
    assert ended(await place.run("", language)) == (Outcome.OK, 0)


@pytest.mark.parametrize(
    ("language", "code", "exit_code"),
    [
        ("python", "exit(3)", 3),
        ("python", "import sys; sys.exit(3)", 3),
        ("python", "quit()", 0),
        ("python", "raise SystemExit('bye')", 1),
        ("python", "import os; os._exit(9)", 9),
        ("python", "1 / 0", 1),
        ("python", "import os; os.kill(os.getpid(), 11)", 139),
        ("python", "import os; os.abort()", 134),
        ("bash", "exit 7", 7),
        ("bash", "false", 1),
        ("bash", "no-such-command", 127),
        ("bash", "if then", 2),
        ("bash", "kill -SEGV $$", 139),
    ],
)
async def test_the_codes_own_exit_code_is_told(place: Place, language: str, code: str, exit_code: int) -> None:
    result = await place.run(code, language)

    assert ended(result) == (Outcome.ERROR if exit_code else Outcome.OK, exit_code)


async def test_output_comes_split_by_stream_and_in_order(place: Place) -> None:
    code = (
        "import sys, time\nfor n in range(3):\n    print(n); time.sleep(.1); print(n, file=sys.stderr); time.sleep(.1)"
    )

    result = await place.run(code)

    assert result.output == "0\n0\n1\n1\n2\n2\n"
    assert (result.stream("stdout"), result.stream("stderr")) == (b"0\n1\n2\n", b"0\n1\n2\n")


async def test_a_traceback_shows_the_persons_own_lines_and_nothing_of_ours(place: Place) -> None:
    result = await place.run("def half(x):\n    return x / 0\n\nhalf(1)\n")

    assert re.sub(r"\n +[~^]+(?=\n)", "", result.output) == (
        "Traceback (most recent call last):\n"
        '  File "<code>", line 4, in <module>\n    half(1)\n'
        '  File "<code>", line 2, in half\n    return x / 0\n'
        "ZeroDivisionError: division by zero\n"
    )


async def test_a_syntax_error_points_at_the_persons_line(place: Place) -> None:
    result = await place.run("x = 1\ny = = 2\n")

    assert ended(result) == (Outcome.ERROR, 1)
    assert result.output.startswith('  File "<code>", line 2\n    y = = 2\n')
    assert result.output.endswith("SyntaxError: invalid syntax\n")


async def test_a_chained_exception_shows_both_and_nothing_of_ours(place: Place) -> None:
    result = await place.run(
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('x') from error"
    )

    files = set(re.findall(r'File "([^"]*)"', result.output))
    assert files == {"<code>"}
    assert result.output.count("Traceback") == 2


@pytest.mark.parametrize(
    ("language", "code", "output"),
    [
        ("python", "try:\n    input()\nexcept EOFError:\n    print('end')", "end\n"),
        ("python", "import sys; print(repr(sys.stdin.read()))", "''\n"),
        ("bash", "cat; echo done", "done\n"),
        ("bash", "read line || echo end\necho after", "end\nafter\n"),
        ("bash", "python3 -c 'import sys; print(len(sys.stdin.read()))'\necho last", "0\nlast\n"),
    ],
)
async def test_standard_input_is_at_its_end_and_holds_nothing_of_the_code(
    place: Place, language: str, code: str, output: str
) -> None:
    assert (await place.run(code, language)).output == output


async def test_main_is_clean(place: Place) -> None:
    clean = "['__annotations__', '__builtins__', '__doc__', '__loader__', '__name__', '__package__', '__spec__']"
    code = "print(dir()); import sys; print(__name__, sys.argv, sys.modules['__main__'].__dict__ is globals())"

    lines = (await place.run(code)).output.splitlines()

    assert set(eval(lines[0])) <= set(eval(clean))  # noqa: S307 -- lists of names
    assert lines[1] == "__main__ ['<code>'] True"


async def test_text_beyond_ascii_comes_out_as_it_went_in(place: Place) -> None:
    assert (await place.run("print('é€😀')")).output == "é€😀\n"
    assert (await place.run("echo é€😀", "bash")).output == "é€😀\n"


async def test_processes_and_threads_work(place: Place) -> None:
    code = """
import multiprocessing, subprocess, threading
from concurrent.futures import ProcessPoolExecutor
with multiprocessing.Pool(2) as pool: print(pool.map(abs, [-1, -2]))
with ProcessPoolExecutor(2) as pool: print(list(pool.map(abs, [-3])))
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
print(subprocess.run(["echo", "child"], capture_output=True, text=True).stdout, end="")
"""
    assert (await place.run(code)).output == "[1, 2]\n[3]\nthread\nchild\n"


@pytest.mark.parametrize(
    ("language", "code"),
    [
        pytest.param("python", "# comment\n" * 104_000 + "print('end')", id="python-lines"),
        pytest.param("python", f"x = '{'a' * 1_048_500}'\nprint('end')", id="python-one-line"),
        pytest.param("bash", "# comment\n" * 104_000 + "echo end", id="bash-lines"),
        pytest.param("bash", f"x='{'a' * 1_048_500}'\necho end", id="bash-one-line"),
    ],
)
async def test_a_mebibyte_of_code_runs_in_bounded_time(place: Place, language: str, code: str) -> None:
    assert 0.99 * MAX_CODE_BYTES < len(code) <= MAX_CODE_BYTES

    result = await place.run(code, language)

    assert result.output == "end\n"
    assert result.wall_seconds < 5


async def test_a_result_names_what_ran_it_and_what_it_used(place: Place) -> None:
    request = request_of("b = bytearray(20 << 20)")

    result = await ran(place.equipment, request)

    assert result.limits_digest == request.limits.digest
    assert result.gvisor == place.equipment.gvisor_words
    assert result.peak_memory_bytes is not None
    assert 20 * MEBIBYTE < result.peak_memory_bytes < 192 * MEBIBYTE
    assert result.cpu_seconds is not None
    assert 0 < result.cpu_seconds < 10 * PATIENCE
    assert 0 < result.startup_seconds < 30
    assert 0 < result.wall_seconds < 20


# Network


async def test_without_network_no_route_leads_out_and_no_name_resolves(place: Place) -> None:
    code = """
import socket
print([name for _, name in socket.if_nameindex()])
for address in ("192.0.2.1", "169.254.169.254", "2001:db8::1"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as end:
                end.settimeout(3); end.connect((address, 80)); print("reached", address)
        except OSError as error: print("closed")
try: socket.getaddrinfo("example.com", 80); print("resolved")
except OSError: print("closed")
try: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print("raw")
except OSError: print("closed")
"""
    assert (await place.run(code)).output == "['lo']\n" + "closed\n" * 8


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "import urllib.request; urllib.request.urlopen('http://web.example/')",
            "networking_allowed is false, by test",
        ),
        ("import socket; socket.socket().connect(('192.0.2.1', 80))", "networking_allowed is false, by test"),
        ("raise SystemExit(7)", ""),
        ("print('Network is unreachable')", ""),
    ],
    ids=["no name", "no route", "fails otherwise", "succeeds"],
)
async def test_code_that_fails_without_network_is_told_that_there_was_none(place: Place, code: str, told: str) -> None:
    notices = (await place.run(code)).notices

    assert told in " ".join(notices)
    assert bool(notices) == bool(told)


async def test_a_box_has_a_loopback_of_its_own(place: Place) -> None:
    code = """
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=lambda: server.accept()[0].sendall(b"own")).start()
print(socket.create_connection(server.getsockname()).recv(3).decode())
"""
    assert (await place.run(code)).output == "own\n"


# Runtime


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(
            "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)", id="SIGTERM-ignored"
        ),
        pytest.param("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nwhile True: pass", id="stopped"),
        pytest.param("while True: pass", id="busy"),
        pytest.param(
            "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(60)\n"
            "    os._exit(0)\nos.wait()\ntime.sleep(60)",
            id="double-fork-setsid",
        ),
        pytest.param(
            "import os, signal, time\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
            "    except (OSError, ValueError): pass\nos.close(1); os.close(2); time.sleep(60)",
            id="all-ignored-output-closed",
        ),
    ],
)
async def test_code_is_stopped_at_its_runtime_whatever_it_does_against_it(place: Place, code: str) -> None:
    begun = time.monotonic()
    result = await place.run(code, max_runtime_seconds=1)

    assert ended(result) == (Outcome.TIMED_OUT, None)
    assert 1.0 <= result.wall_seconds < 1 + GONE_SECONDS
    assert time.monotonic() - begun < result.startup_seconds + 1 + GONE_SECONDS


@pytest.mark.parametrize(
    "code",
    [
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\nprint('parent', flush=True)",
        "import subprocess\nsubprocess.Popen(['sleep', '60'], start_new_session=True)\nprint('parent')",
    ],
)
async def test_a_grandchild_that_holds_the_output_does_not_keep_the_run_going(place: Place, code: str) -> None:
    result = await place.run(code)

    assert ended(result) == (Outcome.OK, 0)
    assert result.output == "parent\n"
    assert result.wall_seconds < 5


async def test_output_before_the_deadline_is_kept(place: Place) -> None:
    result = await place.run("print('before', flush=True)\nimport time\ntime.sleep(60)", max_runtime_seconds=1)

    assert (result.outcome, result.output) == (Outcome.TIMED_OUT, "before\n")


async def test_starting_up_does_not_count_as_runtime(place: Place) -> None:
    begun = time.monotonic()

    result = await place.run("import time; time.sleep(1.85); print('done')", max_runtime_seconds=2)

    assert time.monotonic() - begun > 2
    assert (result.outcome, result.output) == (Outcome.OK, "done\n")


async def test_small_share_of_a_cpu_makes_no_start_slow(place: Place) -> None:
    """Else it would hold its slot for minutes, and keep a pool busy with starting its like."""
    result = await place.run("print(1)", max_cpus=Decimal("0.01"))

    assert result.output == "1\n"
    assert result.startup_seconds < 5 * PATIENCE


# RAM

WRITE_FILE = "file = open('{path}', 'wb')\nfor _ in range({megabytes}): file.write(bytes(1 << 20))\nprint('had it')"
MAP_FILE = (
    "import mmap\nfile = open('/tmp/mapped', 'w+b'); size = {megabytes} << 20; file.truncate(size)\n"
    "view = mmap.mmap(file.fileno(), size)\nfor at in range(0, size, 4096): view[at] = 1\nprint('had it')"
)
WAYS_TO_USE_RAM = [
    pytest.param("block = bytearray({megabytes} << 20)\nprint('had it')", id="anonymous"),
    pytest.param(WRITE_FILE.replace("{path}", "/tmp/big"), id="tmp"),
    pytest.param(WRITE_FILE.replace("{path}", "/dev/shm/big"), id="shared-memory"),
    pytest.param(MAP_FILE, id="mapped-file"),
]


@pytest.mark.parametrize("code", WAYS_TO_USE_RAM)
async def test_twice_the_ram_is_out_of_memory_in_whichever_way(place: Place, code: str) -> None:
    result = await place.run(code.format(megabytes=256), max_ram_megabytes=96, max_disk_megabytes=UNLIMITED)

    assert ended(result) == (Outcome.OUT_OF_MEMORY, None)
    assert result.sentence == "Python code was stopped at 96 megabytes, its RAM limit."
    assert result.output == ""


@pytest.mark.parametrize("code", WAYS_TO_USE_RAM)
async def test_twice_the_least_ram_is_out_of_memory_in_whichever_way(place: Place, code: str) -> None:
    """What gVisor itself is left must not be what code gets."""
    result = await place.run(code.format(megabytes=64), max_ram_megabytes=32, max_disk_megabytes=UNLIMITED)

    assert ended(result) == (Outcome.OUT_OF_MEMORY, None)


@pytest.mark.parametrize("code", WAYS_TO_USE_RAM)
async def test_the_least_ram_can_be_used_in_whichever_way(place: Place, code: str) -> None:
    result = await place.run(code.format(megabytes=30), max_ram_megabytes=32, max_disk_megabytes=UNLIMITED)

    assert ended(result) == (Outcome.OK, 0)


@pytest.mark.parametrize("code", WAYS_TO_USE_RAM)
async def test_four_fifths_of_the_ram_can_be_used_in_whichever_way(place: Place, code: str) -> None:
    result = await place.run(code.format(megabytes=76), max_ram_megabytes=96, max_disk_megabytes=UNLIMITED)

    assert ended(result) == (Outcome.OK, 0)
    assert result.output == "had it\n"


async def test_memory_that_ran_out_above_a_run_is_not_told_as_its_own_limit(place: Place) -> None:
    (memory,) = (one for one in place.cgroups.places if CgroupController.MEMORY in one.controllers)
    name = "memory.limit_in_bytes" if memory.version is CgroupVersion.V1 else "memory.max"
    (memory.folder / name).write_text(str(100 * MEBIBYTE))

    result = await place.run("block = bytearray(100 << 20)", max_ram_megabytes=128)

    assert ended(result) == (Outcome.OUT_OF_MEMORY, None)
    assert result.sentence == "Python code was stopped because this host ran out of memory for it."


async def test_many_processes_share_one_ram_limit(place: Place) -> None:
    code = (
        "import subprocess, sys\n"
        "one = [sys.executable, '-IS', '-c', 'block = bytearray(40 << 20); import time; time.sleep(20)']\n"
        "for process in [subprocess.Popen(one) for _ in range(6)]: process.wait()"
    )
    assert (await place.run(code, max_ram_megabytes=64)).outcome is Outcome.OUT_OF_MEMORY


# CPU, processes, disk


async def test_a_busy_loop_gets_its_share_of_a_cpu(place: Place) -> None:
    code = "import time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass"

    result = await place.run(code, max_cpus=Decimal("0.2"))

    assert result.cpu_seconds is not None
    assert result.cpu_seconds < 0.3 * result.wall_seconds


async def test_several_busy_processes_share_one_cpu_limit(place: Place) -> None:
    code = "import os, time\nos.fork(); os.fork()\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass"

    result = await place.run(code, max_cpus=Decimal("0.4"))

    assert result.cpu_seconds is not None
    assert result.cpu_seconds < 0.55 * result.wall_seconds


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(
            "import threading, time\ncount = 1\ntry:\n    while count < 50:\n"
            "        threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); count += 1\n"
            "except RuntimeError: pass\nprint(count)",
            id="threads",
        ),
        pytest.param(
            "import os, time\ncount = 1\ntry:\n    while count < 50:\n        if os.fork() == 0: time.sleep(9)\n"
            "        count += 1\nexcept OSError: pass\nprint(count)",
            id="processes",
        ),
    ],
)
async def test_no_more_processes_and_threads_than_permitted_are_to_be_had(place: Place, code: str) -> None:
    result = await place.run(code, max_processes=8)

    assert 6 <= int(result.output) <= 8


@pytest.mark.parametrize(("language", "code"), [("python", "print(1)"), ("bash", "echo 1")])
async def test_a_single_process_is_enough_to_run(place: Place, language: str, code: str) -> None:
    assert (await place.run(code, language, max_processes=1)).output == "1\n"


@pytest.mark.parametrize(
    ("language", "code"),
    [
        pytest.param("bash", ":(){ :|:& };:; wait", id="bash"),
        pytest.param("python", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", id="python"),
    ],
)
@pytest.mark.parametrize("processes", [32, UNLIMITED])
async def test_fork_bomb_ends_in_a_sane_outcome_with_the_loop_responsive_and_the_box_gone(
    place: Place,
    language: str,
    code: str,
    processes: object,
) -> None:
    begun = time.monotonic()
    async with watched_loop() as longest_gap:
        result = await place.run(code, language, max_processes=processes, max_runtime_seconds=2, max_ram_megabytes=256)

    assert result.outcome in {Outcome.OK, Outcome.ERROR, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY}
    assert time.monotonic() - begun < result.startup_seconds + result.wall_seconds + GONE_SECONDS
    assert longest_gap() < PATIENCE


@pytest.mark.parametrize("path", ["/tmp/big", "/dev/shm/big"])
async def test_the_disk_is_full_at_its_limit(place: Place, path: str) -> None:
    code = (
        f"size = 0\nfile = open({path!r}, 'wb', buffering=0)\ntry:\n"
        "    while True: size += file.write(bytes(65536))\nexcept OSError as error: print(error.errno, size)"
    )
    number, size = (await place.run(code, max_disk_megabytes=4)).output.split()

    assert int(number) == 28
    assert 0 < int(size) <= 4 * MEBIBYTE


async def test_a_flood_of_empty_files_stays_within_ram_and_runtime(place: Place) -> None:
    code = "n = 0\nwhile True:\n    open(f'/tmp/{n}', 'w').close()\n    n += 1"

    result = await place.run(code, max_ram_megabytes=64, max_runtime_seconds=2)

    assert result.outcome in {Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY, Outcome.ERROR}
    assert result.peak_memory_bytes is not None
    assert result.peak_memory_bytes <= 129 * MEBIBYTE


# Output


@asynccontextmanager
async def watched_loop() -> AsyncIterator[Callable[[], float]]:
    """Measures the longest time in which the event loop answered nobody."""
    gaps = [0.0]

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - last - 0.01)
            last = time.monotonic()

    task = asyncio.create_task(tick())
    yield lambda: max(gaps)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def watched_memory() -> AsyncIterator[Callable[[], float]]:
    """Measures by how many bytes this process grows meanwhile, at its largest."""
    page, sizes = os.sysconf("SC_PAGE_SIZE"), []

    def size() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    async def tick() -> None:
        while True:
            sizes.append(size())
            await asyncio.sleep(0.02)

    task = asyncio.create_task(tick())
    await asyncio.sleep(0)
    yield lambda: max(sizes) - sizes[0]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("language", "code"),
    [
        pytest.param("bash", "yes", id="yes"),
        pytest.param("bash", "yes & yes >&2", id="both-streams"),
        pytest.param("bash", "head -c 1G /dev/zero", id="one-endless-line"),
        pytest.param(
            "python", "import os\nwhile True: os.write(1, b'a'); os.write(2, b'b')", id="changing-streams-by-the-byte"
        ),
    ],
)
async def test_output_bomb_is_cut_and_costs_the_caller_neither_memory_nor_time(
    place: Place, language: str, code: str
) -> None:
    async with watched_memory() as growth, watched_loop() as longest_gap:
        result = await place.run(code, language, max_runtime_seconds=2, max_output_kilobytes=16)

    assert result.truncated
    assert sum(len(chunk.data) for chunk in result.chunks) == 16 << 10
    assert growth() < 8 * MEBIBYTE
    assert longest_gap() < 0.5


async def test_changing_streams_by_the_byte_under_the_largest_limit_costs_little_memory(place: Place) -> None:
    code = "import os\nwhile True: os.write(1, b'a'); os.write(2, b'b')"

    async with watched_memory() as growth:
        result = await place.run(code, max_runtime_seconds=3, max_output_kilobytes=65_536)

    assert len(result.chunks) < 5_000
    assert growth() < 8 * MEBIBYTE


async def test_output_of_exactly_the_limit_is_whole(place: Place) -> None:
    result = await place.run("head -c 8K /dev/zero", "bash", max_output_kilobytes=8)

    assert (len(result.stream("stdout")), result.truncated) == (8 << 10, False)


async def test_all_output_of_code_that_ends_at_once_is_kept(place: Place) -> None:
    result = await place.run("import os\nos.write(1, b'x' * 60000)\nos._exit(0)")

    assert len(result.stream("stdout")) == 60_000


# Runs at once


async def test_one_run_more_than_permitted_is_busy_and_a_cancelled_one_frees_its_slot(place: Place) -> None:
    async with started(place, "import time; time.sleep(60)", max_concurrent_runs=1) as first:
        with pytest.raises(BusyError) as caught:
            await place.run("print(1)", max_concurrent_runs=1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

        assert (await place.run("print(2)", max_concurrent_runs=1)).output == "2\n"

    assert caught.value.key == "max_concurrent_runs"
    assert "test" in caught.value.origin


async def test_of_many_starts_at_once_no_more_than_permitted_run(place: Place) -> None:
    runs = [place.run("import time; time.sleep(0.3)", max_concurrent_runs=2) for _ in range(12)]

    results = await asyncio.gather(*runs, return_exceptions=True)

    assert sum(isinstance(result, RunResult) for result in results) == 2
    assert sum(isinstance(result, BusyError) for result in results) == 10


async def test_boxes_at_once_do_not_see_each_other(place: Place) -> None:
    code = (
        "import os, pathlib, time\npathlib.Path('/tmp/mine').write_text({name!r}); time.sleep(0.5)\n"
        "print(sorted(os.listdir('/tmp')), open('/tmp/mine').read(), [p for p in os.listdir('/proc') if p.isdigit()])"
    )
    first, second = await asyncio.gather(
        place.run(code.format(name="a"), max_concurrent_runs=2), place.run(code.format(name="b"), max_concurrent_runs=2)
    )

    assert first.output == "['mine'] a ['1']\n"
    assert second.output == "['mine'] b ['1']\n"


# What cannot be enforced


def without_cgroups(place: Place) -> Equipment:
    return replace(place.equipment, cgroups=NO_CGROUPS)


async def test_without_cgroups_a_run_is_refused_with_limit_origin_and_remedy(place: Place) -> None:
    with pytest.raises(UnenforceableError) as caught:
        await ran(without_cgroups(place), request_of("print(1)"))

    assert caught.value.key == "max_ram_megabytes"
    assert "test" in caught.value.origin
    assert "there are none in this test" in caught.value.reason
    assert "Mount them" in caught.value.remedy
    assert "SANDBOX_REQUIRE_RESOURCE_LIMITING=false" in caught.value.remedy


async def test_without_cgroups_a_permitted_run_names_what_was_not_enforced(place: Place) -> None:
    request = request_of("print(1)", require_resource_limiting=False)

    result = await ran(without_cgroups(place), request)

    assert (result.outcome, result.output) == (Outcome.OK, "1\n")
    assert set(result.unenforced) == {"max_ram_megabytes", "max_cpus", "max_processes"}
    assert (result.cpu_seconds, result.peak_memory_bytes) == (None, None)


async def test_without_cgroups_the_deadline_still_ends_everything(place: Place) -> None:
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\ntime.sleep(60)"
    request = request_of(code, require_resource_limiting=False, max_runtime_seconds=1)

    result = await ran(without_cgroups(place), request)

    assert result.outcome is Outcome.TIMED_OUT
    assert place.processes() == {}


async def test_without_cgroups_a_cancelled_run_leaves_nothing(place: Place) -> None:
    request = request_of("import time; time.sleep(60)", require_resource_limiting=False)
    task = asyncio.create_task(ran(without_cgroups(place), request))
    await eventually(lambda: any("runsc-sandbox" in line for line in place.processes().values()), 20)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert place.leftovers() == []


async def test_a_limit_that_is_unlimited_needs_no_cgroup(place: Place) -> None:
    request = request_of("print(1)", max_ram_megabytes=UNLIMITED, max_cpus=UNLIMITED, max_processes=UNLIMITED)

    result = await ran(without_cgroups(place), request)

    assert (result.output, result.unenforced) == ("1\n", ())


async def test_one_missing_controller_is_named_alone_and_the_others_still_bite(place: Place) -> None:
    lack = MissingController(controller=CgroupController.CPU, reason="not here", remedy="Mount it")
    without = [replace(one, controllers=one.controllers - {CgroupController.CPU}) for one in place.cgroups.places]
    kept = tuple(one for one in without if one.controllers - {ACCOUNTING_CONTROLLER})
    equipment = replace(place.equipment, cgroups=replace(place.cgroups, places=kept, missing=(lack,)))
    request = request_of("b = bytearray(256 << 20)", require_resource_limiting=False, max_ram_megabytes=64)

    result = await ran(equipment, request)

    assert result.unenforced == ("max_cpus",)
    assert result.outcome is Outcome.OUT_OF_MEMORY


# Nothing left behind


@pytest.mark.parametrize(
    ("code", "values", "outcome"),
    [
        pytest.param("print(1)", {}, Outcome.OK, id="ok"),
        pytest.param("1 / 0", {}, Outcome.ERROR, id="error"),
        pytest.param("while True: pass", {"max_runtime_seconds": 1}, Outcome.TIMED_OUT, id="timed-out"),
        pytest.param("b = bytearray(256 << 20)", {"max_ram_megabytes": 64}, Outcome.OUT_OF_MEMORY, id="out-of-memory"),
    ],
)
async def test_nothing_is_left_behind_however_a_run_ends(
    place: Place, code: str, values: dict[str, Any], outcome: Outcome
) -> None:
    await place.run("print(1)")  # what a first run opens for good, such as the loop's own threads, does not count
    before = open_descriptors()

    result = await place.run(code, **values)

    assert result.outcome is outcome
    assert place.leftovers() == []
    assert open_descriptors() <= before


@pytest.mark.parametrize("milliseconds", [0, 1, 3, 5, 10, 20, 50, 100, 150, 200, 250, 300, 400, 500, 700])
async def test_nothing_is_left_behind_whenever_a_run_is_cancelled(place: Place, milliseconds: int) -> None:
    await place.run("print(1)")
    before = open_descriptors()
    task = asyncio.create_task(place.run("import time; time.sleep(60)"))

    await asyncio.sleep(milliseconds / 1000)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert place.leftovers() == []
    assert open_descriptors() <= before


@pytest.mark.parametrize("loops", [1, 2, 3, 4, 5, 6, 8, 12])
async def test_nothing_is_left_behind_when_cancelled_at_the_first_turns_of_the_loop(place: Place, loops: int) -> None:
    task = asyncio.create_task(place.run("print(1)"))
    for _ in range(loops):
        await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("milliseconds", [0, 2, 5, 10, 20, 40])
async def test_clean_up_survives_a_second_cancellation(place: Place, milliseconds: int) -> None:
    async with started(place, "import time; time.sleep(60)") as task:
        task.cancel()
        await asyncio.sleep(milliseconds / 1000)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert place.leftovers() == []


@pytest.mark.parametrize("milliseconds", [250, 300, 350, 400])
async def test_a_cancellation_near_the_codes_own_end_gives_a_result_or_a_cancellation(
    place: Place, milliseconds: int
) -> None:
    task = asyncio.create_task(place.run("print(1)"))
    await asyncio.sleep(milliseconds / 1000)

    task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)

    assert isinstance(result, RunResult | asyncio.CancelledError)
    assert place.leftovers() == []


async def test_a_cancelled_run_is_gone_within_a_second(place: Place) -> None:
    async with started(place, "while True: pass") as task:
        begun = time.monotonic()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert time.monotonic() - begun < 1
        assert place.processes() == {}


async def test_a_box_that_is_killed_from_outside_is_told_as_such(place: Place) -> None:
    async with started(place, "import time; time.sleep(60)") as task:
        (runsc,) = [number for number, line in place.processes().items() if " run --bundle=" in line]
        os.kill(runsc, signal.SIGKILL)
        result = await task

    assert ended(result) == (Outcome.KILLED, None)


CALLER = """
import asyncio, pickle, sys
from tests.sandbox.conftest import ran, request_of
equipment = pickle.load(sys.stdin.buffer)
asyncio.run(ran(equipment, request_of("import time; time.sleep(60)")))
"""


async def test_a_killed_caller_leaves_no_box_running_and_the_next_runner_removes_the_rest(place: Place) -> None:
    caller = await asyncio.create_subprocess_exec(sys.executable, "-c", CALLER, stdin=subprocess.PIPE)
    assert caller.stdin is not None
    caller.stdin.write(pickle.dumps(place.equipment))
    caller.stdin.close()
    await eventually(lambda: any("runsc-sandbox" in line for line in place.processes().values()), 20)
    await asyncio.sleep(0.3)
    caller.kill()
    await caller.wait()

    await eventually(lambda: not place.processes())
    assert len(await remove_leftovers(place.runs, place.cgroups)) == 1
    assert place.leftovers() == []


# Boxes that do not start


def fake_gvisor(place: Place, tmp_path: Path, script: str) -> Equipment:
    path = tmp_path / "runsc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    runsc = Runsc(path=path, version="fake", origin=RunscOrigin.PREINSTALLED, released=None)
    return replace(place.equipment, runsc=runsc)


@pytest.mark.parametrize(
    ("script", "reason", "internals"),
    [
        pytest.param(
            "echo creating: permission denied >&2; exit 1", "ended with exit code 1", "permission denied", id="exits-1"
        ),
        pytest.param("exit 0", "ended with exit code 0", "", id="exits-0"),
        pytest.param("kill -9 $$", "ended with exit code -9", "", id="killed"),
        pytest.param("echo rubbish and more of it; sleep 60", "said something else", "rubbish", id="rubbish"),
        pytest.param("yes", "said something else", "y", id="rubbish-without-end"),
        pytest.param("printf '\\0rea'; exit 3", "ended with exit code 3", "rea", id="half-a-sign"),
        pytest.param("sleep 60", "not ready after 1 seconds", "", id="hangs"),
        pytest.param(
            "trap '' TERM INT HUP; while :; do sleep 1; done", "not ready after 1 seconds", "", id="hangs-and-ignores"
        ),
        pytest.param("exec >&-; sleep 60", "closed its output", "", id="closes-output-and-hangs"),
        pytest.param("yes >&2", "not ready after 1 seconds", "", id="complains-without-end"),
        pytest.param("(setsid sleep 60 &); sleep 60", "not ready after 1 seconds", "", id="hangs-with-a-daemon"),
    ],
)
async def test_a_gvisor_that_does_not_start_is_an_error_that_leaves_nothing(
    place: Place, tmp_path: Path, script: str, reason: str, internals: str
) -> None:
    runner = Runner(fake_gvisor(place, tmp_path, script), startup_seconds=1)
    before = open_descriptors()

    with pytest.raises(StartError) as caught:
        await asyncio.wait_for(runner.run(request_of("print(1)", max_cpus=UNLIMITED)), 8)

    assert reason in caught.value.reason
    assert "sandbox doctor" in caught.value.remedy
    assert internals in caught.value.detail
    assert place.leftovers() == []
    assert open_descriptors() <= before


async def test_what_gvisor_said_is_shown_only_where_debug_is_permitted(place: Place, tmp_path: Path) -> None:
    runner = Runner(fake_gvisor(place, tmp_path, "echo internal: /a/path >&2; exit 1"))

    with pytest.raises(StartError) as plain:
        await runner.run(request_of("print(1)"))
    with pytest.raises(StartError) as debugged:
        await runner.run(request_of("print(1)", debug=True))

    assert "internal" not in str(plain.value)
    assert "(internal: /a/path)" in str(debugged.value)


async def test_a_gvisor_that_is_gone_is_an_error(place: Place, tmp_path: Path) -> None:
    equipment = fake_gvisor(place, tmp_path, "")
    equipment.runsc.path.unlink()

    with pytest.raises(StartError) as caught:
        await ran(equipment, request_of("print(1)"))

    assert "ended with exit code 127" in caught.value.reason


async def test_a_box_outside_its_cgroup_is_refused_before_it_gets_any_code(place: Place, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    # A cgroup beside that of the run: on v2, the one above both hands controllers down and can hold no process.
    outside = [one.folder / "outside" for one in place.cgroups.places]
    for folder in outside:
        folder.mkdir()
    leave = "".join(f"echo $! > {folder}/cgroup.procs\n" for folder in outside)
    runner = Runner(fake_gvisor(place, tmp_path, f"sleep 60 &\n{leave}printf '\\0ready\\n'\ncat > {seen}"))

    with pytest.raises(StartError) as caught:
        await runner.run(request_of("print('secret')"))

    assert "1 of the box's processes are outside the cgroup made for it" in caught.value.reason
    for stray in cgroup_members(outside[0]):
        os.kill(stray, signal.SIGKILL)
    await eventually(lambda: not any(cgroup_members(folder) for folder in outside))
    for folder in outside:
        folder.rmdir()
    assert not seen.exists() or seen.read_text() == ""


async def test_a_private_folder_that_cannot_be_written_is_an_error_that_says_so(place: Place) -> None:
    place.equipment.folder.mkdir()
    (place.equipment.folder / "runs").write_text("in the way")

    with pytest.raises(StartError) as caught:
        await place.run("print(1)")
    (place.equipment.folder / "runs").unlink()
    assert caught.value.reason.startswith("this host refused: File exists (")


async def test_no_process_of_this_test_module_is_left(place: Place) -> None:
    await eventually(lambda: command_lines_with(str(place.equipment.folder.parent.parent)) == {}, 20)


@pytest.mark.gvisor
async def test_flood_of_output_costs_the_server_little(place: Place) -> None:
    flood = "import os\nwhile True:\n    os.write(1, b'x')\n    os.write(2, b'y' * 65536)"
    begun = time.process_time()

    result = await place.run(flood, max_runtime_seconds=3)

    assert result.outcome is Outcome.TIMED_OUT
    assert result.truncated
    assert time.process_time() - begun < 1.0  # of 3 seconds; it was 2 before reading took breath
