"""What the fuzzer begins with, and what it found: every law holds for those bytes, and goes on holding.

Found by `python -m tests.fuzz.toml_reading`; a find is kept here as its exact bytes, under what was wrong with it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.toml_laws import check_bytes

ROOT = Path(__file__).parents[2]
SEEDS = {path.stem: path.read_bytes() for path in sorted((ROOT / "tests/fuzz/corpus").iterdir())}
FINDS = {
    "a repeated key that could not be located under another name": b"a= 3\n\"a\".S=2expan.'#pol'.&icy: ig nore[.j]",
}


@pytest.mark.parametrize("data", [*SEEDS.values(), *FINDS.values()], ids=[*SEEDS, *FINDS])
def test_every_law_holds_for_what_the_fuzzer_begins_with_and_what_it_found(data: bytes) -> None:
    check_bytes(data)


HIDE_ATHERIS = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "atheris" else find(name)
from tests.fuzz.toml_reading import main
sys.exit(main(["--seconds", "1"]))
"""


def test_fuzzing_without_atheris_says_so_in_one_line() -> None:
    command = [sys.executable, "-c", HIDE_ATHERIS]

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "atheris is not installed" in ended.stderr
