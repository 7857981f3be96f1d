"""The table of attacks, `tests/ATTACKS.md`, is whole: each attack that has to be there is, with tests that exist."""

import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TABLE = TESTS / "ATTACKS.md"
AGAINST_THE_BOX = "Code against its box"
NOT_YET = "Not in this version"
ASKED_FOR = (
    "fork bomb",
    "memory bomb: anonymous, tmpfs, shared memory, mapped file",
    "disk fill",
    "inode fill",
    "output bomb",
    "endless line",
    "signal-ignoring program",
    "double-forking program",
    "forged control frames",
    "environment canary",
    "file canary",
    "/proc views: kallsyms, cmdline, mountinfo, environ, /proc/1/root",
    "/sys and /dev views",
    "clock of a box that waited",
    "shared randomness of pooled boxes",
    "second request smuggled into a used box",
)
"""What a runner of untrusted code has to withstand, whoever asks."""
KNOWN_THREATS = {
    "Kernel escape": "kernel escape: capabilities, uid, privileges",
    "Host files in view": "file canary",
    "Symlink/TOCTOU on copy-out": "symlink and TOCTOU on copy-out",
    "Zip/tar bombs, path names on upload": "zip and tar bombs, path names on upload",
    "Output bomb": "output bomb",
    "Fork bomb": "fork bomb",
    "Memory bomb": "memory bomb: anonymous, tmpfs, shared memory, mapped file",
    "CPU": "CPU hog",
    "Wall clock": "endless runtime",
    "Disk fill, inodes": "inode fill",
    "/proc, /sys": "/sys and /dev views",
    "Secrets in env": "environment canary",
    "SSRF / metadata with net on": "SSRF: the metadata address in every spelling",
    "DNS tunnel": "DNS tunnel",
    "stdin / control channel": "false answers on the control socket",
    "ANSI / control / bidi": "ANSI, control and bidi characters",
    "HTML/Markdown injection, image exfil": "HTML and Markdown injection, image exfiltration",
    "Prompt injection from output": "prompt injection from output",
    "File URL leakage": "file URL leakage",
    "Malicious SVG/HTML artefact": "malicious SVG or HTML artefact",
    "Cancel mid-run": "cancel mid-run",
    "Server crash (SIGKILL)": "server killed at any stage",
    "cgroup/tmp leak": "leaks over many runs",
    "PID reuse": "PID reuse",
    "Cross-user reuse": "what a run before left",
    "Clones share randomness": "shared randomness of pooled boxes",
    "Quota bypass by concurrency": "quota bypass by concurrency",
    "Supply chain": "supply chain: tampered, truncated, downgraded gVisor",
    "Debug leak": "debug leak",
}
"""The threats that runners of the same kind are known to have met, and the row that is about each."""


def rows() -> dict[str, tuple[str, str]]:
    """By attack, the section that it stands in and its last cell."""
    found: dict[str, tuple[str, str]] = {}
    section = ""
    for line in TABLE.read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith("| attack |"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert cells[0] not in found, f"{cells[0]} stands there twice"
            found[cells[0]] = (section, cells[-1])
    return found


ROWS = rows()


def named_tests(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@cache
def functions_of(path: Path) -> dict[str, bool]:
    """The tests of a file, and whether each needs real gVisor."""
    text = path.read_text()
    whole = re.search(r"^pytestmark = .*gvisor", text, re.MULTILINE) is not None
    found = re.finditer(r"^((?:[@ )\]].*\n)*)(?:async )?def (test_\w+)", text, re.MULTILINE)
    return {one[2]: whole or "mark.gvisor" in one[1] for one in found}


@pytest.mark.parametrize("attack", [name for name, (section, _) in ROWS.items() if section != NOT_YET])
def test_tests_that_the_table_names_exist(attack: str) -> None:
    named = named_tests(ROWS[attack][1])

    assert named
    for name in named:
        path, _, function = name.partition("::")
        assert function in functions_of(TESTS / path), name


@pytest.mark.parametrize("attack", [name for name, (section, _) in ROWS.items() if section == AGAINST_THE_BOX])
def test_attack_on_a_box_is_tried_on_real_gvisor(attack: str) -> None:
    named = [name.partition("::") for name in named_tests(ROWS[attack][1])]

    assert any(functions_of(TESTS / path)[function] for path, _, function in named)


@pytest.mark.parametrize("attack", ASKED_FOR)
def test_attack_that_is_asked_for_stands_in_the_table_and_is_tested(attack: str) -> None:
    assert ROWS[attack][0] == AGAINST_THE_BOX


@pytest.mark.parametrize("threat", KNOWN_THREATS)
def test_threat_that_is_known_stands_in_the_table_or_is_named_as_absent(threat: str) -> None:
    assert KNOWN_THREATS[threat] in ROWS
