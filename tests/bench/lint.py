"""The linter beside `check-jsonschema` and `taplo`, as whole processes, on the same files in the same run."""

import random
import sys
import tempfile
from pathlib import Path

from tests.bench.measuring import Row, against, timed_in_turn, with_goal

BIN = Path(sys.executable).parent
SCHEMA = Path(__file__).parents[2] / "policy" / "policy.schema.json"
POLICIES = 1_000
POLICY_BYTES = 1_024


def lint_rows() -> list[Row]:
    """Every measurement of the linter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [_write_policy(folder, number) for number in range(POLICIES)]
        return [*_many_rows(files), *_one_rows(files[0])]


def _many_rows(files: list[str]) -> tuple[Row, Row]:
    ours, theirs = timed_in_turn(_policy_lint(files), _check_jsonschema(files), runs=7)
    reference = Row(what=f"check-jsonschema, {POLICIES:,} policies of 1 KB", timing=theirs)
    row = against(Row(what=f"policy lint, {POLICIES:,} policies of 1 KB, all rules", timing=ours), reference)
    met = row.ratio is not None and row.ratio <= 0.5 and ours.median_seconds <= 1.5
    return reference, with_goal(row, "at most half of check-jsonschema, and 1.5 s", met=met)


def _one_rows(file: str) -> list[Row]:
    ours, theirs = timed_in_turn(_policy_lint([file]), _check_jsonschema([file]), runs=20)
    _, taplos = timed_in_turn(_policy_lint([file]), [str(BIN / "taplo"), "lint", file], runs=20)
    schema = Row(what="check-jsonschema FILE, as a process", timing=theirs)
    taplo = Row(what="taplo lint FILE, as a process", timing=taplos)
    row = against(Row(what="policy lint FILE, as a process", timing=ours), schema)
    met = ours.median_seconds <= 0.3
    return [schema, taplo, with_goal(row, "at most 300 ms", met=met), against(row, taplo)]


def _policy_lint(files: list[str]) -> list[str]:
    return [str(BIN / "policy"), "lint", "--fail-level", "error", *files]


def _check_jsonschema(files: list[str]) -> list[str]:
    return [str(BIN / "check-jsonschema"), "--schemafile", str(SCHEMA), *files]


def _write_policy(folder: Path, number: int) -> str:
    """A policy as a team would keep it, valid, of 1 KB, and like no other."""
    chance = random.Random(number)  # noqa: S311 -- the same files in every run
    text = f"""schema = 1
id = "team-{number}"
serial = {chance.randint(1, 90)}
issued_at = 2026-11-01T00:00:00Z
expires_at = 2036-01-{chance.randint(10, 28)}T00:00:00Z
audience = ["prod-{chance.choice("abcdef")}"]
description = "Limits of team {number}"
owner = "team-{number}@acme.example"

[limits.networking_allowed]
lock = false
reason = "chats hold customer data"
env_may_loosen = false

[limits.max_runtime_seconds]
default = {chance.randint(5, 20)}
ceiling = {chance.randint(30, 90)}
reason = "shared host of team {number}"

[limits.max_ram_megabytes]
default = {chance.randint(64, 128)}
ceiling = {chance.randint(128, 512)}

[limits.max_cpus]
ceiling = {chance.randint(1, 4)}

[limits.max_processes]
ceiling = {chance.randint(40, 64)}

[limits.max_output_kilobytes]
ceiling = {chance.randint(64, 256)}

[limits.languages]
ceiling = ["python", "bash"]

[[scope]] # pupils and guests
match.groups = ["students-{number}", "guests-{number}"]
limits.max_runtime_seconds.ceiling = {chance.randint(5, 10)}
limits.max_processes.ceiling = {chance.randint(8, 16)}

[[scope]]
except.groups = ["staff-{number}"]
limits.max_ram_megabytes.ceiling = {chance.randint(32, 64)}
"""
    file = folder / f"team-{number}.toml"
    file.write_text(f"{text}# {'.' * (POLICY_BYTES - len(text) - 3)}\n")
    return str(file)
