"""A program for the environment of the `gvisor` wheel: one box for each line it is sent, timed.

Arguments: the file tree, and the path of Python in it. The box gets the whole tree at /tree, beside what the wheel
itself mounts of the host.
"""

import os
import sys
import time
from typing import TextIO

from gvisor import Mount, Sandbox

CODE = "print(42)"
EXEC_SECONDS = 20.0


def main() -> None:
    """Answer each line with the seconds until the code has ended, and until the box is closed."""
    tree, python = sys.argv[1:]
    for _ in _own_input():
        begun = time.perf_counter()
        sandbox = Sandbox(mounts=[Mount.bind(tree, "/tree", readonly=True)])
        try:
            told, _ = sandbox.exec(
                f"/tree{python}", "-I", "-S", "-c", CODE, env={"PYTHONHOME": "/tree/usr"}, timeout=EXEC_SECONDS
            )
            ended = time.perf_counter() - begun
        finally:
            sandbox.close()
        if told != "42\n":
            raise RuntimeError(f"the box said {told!r}")
        sys.stdout.write(f"{ended} {time.perf_counter() - begun}\n")
        sys.stdout.flush()


def _own_input() -> TextIO:
    """Our standard input, out of the reach of `runsc`, which the wheel lets have it and which makes it non-blocking."""
    own = os.fdopen(os.dup(0))
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return own


if __name__ == "__main__":
    main()
