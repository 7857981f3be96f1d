"""What gVisor and the kernel are told of a run follows purely from its language, its limits and the file tree.

Goldens lie in `goldens/spec-*.json`. After an intended change write them anew with `WRITE_GOLDENS=1`, and review the
difference: it is what a box is given.
"""

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.effective import EffectiveLimits
from policy.limits import LIMITS
from policy.values import UNLIMITED
from sandbox.packages import BOX_PACKAGES, Packages
from sandbox.request import RunRequest
from sandbox.spec import STARTUP_RAM_BYTES, THREADS_VARIABLES, Compiled, NetworkMode, compile_run, network_mode
from sandbox.tree import FileTree
from tests.policy.factories import destinations, values_of
from tests.sandbox.conftest import limits_of

GOLDENS = Path(__file__).parent / "goldens"
TREE = FileTree(
    root=Path("/private/trees/0123abcd"),
    digest="0123abcd",
    python="/usr/bin/python3",
    bash="/usr/bin/bash",
    file_count=3,
    size_bytes=4,
    omitted=(),
)
PACKAGES = Packages(
    path=Path("/opt/venv"),
    folder=Path("/opt/venv/lib/python3.11/site-packages"),
    library_name="python3.11",
    digest="4567cdef",
)
BUILT_IN = {limit.name: limit.built_in for limit in LIMITS}
LOCKDOWN = {limit.name: limit.lockdown for limit in LIMITS}
PRIVATE_TOO = {"networking_allowed": True, "network_private_allowed": True}
WIDE_OPEN = {
    **PRIVATE_TOO,
    **dict.fromkeys(
        ("max_runtime_seconds", "max_ram_megabytes", "max_cpus", "max_processes", "max_disk_megabytes"), UNLIMITED
    ),
}
ALL_LIMITS = st.fixed_dictionaries({limit.name: values_of(limit.kind) for limit in LIMITS}).map(
    lambda values: limits_of(**values)
)
LANGUAGES_OF_BOXES = st.sampled_from(["python", "bash"])


def compiled_json(compiled: Compiled) -> str:
    limits = compiled.cgroup_limits
    shown = {
        "spec": compiled.spec,
        "runsc_flags": compiled.runsc_flags,
        "cgroup_limits": {
            "memory_bytes": limits.memory_bytes,
            "cpu_thousandths": limits.cpu_thousandths,
            "processes_hard_stop": limits.processes_hard_stop,
        },
        "network_notice": compiled.network_notice,
    }
    return json.dumps(shown, indent=2, ensure_ascii=False) + "\n"


def mounts_of(limits: EffectiveLimits) -> dict[str, list[str]]:
    mounts = compile_run("python", limits, TREE).spec["mounts"]
    return {mount["destination"]: mount.get("options", []) for mount in mounts}


@pytest.mark.parametrize(
    ("name", "language", "values"),
    [
        ("python-built-in", "python", BUILT_IN),
        ("bash-built-in", "bash", BUILT_IN),
        ("python-lockdown", "python", LOCKDOWN),
        ("python-private-too", "python", {**BUILT_IN, **PRIVATE_TOO}),
        ("bash-everything-unlimited", "bash", {**BUILT_IN, **WIDE_OPEN}),
        ("python-strictest", "python", {limit.name: limit.kind.strictest for limit in LIMITS}),
    ],
)
def test_a_run_is_described_as_its_golden_says(name: str, language: str, values: dict[str, Any]) -> None:
    golden = GOLDENS / f"spec-{name}.json"
    described = compiled_json(compile_run(language, limits_of(**values), TREE))
    if os.environ.get("WRITE_GOLDENS"):
        golden.write_text(described)

    assert described == golden.read_text()


