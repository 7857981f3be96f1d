"""A session reads what policy says anew for each run, prepares the host once, and says each step."""

import asyncio
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from policy.errors import PolicyError
from policy.requester import UNDETERMINED
from sandbox.errors import InstallError, SandboxError
from sandbox.folders import private_folder
from sandbox.outcome import Outcome, RunResult
from sandbox.session import RunOrder, Session, gvisor_source
from tests.policy.factories import text_of
from tests.sandbox.conftest import PATIENCE, Place, linked
from tests.sandbox.namespaces import needs_namespaces

STEPS = [
    "Checking if environment supports sandboxing...",
    "Initializing sandbox configuration...",
    "Setting up sandbox environment...",
]
NEVER_RELEASED = {
    "SANDBOX_GVISOR_VERSION": "99991231",
    "SANDBOX_GVISOR_SHA512": "0" * 128,
    "SANDBOX_GVISOR_MIN_VERSION": "99991231",
}


PRIVATE_CLOSED = "10.0.0.1:80 refused: 10.0.0.1 is private, and private destinations are closed, built-in"
CONNECTS = """
import os, socket
print(os.getenv("https_proxy", "none"))
try:
    socket.create_connection(("10.0.0.1", 80)).recv(1)
except OSError as error:
    print(type(error).__name__)
"""


def order_of(
    code: str,
    language: str = "python",
    person: Mapping[str, object] = {},
    administrator: Mapping[str, object] = {},
) -> RunOrder:
    return RunOrder(
        language=language,
        code=code,
        person="somebody",
        requester=UNDETERMINED,
        untrusted_person_valves=person,
        untrusted_admin_valves=administrator,
    )


@dataclass(frozen=True)
class Told:
    """A session, and everything that it said."""

    session: Session
    sentences: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    async def run(
        self,
        code: str = "print(6 * 7)",
        language: str = "python",
        person: Mapping[str, object] = {},
        administrator: Mapping[str, object] = {},
    ) -> RunResult:
        return await self.session.run(order_of(code, language, person, administrator), self.announce)

    async def announce(self, sentence: str) -> None:
        self.sentences.append(sentence)


def told(environ: Mapping[str, str], **variables: str) -> Told:
    warnings: list[str] = []
    return Told(Session({**environ, **variables}, warnings.append), warnings=warnings)


def contents(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def unsigned_policy(folder: Path, serial: int = 7, **limits: object) -> dict[str, str]:
    """Variables that name a policy file with these limits; the file is written anew each time."""
    now = datetime.now(UTC).replace(microsecond=0)
    dates = {"issued_at": now - timedelta(hours=1), "expires_at": now + timedelta(days=1)}
    path = folder / "acme.toml"
    path.write_text(text_of(dict(limits), audience=["*"], serial=serial, **dates))
    path.chmod(0o600)
    return {"SANDBOX_POLICY_PATH": str(path), "SANDBOX_POLICY_UNSIGNED_ALLOWED": "true"}


@pytest.mark.gvisor
@pytest.mark.parametrize(
    ("language", "code", "name"), [("python", "print(6 * 7)", "Python"), ("bash", "echo 42", "Bash")]
)
async def test_a_run_says_each_step_in_order(environ: Mapping[str, str], language: str, code: str, name: str) -> None:
    here = told(environ)

    result = await here.run(code, language)

    assert result.output == "42\n"
    assert here.sentences == [*STEPS, f"Running {name} code in gVisor sandbox..."]


@pytest.mark.gvisor
async def test_person_who_is_slow_to_hear_holds_up_nobody(environ: Mapping[str, str]) -> None:
    async def never_hears(sentence: str) -> None:
        if sentence.startswith("Setting up"):
            await asyncio.sleep(3600)

    here = told(environ)
    await here.run("print(1)")
    slow = asyncio.create_task(here.session.run(order_of("print(2)"), never_hears))
    await asyncio.sleep(0.1)

    assert (await asyncio.wait_for(here.run("print(3)"), 20 * PATIENCE)).output == "3\n"
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)


@pytest.mark.gvisor
async def test_an_environment_lock_holds_whatever_the_valves_say(environ: Mapping[str, str]) -> None:
    here = told(environ, SANDBOX_MAX_RUNTIME_SECONDS="1")

    valves = {"MAX_RUNTIME_SECONDS": 60}
    result = await here.run("while True: pass", person=valves, administrator=valves)

    assert (result.outcome, result.runtime_limit_seconds) == (Outcome.TIMED_OUT, 1)


