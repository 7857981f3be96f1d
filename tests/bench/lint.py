"""The linter beside `check-jsonschema` and `taplo`, as whole processes, on the same files in the same run."""

import random
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.bench.measuring import Row, against, timed_in_turn, with_goal

BIN = Path(sys.executable).parent
SCHEMA = Path(__file__).parents[2] / "policy" / "policy.schema.json"
POLICIES = 1_000


def lint_rows() -> list[Row]:
    """Every measurement of the linter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [_write_policy(folder, number) for number in range(POLICIES)]
        return [*_many_rows(files), *_one_rows(files[0])]


def _many_rows(files: list[str]) -> tuple[Row, Row]:
    ours, theirs = timed_in_turn(_policy_lint(files), _check_jsonschema(files), runs=7)
    reference = Row(what=f"check-jsonschema, {POLICIES:,} policies of 1 KB", sample=theirs)
    row = against(Row(what=f"policy lint, {POLICIES:,} policies of 1 KB, all rules", sample=ours), reference)
    met = row.ratio is not None and row.ratio <= 0.5 and ours.median <= 1.5
    return reference, with_goal(row, "at most half of check-jsonschema, and 1.5 s", met=met)


def _one_rows(file: str) -> list[Row]:
    ours, theirs = timed_in_turn(_policy_lint([file]), _check_jsonschema([file]), runs=20)
    _, taplos = timed_in_turn(_policy_lint([file]), [str(BIN / "taplo"), "lint", file], runs=20)
    schema = Row(what="check-jsonschema FILE, as a process", sample=theirs)
    taplo = Row(what="taplo lint FILE, as a process", sample=taplos)
    row = against(Row(what="policy lint FILE, as a process", sample=ours), schema)
    met = ours.median <= 0.3
    return [schema, taplo, with_goal(row, "at most 300 ms", met=met), against(row, taplo)]


def _policy_lint(files: list[str]) -> list[str]:
    return [str(BIN / "policy"), "lint", "--fail-level", "error", *files]


def _check_jsonschema(files: list[str]) -> list[str]:
    return [str(BIN / "check-jsonschema"), "--schemafile", str(SCHEMA), *files]


def _write_policy(folder: Path, number: int) -> str:
    """A policy as a team would keep it in a folder of its own: of 1 KB, like no other, and with nothing to find."""
    chance = random.Random(number)  # noqa: S311 -- the same files in every run
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    text = f"""schema = 1
id = "team-{number}"
serial = {chance.randint(1, 90)}
issued_at = {today - timedelta(days=chance.randint(1, 20)):%Y-%m-%dT%H:%M:%SZ}
expires_at = {today + timedelta(days=chance.randint(30, 60)):%Y-%m-%dT%H:%M:%SZ}
audience = ["prod-{chance.choice("abcdef")}"]
description = "Limits of team {number}: its tools and its buttons too"
owner = "team-{number}@acme.example"

[limits]
auto_install = false
debug = false
network_private_allowed = false
require_resource_limiting = true
networking_allowed = {{ lock = false, reason = "chats hold customer data", env_may_loosen = false }}
max_runtime_seconds = {{ default = {chance.randint(5, 20)}, ceiling = {chance.randint(30, 90)}, reason = "shared" }}
max_ram_megabytes = {{ default = {chance.randint(64, 128)}, ceiling = {chance.randint(128, 512)}, reason = "shared" }}
max_cpus.ceiling = {chance.randint(1, 4)}
max_processes.ceiling = {chance.randint(64, 99)}
max_disk_megabytes.ceiling = {chance.randint(64, 99)}
max_output_kilobytes.ceiling = {chance.randint(256, 999)}
max_file_megabytes.ceiling = {chance.randint(16, 64)}
max_concurrent_runs.ceiling = 2
max_instance_runs.ceiling = {chance.randint(4, 8)}

[[scope]]
match.groups = ["students-{number}", "guests-{number}"]
limits.max_runtime_seconds.ceiling = {chance.randint(5, 10)}

[[scope]]
except.groups = ["staff-{number}"]
limits.max_ram_megabytes.ceiling = {chance.randint(32, 64)}
"""
    file = folder / f"team-{number}" / "policy.toml"
    file.parent.mkdir()
    file.write_text(text)
    return str(file)
