"""A file that somebody else wrote costs no more than a second and 200 MB, and ends in a finding or a clear error.

Such files come with pull requests, out of mounted folders and by mistake. What they hold is read in this process, to
find which part is slow; then the command meets them as a program of its own, whose time and memory are measured.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, repeat
from pathlib import Path

import pytest

from policy.document import parse_document
from policy.errors import PolicyError
from policy.trusted_files import SIGNED_POLICY_FILE, read_trusted
from tests.policy.factories import source_of
from tests.policy.test_positions import HOSTILE_TEXTS, filled, numbered

PROGRAM = str(Path(sys.executable).with_name("policy"))
MOST_SECONDS = 1
"""Of CPU time, which a busy machine does not change; whatever waits besides is given ten times that."""
MOST_KILOBYTES = 200 * 1024
MOST_OUTPUT_BYTES = 1024 * 1024
VALID = """\
schema = 1
id = "acme-prod"
serial = 7
issued_at = 2026-11-01T00:00:00Z
expires_at = 2027-02-01T00:00:00Z
audience = ["prod-eu"]
[limits]
networking_allowed = false
"""


def long_key(segments: int) -> str:
    return "a" + ".a" * segments + " = 1"


def nested(opening: str, inner: str, closing: str, depth: int) -> str:
    return f"a = {opening * depth}{inner}{closing * depth}"


DESTINATIONS = ",".join(f'"10.{number // 200}.{number % 200}.1"' for number in range(1_900))
KEYS = ",".join(f"b.c.d{number}=1" for number in range(1_900))
CONTENTS: dict[str, str | bytes] = {
    **HOSTILE_TEXTS,
    "nothing": "",
    "arrays nested as deep as a reader stands": nested("[", "", "]", 480),
    "arrays nested just too deep": nested("[", "", "]", 17),
    "arrays that are never closed": filled("a = ", "[", ""),
    "inline tables that are never closed": filled("a = ", "{a=", ""),
    "brackets": "[" * 60_000,
    "closing brackets": "]" * 60_000,
    "braces": "{" * 60_000,
    "headers ever deeper": "".join(f"[{path}]\n" for path in accumulate(repeat("a", 250), "{}.{}".format)),
    "100,000 dotted keys in a line": long_key(100_000),
    "100,000 dotted keys in lines": "".join(f"a.k{number} = 1\n" for number in range(100_000)),
    "a megabyte in a string": f'a = "{"x" * 2**20}"',
    "a megabyte in a long string": f"a = '''{'x' * 2**20}'''",
    "a long string in a valid policy": f'owner = "{"x" * 60_000}"\n{VALID}',
    "invalid UTF-8": b'a = "\xff\xfe"\n',
    "half a character at the end": "a = 1 # ü".encode()[:-1],
    "surrogates in UTF-8": b'a = "\xed\xa0\x80"\n',
    "bytes": bytes(range(256)) * 250,
    "UTF-16": VALID.encode("utf-16"),
    "a NUL": VALID + "# \x00\n",
    "NULs": b"\x00" * 60_000,
    "a byte order mark": "\ufeff" + VALID,
    "carriage returns": VALID.replace("\n", "\r"),
    "lines that end in CR LF": VALID.replace("\n", "\r\n"),
    "an integer of 5,000 digits": f"{VALID}max_processes = {'9' * 5_000}\n",
    "a hexadecimal integer of 5,000 digits": f"{VALID}max_processes = 0x{'f' * 5_000}\n",
    "an integer of 60,000 binary digits": f"{VALID}max_processes = 0b{'1' * 60_000}\n",
    "a float of 60,000 digits": f"{VALID}max_cpus = 0.{'3' * 60_000}\n",
    "a float beyond all range": f"{VALID}max_cpus = 1e{'9' * 5_000}\n",
    "a float that is not a number": f"{VALID}max_cpus = nan\n",
    "triple quotes": '"""' * 20_000,
    "triple quotes in an array": "a = [" + '"""' * 20_000,
    "single triple quotes": "'''" * 20_000,
    "long strings that are never closed": filled('a = """', '\n\\"""', ""),
    "short strings that are never closed": filled('a = "', '\\"', ""),
    "a key that is never closed": filled('"', '\\"', ""),
    "quotes in every line": "'\n" * 30_000,
    "20,000 comments": f"{VALID}{'#' * 20_000}\n".replace("#", "#\n"),
    "20,000 comments within an array": f"a = [{'# [' * 20_000}]".replace("# [", "# [\n"),
    "number signs": "#" * 60_000,
    "suppressions": VALID + numbered('# policy: ignore[not-toml] reason="r{}" until=2027-01-31\n')[:60_000],
    "suppressions that name nothing": VALID + "# policy: ignore[]\n" * 3_400,
    "suppressions above empty lines": VALID + "# policy: ignore[]\n" * 1_000 + "\n" * 40_000,
    "suppressions that are none": VALID + filled("# policy: ignore[", "a,[", "")[:60_000],
    "signature markers": VALID + "# -----BEGIN POLICY SIGNATURES-----\n" * 1_500,
    "a signature block that is none": VALID
    + "# -----BEGIN POLICY SIGNATURES-----\n"
    + "# ed25519 sha256:\n" * 3_000
    + "# -----END POLICY SIGNATURES-----\n",
    "one array": filled("audience = [", '"a",', "]"),
    "one array in a valid policy": VALID.replace('"prod-eu"', ",".join(f'"p{number}"' for number in range(1_900))),
    "one array that repeats": VALID.replace('"prod-eu"', ",".join(['"p"'] * 1_900)),
    "destinations": f"{VALID}network_allowlist = [{DESTINATIONS}]\n",
    "scopes": VALID + numbered('[[scope]]\nmatch.users=["u{}"]\nlimits.max_cpus=0.1\n')[:15_000].rpartition("[[")[0],
    "unknown keys": VALID + numbered("max_runtime_second{} = 1\n")[:30_000].rpartition("\n")[0],
    "unknown keys of bidirectional characters": VALID + numbered('"\u202e{}" = 1\n')[:20_000].rpartition("\n")[0],
    "a key with escapes": '"\\u202e\\u0000\\n\\u001b[31m" = 1\n',
    "keys with escapes": numbered('"\\u0061{}" = 1\n'),
    "a key of 60,000 characters": f"{'k' * 60_000} = 1\n",
    "a key stated twice, 60,000 characters long": f"{'k' * 30_000} = 1\n{'k' * 30_000} = 1\n",
    "a key stated twice below many": VALID + numbered("a.b.c{} = 1 # ................\n")[:60_000] + "\na.b = 1\n",
    "a key stated twice in a long line": f"{VALID}a = {{ {KEYS}, b.c=1 }}\n",
    "a key stated twice above a long text": f"{VALID}debug = true\ndebug = true\n{'#' * 60_000}\n",
    "a key stated twice in a text of equal keys": VALID + 'a = """' + "a.a = " * 9_900 + '"""\na = 1\n',
    "a key stated twice at the end of a long value": VALID + "a = [\n" + "{a.a=1},\n" * 600 + "{a.a=1,a.a=1}]\n",
    "a line of blanks": f"a{' ' * 60_000}",
    "an equals sign after each other": "a = " + "= " * 30_000,
    "dates": f"a = [{'1979-05-27T07:32:00Z,' * 2_900}]",
    "digits and dashes": f"a = {'1-' * 30_000}",
    "digits and underscores": f"a = {'1_' * 30_000}x",
}
# Odd, and still policies: what rules say of them is theirs to say.
POLICIES = {
    "20,000 comments",
    "suppressions",
    "suppressions that name nothing",
    "suppressions above empty lines",
    "suppressions that are none",
    "one array in a valid policy",
    "scopes",
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_hostile_bytes_are_no_policy_or_refused_within_a_second(content: str | bytes) -> None:
    def parse() -> None:
        with contextlib.suppress(PolicyError):
            parse_document(source_of(content))

    # The best of three, since the collector may stop one of them for what other tests have left.
    assert min(timeit.repeat(parse, timer=time.process_time, number=1, repeat=3)) < MOST_SECONDS


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_link_loop(path: Path) -> None:
    other = path.with_name("other.toml")
    other.symlink_to(path)
    path.symlink_to(other)


def make_long_chain_of_links(path: Path) -> None:
    for number in range(100):
        path.with_name(f"link-{number}.toml").symlink_to(path.with_name(f"link-{number + 1}.toml"))
    path.symlink_to(path.with_name("link-0.toml"))


def make_folder_in_itself(path: Path) -> None:
    path.mkdir()
    (path / "again.toml").symlink_to(path)


def make_unreadable(path: Path) -> None:
    path.write_text(VALID)
    path.chmod(0)


def make_growing(path: Path) -> None:
    """A file whose size says little: a terabyte of nothing."""
    with path.open("wb") as file:
        file.truncate(2**40)


UNREADABLE: dict[str, Callable[[Path], None]] = {
    "a symlink loop": make_link_loop,
    "a hundred links": make_long_chain_of_links,
    "a link to nothing": lambda path: path.symlink_to("absent.toml"),
    "a FIFO without writer": make_fifo,
    "a socket": make_socket,
    "endless zeros": lambda path: path.symlink_to("/dev/zero"),
    "endless random bytes": lambda path: path.symlink_to("/dev/urandom"),
    "a full device": lambda path: path.symlink_to("/dev/full"),
    "memory of the process itself": lambda path: path.symlink_to("/proc/self/mem"),
    "an empty folder": Path.mkdir,
    "a folder that contains itself": make_folder_in_itself,
    "a file that may not be read": make_unreadable,
    "no file": lambda _: None,
}
# Their content would be a finding, if anybody read so much of it.
HUGE: dict[str, Callable[[Path], None]] = {"a terabyte of nothing": make_growing}
ROOT_MAY_READ = {"a file that may not be read"}


@pytest.mark.parametrize("kind", [kind for kind in (*UNREADABLE, *HUGE) if kind not in ROOT_MAY_READ])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "hostile.toml"
    (UNREADABLE | HUGE)[kind](path)
    began = time.monotonic()

    with pytest.raises(PolicyError):
        read_trusted(path, SIGNED_POLICY_FILE)

    assert time.monotonic() - began < 10 * MOST_SECONDS


# A child's peak of memory counts what its parent held when it was forked, so a small program starts and measures it.
# Root reads what it may not, unless it gives up those two capabilities; nobody else can and needs to.
MEASURE = """
import ctypes, json, os, sys, time
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
began = time.monotonic()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
ended = 0
while not ended:
    ended, status, usage = os.wait4(child, os.WNOHANG)
    if not ended and time.monotonic() - began > 20:
        os.kill(child, 9)
    time.sleep(0.002)
waited = time.monotonic() - began
seconds = usage.ru_utime + usage.ru_stime
code = os.waitstatus_to_exitcode(status)
found = {"code": code, "seconds": seconds, "waited_seconds": waited, "kilobytes": usage.ru_maxrss}
print(json.dumps(found), file=sys.stderr)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How a program ended, and what it cost."""

    code: int
    """Its exit code; -9 where it took longer than 20 seconds."""
    seconds: float
    """CPU time."""
    waited_seconds: float
    """How long it took."""
    kilobytes: int
    """The most memory that it had."""
    output: str
    """What it said on either stream."""


def measured(*command: str, stdin: str = "/dev/null") -> Measured:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SANDBOX_", "COV_"))}
    with Path(stdin).open("rb") as source:
        ran = subprocess.run(
            [sys.executable, "-I", "-S", "-c", MEASURE, *command],
            stdin=source,
            capture_output=True,
            env=environ,
            timeout=60,
            check=True,
        )
    errors, _, figures = ran.stderr.decode().rstrip("\n").rpartition("\n")
    return Measured(output=ran.stdout.decode() + errors, **json.loads(figures))


def lint(path: str, *, stdin: str = "/dev/null") -> Measured:
    return measured(PROGRAM, "lint", path, stdin=stdin)


def check_cost(found: Measured) -> None:
    assert found.seconds < MOST_SECONDS
    assert found.waited_seconds < 10 * MOST_SECONDS
    assert found.kilobytes < MOST_KILOBYTES
    assert len(found.output) < MOST_OUTPUT_BYTES
    assert "Traceback" not in found.output
    assert re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", found.output) is None


@pytest.mark.parametrize("kind", CONTENTS)
def test_hostile_content_ends_in_a_finding_at_little_cost(tmp_path: Path, kind: str) -> None:
    path, content = tmp_path / "hostile.toml", CONTENTS[kind]
    path.write_bytes(content.encode() if isinstance(content, str) else content)

    found = lint(str(path))

    check_cost(found)
    assert found.code in ((0, 1) if kind in POLICIES else (1,)), found.output
    assert "hostile.toml" in found.output


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_ends_in_an_error_at_little_cost(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "hostile.toml"
    make(path)

    found = lint(str(path))

    check_cost(found)
    assert found.code == 2, found.output
    assert "hostile.toml" in found.output


@pytest.mark.parametrize("make", HUGE.values(), ids=HUGE)
def test_what_is_too_large_is_not_read_to_its_end(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "hostile.toml"
    make(path)

    found = lint(str(path))

    check_cost(found)
    assert found.code in (1, 2), found.output


def test_endless_standard_input_is_not_read_to_its_end() -> None:
    found = lint("-", stdin="/dev/zero")

    check_cost(found)
    assert found.code in (1, 2), found.output


def test_measuring_tells_time_memory_and_exit_code() -> None:
    idle = measured(sys.executable, "-I", "-S", "-c", "import sys; sys.exit(3)")
    work = "import time\nx = b'x' * 2**28\nwhile time.process_time() < 0.5: pass\nprint('seen')"
    busy = measured(sys.executable, "-I", "-S", "-c", work)

    assert (idle.code, busy.code, busy.output) == (3, 0, "seen\n")
    assert idle.seconds < 0.5 <= busy.seconds
    assert idle.kilobytes < MOST_KILOBYTES < 2**18 < busy.kilobytes
