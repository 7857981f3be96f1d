"""What waits for code says that it is ready once, imports beforehand in silence, and then runs the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.starters import READY, starter_command

PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for name, text in {
        "noisy": "import os, sys\nprint('print')\nos.write(1, b'raw')\nos.write(2, b'error')\nsys.stdout.write('tail')",
        "leaving": "raise SystemExit(3)",
        "failing": "raise ValueError",
        "json": "OURS = True",
        "inner/deep": "DEPTH = 2",
    }.items():
        (tmp_path / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "run.pth").write_text("import os; os.write(1, b'pth')\n")
    return tmp_path


def ran(code: str, *, packages: str = "", imports: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    command = starter_command("python", python=PYTHON, bash="/bin/bash", packages=packages, imports=imports)
    return subprocess.run(command, input=code.encode(), capture_output=True, check=False, timeout=60, env={})


def test_python_without_packages_gets_no_argument_more() -> None:
    plain = starter_command("python", python="/p", bash="/b")

    assert plain[-2] == "-c"
    assert ran("import sys; print(sys.argv)").stdout == READY + b"['<code>']\n"


def test_bash_has_nothing_to_do_with_packages() -> None:
    assert starter_command("bash", python="/p", bash="/b", packages="/x", imports=("numpy",)) == starter_command(
        "bash", python="/p", bash="/b"
    )


def test_packages_come_after_the_standard_library(packages: Path) -> None:
    done = ran("import sys, json, noisy; print(sys.path[-1], hasattr(json, 'OURS'))", packages=str(packages))

    assert done.stdout.startswith(READY)
    assert done.stdout.endswith(f"{packages} False\n".encode())


def test_a_pth_file_of_packages_is_not_run(packages: Path) -> None:
    assert ran("print(1)", packages=str(packages)).stdout == READY + b"1\n"


def test_modules_are_imported_before_it_is_ready_and_say_nothing(packages: Path) -> None:
    code = "import sys; print(sorted(set(sys.modules) & {'noisy', 'inner', 'inner.deep'}), file=sys.stderr)"

    done = ran(code, packages=str(packages), imports=("noisy", "inner.deep"))

    assert (done.returncode, done.stdout) == (0, READY)
    assert done.stderr == b"['inner', 'inner.deep', 'noisy']\n"


@pytest.mark.parametrize("name", ["leaving", "failing", "absent", "inner.absent"])
def test_module_that_cannot_be_imported_is_left_out(packages: Path, name: str) -> None:
    done = ran("import inner.deep; print(inner.deep.DEPTH)", packages=str(packages), imports=(name, "inner.deep"))

    assert (done.returncode, done.stdout, done.stderr) == (0, READY + b"2\n", b"")


def test_importing_beforehand_leaves_nothing_of_the_starter_in_the_codes_names() -> None:
    done = ran("print([name for name in dir() if not name.startswith('__')])", imports=("json",))

    assert done.stdout == READY + b"[]\n"


ENDINGS = {
    "nothing": "pass",
    "exit-none": "import sys; sys.exit()",
    "exit-code": "import sys; sys.exit(3)",
    "exit-truth": "import sys; sys.exit(True)",
    "exit-below-zero": "import sys; sys.exit(-1)",
    "exit-beyond-a-byte": "import sys; sys.exit(257)",
    "exit-text": "import sys; sys.exit('that is all')",
    "exit-object": "raise SystemExit([1, 2])",
    "exit-functions-in-order": "import atexit\nfor n in (1, 2): atexit.register(print, 'bye', n)\nprint('main')",
    "exit-function-that-fails": "import atexit\natexit.register(lambda: 1 / 0)\natexit.register(print, 'first')",
    "exit-function-after-an-exit": "import atexit, sys\natexit.register(print, 'bye')\nsys.exit(4)",
    "destructor": "class A:\n    def __del__(self): print('gone')\na = A()\nprint('here')",
    "destructor-in-a-cycle": "class A:\n    def __del__(self): print('gone')\na = A(); a.self = a",
    "destructor-that-uses-a-module": "import os\nclass A:\n    def __del__(self): print(os.sep)\na = A()",
    "open-file-on-standard-output": "import io\nout = open(1, 'w', closefd=False)\nout.write('late')",
    "unflushed-output": "import sys\nsys.stdout.write('no line end')\nsys.stderr.write('nor here')",
    "thread-that-ends-late": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()\nprint('main')",
    "thread-that-is-a-daemon": "import threading, time\n"
    "threading.Thread(target=lambda: time.sleep(60), daemon=True).start()\nprint('main')",
    "executor": "from concurrent.futures import ThreadPoolExecutor\nimport time\n"
    "pool = ThreadPoolExecutor(1)\npool.submit(lambda: (time.sleep(0.2), print('done')))",
    "processes": "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(2) as pool:\n"
    "    print(sorted(pool.map(abs, [-2, -1])))",
    "child-that-runs-on": "import os, sys\nif os.fork() == 0: print('child'); sys.exit(5)\nprint(os.wait()[1])",
    "closed-output": "import sys\nsys.stdout.close()",
    "no-output": "import sys\nsys.stdout = None",
    "output-of-ones-own": "import sys, io\nsys.stdout = io.StringIO()\nprint('nowhere')",
    "interrupted": "raise KeyboardInterrupt",
    "emptied-main": "globals().clear()",
    "main-that-is-gone": "import sys; del sys.modules['__main__']; print(1)",
}


@pytest.mark.parametrize("code", ENDINGS.values(), ids=ENDINGS)
def test_code_ends_as_it_would_by_itself(code: str, tmp_path: Path) -> None:
    script = tmp_path / "code.py"
    script.write_text(code)
    plain = subprocess.run(
        [PYTHON, "-I", "-S", "-X", "utf8", str(script)], capture_output=True, check=False, timeout=60, env={}
    )

    done = ran(code)

    assert done.stdout.removeprefix(READY) == plain.stdout
    assert told(done.stderr) == told(plain.stderr)
    assert done.returncode == plain.returncode % 256 or plain.returncode < 0 < done.returncode


def told(stderr: bytes) -> list[str]:
    """What was said on standard error, without where in a file or in memory it happened."""
    lines = [line for line in stderr.decode().splitlines() if not line.startswith(("  ", "Traceback"))]
    return [re.sub("0x[0-9a-f]+", "0x", line) for line in lines]
