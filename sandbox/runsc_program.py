"""What a `runsc` program says of itself: its version, and the flags that it knows.

It is started with nothing in its environment (`GVISOR_SIDECAR_BINARIES_DIR` would point it elsewhere,
`GVISOR_ENFORCE_RELEASE` would let releases mix), with nothing to read, and a deadline.
Source: https://github.com/google/gvisor, runsc/cli, runsc/config/flags.go and runsc/config/deprecated.go.
"""

import errno
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from sandbox.errors import InstallError

HOW_TO_PRE_INSTALL = (
    "Run `sandbox install` as the user that runs code (where that command is not there: "
    "`SANDBOX_AUTO_INSTALL=true python3 run_code.py --use-sample-code`), or `apt-get install runsc` as root, or put "
    "runsc (with its gvisor-bin folder, where the release has one) into a folder of PATH"
)
_RUNSC_VERSION_LINE = re.compile(
    r"^runsc version (?:release-|0\.0~)?([0-9]{8}(?:\.[0-9]{1,4})?)(?![0-9])", re.ASCII | re.MULTILINE
)
_RUNSC_OTHER_VERSION = re.compile(r"^runsc version ([!-~]{1,64})", re.ASCII | re.MULTILINE)
_RUNSC_FLAG_START = re.compile(r"^ {2}-{1,2}(?=[A-Za-z])", re.MULTILINE)
_NO_DOWNLOAD_FLAGS = {"sidecar-usage-policy": "STRICT", "download-sidecars": "NEVER"}
_RUNSC_WORDS_SECONDS = 20.0
_RUNSC_BUSY_TRIES = 20


def runsc_version(path: Path) -> str:
    """The version a `runsc` reports, `YYYYMMDD[.N]` where it holds a date.

    Raises:
        InstallError: it does not start, does not end, or says nothing of the kind.
    """
    code, said = _runsc_says(path, "--version")
    found = _RUNSC_VERSION_LINE.search(said) or _RUNSC_OTHER_VERSION.search(said)
    if code != 0 or found is None:
        raise unusable_runsc(path, f"`runsc --version` ended with {code} and names no version")
    return found[1]


def runsc_flags(path: Path) -> Mapping[str, str]:
    """The flags that a `runsc` knows and that still do something, each with what it says of it; none if it says none.

    Raises:
        InstallError: it does not start, or does not end.
    """
    code, said = _runsc_says(path, "flags")
    return current_flags(said) if code == 0 else MappingProxyType({})


def current_flags(flags_text: str) -> Mapping[str, str]:
    """The flags in what `runsc flags` prints, without deprecated ones.

    A deprecated flag changes nothing any more, and would only add a warning to what the person sees.
    """
    entries = [entry for entry in _RUNSC_FLAG_START.split(flags_text) if entry.split()]
    named = {entry.split()[0]: " ".join(entry.split()[1:]) for entry in entries}
    return MappingProxyType({name: words for name, words in named.items() if "DEPRECATED:" not in words})


def offline_arguments(flags: Mapping[str, str]) -> tuple[str, ...]:
    """The arguments that keep a `runsc` with these flags from downloading sidecars, as far as it knows any."""
    return tuple(f"--{name}={value}" for name, value in _NO_DOWNLOAD_FLAGS.items() if name in flags)


def unusable_runsc(path: Path, reason: str) -> InstallError:
    """The error for a `runsc` that is there and cannot be used."""
    return InstallError(
        key="runsc",
        origin=str(path),
        reason=reason,
        remedy=f"Mend or remove it (a folder mounted noexec will not do). Once none is left: {HOW_TO_PRE_INSTALL}",
    )


def _runsc_says(path: Path, argument: str) -> tuple[int, str]:
    """Run `runsc` for its words: with nothing in its environment, nothing to read, and a deadline."""
    for _ in range(_RUNSC_BUSY_TRIES):
        try:
            result = subprocess.run(
                [path, argument],
                cwd="/",
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_RUNSC_WORDS_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise unusable_runsc(
                path, f"`runsc {argument}` did not end within {_RUNSC_WORDS_SECONDS:.0f} seconds"
            ) from error
        except OSError as error:
            # another thread that forks while we write a program keeps it open for writing until its child execs
            if error.errno == errno.ETXTBSY:
                time.sleep(0.05)
                continue
            raise unusable_runsc(path, f"it cannot be started: {error.strerror}") from error
        return result.returncode, result.stdout
    raise unusable_runsc(path, "it stays open for writing")