@pytest.mark.gvisor
@pytest.mark.parametrize(
    ("way", "variables"),
    [("proxy", {}), ("namespace", {"SANDBOX_NETWORK_MODE": "namespace"})],
    ids=["proxy-by-default", "namespace"],
)
@needs_namespaces
async def test_code_gets_out_by_the_way_that_the_environment_names(
    environ: Mapping[str, str], way: str, variables: Mapping[str, str]
) -> None:
    here = told(environ, SANDBOX_NETWORKING_ALLOWED="true", **variables)

    result = await here.run(CONNECTS)

    expected = {
        "proxy": ("http://127.0.0.1:3128\nOSError\n", []),
        "namespace": ("none\nConnectionResetError\n", [PRIVATE_CLOSED]),
    }
    assert (result.output, [one.words for one in result.egress.decisions]) == expected[way]


@pytest.mark.gvisor
async def test_a_valve_brought_in_is_told_to_the_person(environ: Mapping[str, str]) -> None:
    here = told(environ, SANDBOX_MAX_RUNTIME_SECONDS__CEILING="5")

    result = await here.run(person={"MAX_RUNTIME_SECONDS": 60})

    assert result.runtime_limit_seconds == 5
    assert any("max_runtime_seconds" in notice.lower() for notice in result.notices)


@pytest.mark.gvisor
async def test_a_malformed_persons_valve_breaks_no_run_and_is_told(environ: Mapping[str, str]) -> None:
    result = await told(environ).run(person={"MAX_RUNTIME_SECONDS": "soon"})

    assert result.output == "42\n"
    assert result.runtime_limit_seconds == 30
    assert any("MAX_RUNTIME_SECONDS" in notice for notice in result.notices)


@pytest.mark.gvisor
async def test_a_change_of_policy_affects_the_next_run_and_is_in_its_record(
    environ: Mapping[str, str], tmp_path: Path
) -> None:
    here = told(environ, **unsigned_policy(tmp_path, max_runtime_seconds=20))

    first = await here.run()
    unsigned_policy(tmp_path, serial=8, max_runtime_seconds=10)
    second = await here.run()

    assert (first.runtime_limit_seconds, second.runtime_limit_seconds) == (20, 10)
    assert first.limits_digest != second.limits_digest
    assert second.policies == (("acme-prod", 8),)


@pytest.mark.gvisor
async def test_a_policy_that_turned_bad_leaves_the_last_good_one_and_says_so(
    environ: Mapping[str, str], tmp_path: Path
) -> None:
    here = told(environ, **unsigned_policy(tmp_path, max_runtime_seconds=20))
    await here.run()

    (tmp_path / "acme.toml").write_text("schema = 1\nnonsense")
    result = await here.run()

    assert result.runtime_limit_seconds == 20
    assert [warning for warning in here.warnings if "[document-invalid]" in warning]


@pytest.mark.gvisor
async def test_a_policy_refused_for_too_long_leaves_the_lockdown_values(
    environ: Mapping[str, str], tmp_path: Path
) -> None:
    stale = {"SANDBOX_POLICY_MAX_STALE": "0s", "SANDBOX_MAX_RUNTIME_SECONDS": "25"}
    here = told(environ, **unsigned_policy(tmp_path, networking_allowed=False), **stale)
    await here.run()

    (tmp_path / "acme.toml").unlink()
    result = await here.run()

    assert (result.runtime_limit_seconds, result.output_limit_kilobytes) == (10, 64)
    assert result.policy_refusal == "unreadable"
    assert "The lockdown values hold: the policy set is refused (unreadable)." in result.notices


async def test_a_bad_policy_on_first_contact_lets_nothing_run(environ: Mapping[str, str], tmp_path: Path) -> None:
    variables = unsigned_policy(tmp_path, max_runtime_seconds=20)
    (tmp_path / "acme.toml").write_text("schema = 1\nnonsense")

    with pytest.raises(PolicyError, match="it is not TOML"):
        await told(environ, **variables).run()


@pytest.mark.gvisor
async def test_the_host_is_prepared_once_however_many_runs_begin_together(environ: Mapping[str, str]) -> None:
    here = told(environ, SANDBOX_MAX_CONCURRENT_RUNS="4")

    results = await asyncio.gather(*(here.run(f"print({number})") for number in range(4)))

    assert [result.output for result in results] == ["0\n", "1\n", "2\n", "3\n"]


@pytest.mark.gvisor
def test_equipment_that_vanished_is_not_taken_for_what_it_was(place: Place, tmp_path: Path) -> None:
    gone = tmp_path / "gone"

    assert place.equipment.intact()
    assert not replace(place.equipment, runsc=replace(place.equipment.runsc, path=gone)).intact()
    assert not replace(place.equipment, tree=replace(place.equipment.tree, root=gone)).intact()


