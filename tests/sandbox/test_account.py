"""What the audit log is told: every end that a run can come to, by a session with a real log; and never the code."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from policy.errors import AuditError
from policy.requester import UNDETERMINED, Requester
from sandbox.account import RunAccount
from sandbox.errors import SandboxError
from sandbox.outcome import RunResult
from sandbox.session import RunOrder, Session
from tests.sandbox.conftest import PATIENCE

CODE = "print('a secret of the person')"
ASKS_AND_WAITS = """
import time, urllib.request
for host in ("secret.example", "10.0.0.1"):
    try: urllib.request.urlopen(f"http://{host}/", timeout=5)
    except OSError: pass
time.sleep(60)
"""
STUDENT = Requester(role="user", groups=frozenset({"students"}), user="u1", model="llama", surface="tool")


def log_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


def logging_variables(folder: Path, **variables: str) -> dict[str, str]:
    return {"SANDBOX_AUDIT_LOG": str(folder / "runs.jsonl"), **variables}


async def ran(session: Session, code: str = CODE, **valves: object) -> RunResult:
    order = RunOrder(
        language="python",
        code=code,
        person="u1",
        requester=STUDENT,
        untrusted_person_valves=valves,
        untrusted_admin_valves={},
    )
    return await session.run(order, silence)


async def silence(_sentence: str) -> None:
    """Say nothing to nobody."""


def no_warning(sentence: str) -> None:
    raise AssertionError(sentence)


@pytest.mark.gvisor
async def test_a_run_leaves_one_line_with_who_what_and_how_it_ended(environ: Mapping[str, str], tmp_path: Path) -> None:
    result = await ran(Session({**environ, **logging_variables(tmp_path)}, no_warning))

    [line] = log_lines(tmp_path)
    assert line["outcome"] == "ok"
    assert line["who"] == STUDENT.as_json()
    assert line["surface"] == result.surface == "tool"
    assert line["code_sha256"] == result.code_sha256 == hashlib.sha256(CODE.encode()).hexdigest()
    assert (line["limits_digest"], line["hash"]) == (result.limits_digest, result.audit_hash)
    assert {"unenforced", "peak_memory_bytes", "wall_seconds", "startup_seconds", "policies"} <= set(line)


@pytest.mark.gvisor
async def test_the_log_never_holds_the_code_nor_its_output(environ: Mapping[str, str], tmp_path: Path) -> None:
    await ran(Session({**environ, **logging_variables(tmp_path)}, no_warning))

    assert "secret" not in (tmp_path / "runs.jsonl").read_text()


@pytest.mark.gvisor
async def test_stopping_a_run_does_not_keep_it_out_of_the_log(environ: Mapping[str, str], tmp_path: Path) -> None:
    session = Session({**environ, **logging_variables(tmp_path)}, no_warning)
    await ran(session)

    running = asyncio.create_task(ran(session, "import time; time.sleep(60)"))
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    finished, stopped = log_lines(tmp_path)
    assert (finished["outcome"], stopped["outcome"]) == ("ok", "stopped")
    assert stopped["limits_digest"]


@pytest.mark.gvisor
async def test_what_a_stopped_run_used_is_in_the_log(environ: Mapping[str, str], tmp_path: Path) -> None:
    session = Session({**environ, **logging_variables(tmp_path)}, no_warning)
    await ran(session)

    running = asyncio.create_task(ran(session, "while True: pass"))
    await asyncio.sleep(2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    finished, stopped = log_lines(tmp_path)
    assert (stopped["gvisor"], stopped["box_digest"]) == (finished["gvisor"], finished["box_digest"])
    assert stopped["cpu_seconds"] > finished["cpu_seconds"]
    assert stopped["peak_memory_bytes"] > 0
    assert stopped["wall_seconds"] > finished["wall_seconds"]


@pytest.mark.gvisor
async def test_exfiltration_that_its_person_stops_is_in_the_log_with_whom_it_asked(
    environ: Mapping[str, str], tmp_path: Path
) -> None:
    variables = {"SANDBOX_NETWORKING_ALLOWED": "true", "SANDBOX_NETWORK_ALLOWLIST": "10.0.0.0/8"}
    session = Session({**environ, **logging_variables(tmp_path), **variables}, no_warning)

    running = asyncio.create_task(ran(session, ASKS_AND_WAITS))
    await asyncio.sleep(4 * PATIENCE)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    (stopped,) = log_lines(tmp_path)
    decisions = [(one["destination"], one["permitted"]) for one in stopped["network"]["decisions"]]
    assert (stopped["outcome"], decisions) == ("stopped", [("secret.example:80", False), ("10.0.0.1:80", False)])


async def test_a_refused_run_is_in_the_log_with_what_it_was_refused_for(
    environ: Mapping[str, str], tmp_path: Path
) -> None:
    with pytest.raises(SandboxError):
        await ran(Session({**environ, **logging_variables(tmp_path)}, no_warning), LANGUAGES="bash")

    [line] = log_lines(tmp_path)
    assert (line["outcome"], line["refused_for"]) == ("refused", "languages")


async def test_a_refused_policy_set_is_in_the_log_by_its_code(environ: Mapping[str, str], tmp_path: Path) -> None:
    missing = {"SANDBOX_POLICY_PATH": str(tmp_path / "none"), "SANDBOX_POLICY_UNSIGNED_ALLOWED": "true"}

    with pytest.raises(Exception, match="it does not exist"):
        await ran(Session({**environ, **logging_variables(tmp_path, **missing)}, no_warning))

    [line] = log_lines(tmp_path)
    assert (line["outcome"], line["refused_for"], line["limits_digest"]) == ("refused", "unreadable", None)


async def test_nothing_runs_while_a_required_log_cannot_be_written(environ: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").mkdir()
    variables = logging_variables(tmp_path, SANDBOX_AUDIT_REQUIRED="true")

    with pytest.raises(AuditError, match="SANDBOX_AUDIT_LOG"):
        await ran(Session({**environ, **variables}, no_warning))


@pytest.mark.gvisor
async def test_a_result_is_withheld_where_its_line_cannot_be_written_after_the_run(
    environ: Mapping[str, str], tmp_path: Path
) -> None:
    variables = logging_variables(tmp_path, SANDBOX_AUDIT_REQUIRED="true")
    session = Session({**environ, **variables}, lambda _: None)
    await ran(session)

    running = asyncio.create_task(ran(session, "import time; time.sleep(1)"))
    await asyncio.sleep(0.7)
    (tmp_path / "runs.jsonl").rename(tmp_path / "moved")
    (tmp_path / "runs.jsonl").mkdir()

    with pytest.raises(AuditError, match="it is a folder"):
        await running


@pytest.mark.gvisor
async def test_a_log_that_is_not_required_and_cannot_be_written_is_warned_of(
    environ: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "runs.jsonl").mkdir()
    warnings: list[str] = []

    result = await ran(Session({**environ, **logging_variables(tmp_path)}, warnings.append))

    assert result.audit_hash is None
    assert [warning for warning in warnings if "missing from the audit log" in warning]


def test_code_that_is_no_text_can_be_accounted_for() -> None:
    account = RunAccount(person="u1", requester=UNDETERMINED, language="python", code="\ud800")

    assert account.of_end("failed")["code_bytes"] == 3