@pytest.mark.parametrize(
    ("name", "language", "imports"),
    [
        ("python-packages", "python", ()),
        ("python-packages-imported", "python", ("numpy", "matplotlib.pyplot")),
        ("bash-packages", "bash", ()),
    ],
)
def test_a_run_with_packages_is_described_as_its_golden_says(
    name: str, language: str, imports: tuple[str, ...]
) -> None:
    golden = GOLDENS / f"spec-{name}.json"
    described = compiled_json(compile_run(language, limits_of(**BUILT_IN), TREE, packages=PACKAGES, imports=imports))
    if os.environ.get("WRITE_GOLDENS"):
        golden.write_text(described)

    assert described == golden.read_text()


def test_a_run_in_a_namespace_is_described_as_its_golden_says() -> None:
    golden = GOLDENS / "spec-python-namespace.json"
    described = compiled_json(compile_run("python", limits_of(**BUILT_IN), TREE, way=NetworkMode.NAMESPACE))
    if os.environ.get("WRITE_GOLDENS"):
        golden.write_text(described)

    assert described == golden.read_text()


@given(limits=ALL_LIMITS, language=LANGUAGES_OF_BOXES)
def test_packages_are_mounted_read_only_and_change_no_limit(limits: EffectiveLimits, language: str) -> None:
    without, offered = (compile_run(language, limits, TREE, packages=packages) for packages in (None, PACKAGES))
    more = [mount for mount in offered.spec["mounts"] if mount not in without.spec["mounts"]]

    assert [(mount["destination"], mount["source"]) for mount in more] == [(BOX_PACKAGES, str(PACKAGES.folder))]
    assert "ro" in more[0]["options"]
    assert "rbind" not in more[0]["options"]
    assert (offered.cgroup_limits, offered.runsc_flags) == (without.cgroup_limits, without.runsc_flags)
    assert BOX_PACKAGES not in json.dumps(without.spec)


@pytest.mark.parametrize(
    ("cpus", "processes", "threads"),
    [
        ("1", 64, "1"),
        ("0.1", 64, "1"),
        ("2.5", 64, "3"),
        ("8", 8, "4"),
        ("8", 1, "1"),
        (UNLIMITED, 6, "3"),
        (UNLIMITED, UNLIMITED, None),
    ],
)
def test_numerical_libraries_start_no_more_threads_than_they_may(
    cpus: Any,  # noqa: ANN401 -- whatever the limit can be
    processes: Any,  # noqa: ANN401
    threads: str | None,
) -> None:
    limits = limits_of(max_cpus=cpus if cpus is UNLIMITED else Decimal(cpus), max_processes=processes)

    environment = dict(
        line.split("=", 1) for line in compile_run("python", limits, TREE, packages=PACKAGES).spec["process"]["env"]
    )

    assert {environment.get(name) for name in THREADS_VARIABLES} == {threads}


@given(limits=ALL_LIMITS, language=LANGUAGES_OF_BOXES)
def test_the_same_request_is_always_described_the_same(limits: EffectiveLimits, language: str) -> None:
    assert compile_run(language, limits, TREE) == compile_run(language, limits, TREE)


@given(limits=ALL_LIMITS, language=LANGUAGES_OF_BOXES)
def test_whatever_the_limits_a_box_has_no_privilege_and_a_read_only_root(
    limits: EffectiveLimits, language: str
) -> None:
    spec = compile_run(language, limits, TREE).spec
    process = spec["process"]

    assert set(process["capabilities"]) == {"bounding", "effective", "inheritable", "permitted", "ambient"}
    assert not any(process["capabilities"].values())
    assert process["noNewPrivileges"] is True
    assert process["user"] == {"uid": 1000, "gid": 1000}
    assert spec["root"] == {"path": str(TREE.root), "readonly": True}
    assert {entry["type"] for entry in spec["linux"]["namespaces"]} >= {"pid", "ipc", "uts", "mount"}
    assert "annotations" not in spec


