"""What a host cannot enforce, out of what the doctor prints."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from policy.limits import LIMITS
from policy.lint.host import facts_there, this_host, unenforceable
from policy.lint.inputs import UnknownInputError


def check(name: str, verdict: str = "ok", detail: str = "proved: it held") -> dict[str, str]:
    return {"name": name, "verdict": verdict, "detail": detail, "remedy": ""}


def facts(*failed: dict[str, str], without: tuple[str, ...] = ()) -> bytes:
    """A host that enforces every limit but these, and of some limits of which nothing is said."""
    names = {each["name"] for each in failed} | set(without)
    good = [check(limit.name) for limit in LIMITS if limit.name not in names]
    return json.dumps({"checks": [check("machine"), *failed, *good]}).encode()


def test_a_host_on_which_every_probe_held_can_enforce_everything() -> None:
    assert unenforceable(facts()) == {}


def test_a_limit_that_could_be_broken_is_named_with_what_happened() -> None:
    assert unenforceable(facts(check("max_disk_megabytes", "failed", "it did not hold"))) == {
        "max_disk_megabytes": "it did not hold"
    }


def test_of_a_limit_without_its_cgroup_the_reason_is_that_of_the_cgroup() -> None:
    lacking = check("max_ram_megabytes", "failed", "this host lacks its cgroup (see above)")

    assert unenforceable(facts(check("cgroup memory", "failed", "/sys/fs/cgroup is read-only"), lacking)) == {
        "max_ram_megabytes": "/sys/fs/cgroup is read-only"
    }


def test_one_of_two_probes_is_enough() -> None:
    told = facts(check("languages"), check("languages", "failed", "Bash does not start"))

    assert unenforceable(told) == {"languages": "Bash does not start"}


def test_where_no_box_starts_what_was_never_tried_cannot_be_enforced_either() -> None:
    told = facts(check("languages", "failed", "no namespaces"), without=("max_cpus", "max_runtime_seconds"))

    assert unenforceable(told) == dict.fromkeys(("max_runtime_seconds", "max_cpus", "languages"), "no namespaces")


def test_a_warning_is_no_failure() -> None:
    assert unenforceable(facts(check("commands", "warning", "old"), check("max_cpus", "warning", "slow"))) == {}


def test_facts_that_say_nothing_of_limits_never_mean_that_all_is_well() -> None:
    told = json.dumps({"checks": [check("machine"), check("gVisor", "failed", "it is not installed")]}).encode()

    with pytest.raises(UnknownInputError, match="gVisor: it is not installed"):
        unenforceable(told)


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"\xff",
        b"{",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"checks": {}}',
        b'{"checks": []}',
        b'{"checks": [1]}',
        b'{"checks": [{"name": "max_cpus"}]}',
        b'{"checks": [{"name": ["max_cpus"], "verdict": "ok", "detail": ""}]}',
    ],
    ids=lambda told: str(told[:30]),
)
def test_what_the_doctor_never_prints_is_refused(told: bytes) -> None:
    with pytest.raises(UnknownInputError, match="the facts of the host"):
        unenforceable(told)


@pytest.mark.gvisor
def test_the_doctor_of_this_host_can_be_read_whatever_the_deployment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_MAX_CPUS", "malformed")

    told: dict[str, Any] = json.loads(this_host())

    assert {limit.name for limit in LIMITS} <= {each["name"] for each in told["checks"]}
    assert unenforceable(json.dumps(told).encode()) == {}


@pytest.mark.gvisor
def test_a_folder_that_holds_a_package_called_sandbox_is_never_run(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,  # noqa: ANN401 -- a path
) -> None:
    package = tmp_path / "sandbox"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('planted')\n")
    monkeypatch.chdir(tmp_path)

    assert b"checks" in this_host()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "giant"])
def test_facts_that_never_end_hold_nobody_up(tmp_path: Path, kind: str) -> None:
    place = Path("/dev/zero") if kind == "device" else tmp_path / "facts.json"
    match kind:
        case "pipe":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case "giant":
            place.write_bytes(b" " * (1024 * 1024 + 1))

    with pytest.raises(UnknownInputError, match=place.name):
        facts_there(place)


def test_facts_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_bytes(facts())

    assert unenforceable(facts_there(tmp_path / "facts.json")) == {}