def put_gvisor(program: Path, version: str, real: Path) -> None:
    """Put a gVisor that says it is of some version at a path, as a package does: whole, in the place of another."""
    fresh = program.with_name("fresh")
    said = f'[ "$1" != --version ] || {{ echo runsc version {version}; exit; }}'
    fresh.write_text(f'#!/bin/sh\n{said}\nexec {real} "$@"\n')
    fresh.chmod(0o755)
    fresh.rename(program)


@pytest.mark.gvisor
async def test_a_gvisor_exchanged_under_a_running_server_is_proved_and_named_and_no_box_of_the_old_one_waits(
    place: Place, tmp_path: Path
) -> None:
    program = tmp_path / "bin" / "runsc"
    program.parent.mkdir()
    real, trees = place.equipment.runsc.path, place.equipment.tree.root.parent
    environ = {"PATH": f"{program.parent}:/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    shutil.copytree(trees, private_folder(environ) / "trees", symlinks=True, copy_function=linked)
    proving = "Proving on this host that each limit holds..."
    put_gvisor(program, "20240101.0", real)
    here = Told(Session({**environ, "SANDBOX_POOL_SIZE": "1"}, lambda _: None, keeps_boxes=True))

    async with here.session:
        results = [await here.run(), await pooled_run(here)]
        put_gvisor(program, "20250101.0", real)
        here.sentences.clear()
        results += [await here.run()]
        told_then = tuple(here.sentences)
        results += [await pooled_run(here)]

    assert [result.gvisor[:10] for result in results] == ["20240101.0", "20240101.0", "20250101.0", "20250101.0"]
    assert [result.pooled for result in results] == [False, True, False, True]
    assert proving in told_then
    assert proving not in here.sentences[len(told_then) :]


async def pooled_run(here: Told) -> RunResult:
    """A run in a box that waited, as soon as one does."""
    for _ in range(20 * PATIENCE):
        await asyncio.sleep(0.5)
        result = await here.run()
        if result.pooled:
            break
    return result


@pytest.mark.gvisor
async def test_a_missing_gvisor_is_not_installed_where_policy_forbids_it(environ: Mapping[str, str]) -> None:
    here = told(environ, SANDBOX_AUTO_INSTALL="false", **NEVER_RELEASED)

    with pytest.raises(InstallError) as caught:
        await here.run()

    assert caught.value.key == "SANDBOX_AUTO_INSTALL"
    assert "SANDBOX_AUTO_INSTALL" in caught.value.origin
    assert "sandbox install" in caught.value.remedy
    assert here.sentences == STEPS[:1]


async def test_a_malformed_environment_stops_every_run_and_nothing_is_prepared(tmp_path: Path) -> None:
    here = told({"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}, SANDBOX_MAX_RUNTIME_SECONDS="fast")

    with pytest.raises(PolicyError, match="SANDBOX_MAX_RUNTIME_SECONDS"):
        await here.run()

    assert contents(tmp_path) == []


@pytest.mark.parametrize(("language", "code"), [("ruby", "1"), ("python", "\x00"), ("python", "#" * (10 << 20))])
async def test_a_bad_request_is_refused_before_anything_is_prepared(tmp_path: Path, language: str, code: str) -> None:
    here = told({"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})

    with pytest.raises(SandboxError):
        await here.run(code, language)

    assert contents(tmp_path) == []


async def test_the_environment_is_read_once_so_code_that_changes_it_later_loosens_nothing(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "SANDBOX_LANGUAGES": "bash"}
    here = Told(Session(environ, lambda _: None))
    environ["SANDBOX_LANGUAGES"] = "python,bash"

    with pytest.raises(SandboxError) as caught:
        await here.run()

    assert caught.value.key == "languages"


def test_a_foreign_variable_is_warned_of_once() -> None:
    warnings: list[str] = []
    session = Session({"SANDBOX_ZEBRA_COLOUR": "striped"}, warnings.append)

    session.situation()
    session.situation()

    assert len(warnings) == 1
    assert "SANDBOX_ZEBRA_COLOUR" in warnings[0]


def test_the_settings_choose_which_gvisor_is_wanted() -> None:
    source = gvisor_source(Session(NEVER_RELEASED, lambda _: None).situation().environment.settings)

    assert (source.version, source.min_version) == ("99991231", "99991231")
    assert {digest for _, digest in source.sha512} == {"0" * 128}


@pytest.mark.gvisor
async def test_a_record_is_json(environ: Mapping[str, str]) -> None:
    record = json.loads(json.dumps((await told(environ).run()).record()))

    assert record["outcome"] == "ok"
    assert len(record["limits_digest"]) == 64
