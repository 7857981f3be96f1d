"""Feeds random bytes to all that reads TOML here: `python -m tests.fuzz.toml_reading --seconds 600`.

libFuzzer, by way of atheris, keeps each input that reaches lines nothing else reached, and goes on from there. It
begins with tests/fuzz/corpus and keeps what it learns in build/fuzz/corpus. What breaks a law of `toml_laws`, takes
two seconds of processor time or does not end, or needs 2 GB is written to build/fuzz, and the exit code is not 0; such
bytes become a case in tests/policy/test_fuzz_finds.py.
"""

import argparse
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import process_time

FOLDER = Path(__file__).parent
RESULTS = Path(__file__).parents[2] / "build" / "fuzz"
EXIT_USAGE = 2
LONGEST_BYTES = 4096
MOST_SECONDS_OF_ONE = 2
ENDLESS_SECONDS = 60
MOST_MEGABYTES = 2048


def main(arguments: list[str]) -> int:
    """Fuzz for a while; libFuzzer ends the process itself where it comes so far."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.toml_reading", description="Fuzz what reads TOML.")
    parser.add_argument("--seconds", type=int, default=600, help="how long; 600 where it is not said")
    seconds = parser.parse_args(arguments).seconds
    if find_spec("atheris") is None:
        sys.stderr.write("atheris is not installed; install it: pip install 'sandbox-lockdown[fuzz]'\n")
        return EXIT_USAGE
    fuzz(seconds)
    return 0


def fuzz(seconds: int) -> None:
    """Hand over to libFuzzer."""
    # Imported here, since few have it, and since it sees only modules that are imported under its eyes.
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["policy", "tomllib"]):
        laws = import_module("tests.fuzz.toml_laws")
    learned = RESULTS / "corpus"
    learned.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_BYTES}",
        f"-timeout={ENDLESS_SECONDS}",
        f"-rss_limit_mb={MOST_MEGABYTES}",
        f"-artifact_prefix={RESULTS}/",
        f"-dict={FOLDER / 'toml.dict'}",
        "-print_final_stats=1",
    ]

    def check(data: bytes) -> None:
        # Of this process alone: a busy machine stops it for longer than any text could.
        began = process_time()
        laws.check_bytes(data)
        assert process_time() - began < MOST_SECONDS_OF_ONE

    atheris.Setup([sys.argv[0], *options, str(learned), str(FOLDER / "corpus")], check)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