@given(limits=ALL_LIMITS, language=LANGUAGES_OF_BOXES)
def test_a_box_never_gets_the_hosts_network_and_a_way_out_only_where_limits_permit(
    limits: EffectiveLimits, language: str
) -> None:
    compiled = compile_run(language, limits, TREE)

    proxied = limits.values["networking_allowed"] is True and limits.values["network_allowlist"] != []
    assert {"type": "network"} in compiled.spec["linux"]["namespaces"]
    assert compiled.runsc_flags == ("--network=none", *(("--host-uds=open",) if proxied else ()))
    assert ("https_proxy=http://127.0.0.1:3128" in compiled.spec["process"]["env"]) is proxied


@given(limits=ALL_LIMITS)
def test_everything_writable_has_a_size_and_together_they_fit_the_limit(limits: EffectiveLimits) -> None:
    writable = {path: options for path, options in mounts_of(limits).items() if "mode=1777" in options}
    sizes = [int(option[5:-1]) for options in writable.values() for option in options if option.startswith("size=")]
    megabytes = limits.values["max_disk_megabytes"]

    assert set(writable) == {"/tmp", "/dev/shm"}
    assert all({"nosuid", "nodev"} <= set(options) for options in writable.values())
    assert (sum(sizes) if sizes else "unlimited") == (megabytes * 1024 if isinstance(megabytes, int) else megabytes)


def test_nothing_that_a_person_wrote_stands_in_the_description() -> None:
    request = RunRequest(language="python", code="CANARY-CODE", person="CANARY-PERSON", limits=limits_of())

    described = compiled_json(compile_run(request.language, request.limits, TREE))

    assert "CANARY" not in described


def test_who_decided_a_limit_does_not_stand_in_the_spec() -> None:
    limits = limits_of(networking_allowed=True)

    assert "test" not in json.dumps(compile_run("python", limits, TREE).spec)


def test_the_box_is_told_nothing_of_the_hosts_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_CANARY", "canary-value")

    described = compiled_json(compile_run("python", limits_of(), TREE))

    assert "canary" not in described.lower()


def test_ram_is_limited_with_headroom_for_gvisor_and_nothing_more() -> None:
    compiled = compile_run("python", limits_of(max_ram_megabytes=100), TREE)

    assert compiled.cgroup_limits.memory_bytes == (100 << 20) + STARTUP_RAM_BYTES


@pytest.mark.parametrize(("cpus", "thousandths"), [("0.01", 10), ("0.333", 333), ("1", 1_000), ("1024", 1_024_000)])
def test_a_share_of_the_processors_is_exact_to_the_thousandth(cpus: str, thousandths: int) -> None:
    compiled = compile_run("python", limits_of(max_cpus=Decimal(cpus)), TREE)

    assert compiled.cgroup_limits.cpu_thousandths == thousandths


def test_unlimited_is_no_limit_at_all_and_never_zero() -> None:
    limits = compile_run("bash", limits_of(**WIDE_OPEN), TREE).cgroup_limits

    assert (limits.memory_bytes, limits.cpu_thousandths, limits.processes_hard_stop) == (None, None, None)


@pytest.mark.parametrize(
    ("values", "mode", "words"),
    [
        pytest.param(
            {"networking_allowed": False},
            NetworkMode.NONE,
            "The run had no network: networking_allowed is false, by test.",
            id="not-allowed",
        ),
        pytest.param({"networking_allowed": True}, NetworkMode.PROXY, "", id="public"),
        pytest.param(PRIVATE_TOO, NetworkMode.PROXY, "", id="private-too"),
        pytest.param(
            {"networking_allowed": True, "network_allowlist": destinations("example.com")},
            NetworkMode.PROXY,
            "",
            id="listed",
        ),
        pytest.param(
            {"networking_allowed": True, "network_allowlist": frozenset()},
            NetworkMode.NONE,
            "The run had no network: network_allowlist, by test, allows no destination.",
            id="empty-list",
        ),
    ],
)
def test_people_are_told_why_a_run_has_less_network_than_they_may_expect(
    values: dict[str, Any], mode: NetworkMode, words: str
) -> None:
    assert network_mode(limits_of(**values)) == (mode, words)
