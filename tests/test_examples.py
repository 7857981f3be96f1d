"""Each example works: the variables load, the policy verifies and decides, the deployments are valid and agree."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from policy.environment import read_environment
from policy.errors import SetRefusedError
from policy.keys import parse_public_pem
from policy.limits import (
    AUTO_INSTALL,
    LIMITS,
    MAX_RUNTIME_SECONDS,
    NETWORKING_ALLOWED,
    REQUIRE_RESOURCE_LIMITING,
)
from policy.lint.environments import environment_of_text
from policy.lint.keys import reviewed_keys
from policy.lint.run import judged_paths, linted
from policy.lint.subjects import Setup
from policy.live import LivePolicy
from policy.load import trusted_reader
from policy.main import main as policy_command
from policy.signatures import verify_signatures
from policy.situation import Situation
from policy.statements import Layer
from policy.trusted_files import CONFIGMAP_DATA

EXAMPLES = Path(__file__).parents[1] / "examples"
LOCKDOWN = EXAMPLES / "lockdown.env"
POLICY = EXAMPLES / "policy" / "acme-prod.toml"
KEY = EXAMPLES / "policy" / "ops.pub"
COMPOSE = EXAMPLES / "compose.yaml"
MANIFEST = EXAMPLES / "kubernetes.yaml"
SETUP = EXAMPLES.parent / "docs" / "setup.md"
NOW = datetime(2026, 12, 1, tzinfo=UTC)

SERVICE_KEYS = {
    *("image", "restart", "ports", "env_file", "environment", "cap_add", "cap_drop", "security_opt", "cgroup"),
    *("privileged", "volumes", "healthcheck", "deploy", "mem_limit", "cpus", "read_only", "tmpfs", "init"),
}
"""Keys of a service. Source: the Compose Specification's compose-spec.json."""
TOP_KEYS = {"name", "services", "volumes", "networks", "configs", "secrets"}


def test_the_variables_of_the_lockdown_load_without_a_warning() -> None:
    layer = read_environment(lockdown_variables())
    assert layer.warnings == ()


def test_the_variables_left_out_as_comments_would_load_too() -> None:
    commented = re.findall(r"^# (SANDBOX_\w+)=(.*)$", LOCKDOWN.read_text(), re.MULTILINE)
    assert commented
    assert read_environment({**lockdown_variables(), **dict(commented)}).warnings == ()


def test_the_lockdown_decides_every_limit_that_the_lockdown_values_tighten(tmp_path: Path) -> None:
    limits = situation(tmp_path).limits(
        untrusted_person_valves={limit.valve: loosest_text(limit.name) for limit in LIMITS},
        untrusted_admin_valves={limit.valve: loosest_text(limit.name) for limit in LIMITS},
    )
    valves = {Layer.PERSON_VALVE, Layer.ADMIN_VALVE}
    loose = [
        limit.name
        for limit in LIMITS
        if limit.lockdown != limit.built_in and limits.decisions[limit.name].decided_by.layer in valves
    ]
    assert loose == []
    assert (limits[NETWORKING_ALLOWED], limits[AUTO_INSTALL]) == (False, False)
    assert limits[MAX_RUNTIME_SECONDS] == 60


def test_the_policy_is_signed_by_the_key_beside_it() -> None:
    keys = parse_public_pem({str(KEY): KEY.read_bytes()})
    verified = verify_signatures(POLICY.read_bytes(), keys, threshold=1, origin=str(POLICY))
    assert verified.trusted == tuple(key.key_id for key in keys)


def test_the_linter_finds_nothing_in_policy_and_variables_but_that_an_example_lives_long() -> None:
    keys = reviewed_keys([KEY])
    setup = Setup(
        now=NOW,
        production=True,
        environment=environment_of_text(str(LOCKDOWN), LOCKDOWN.read_bytes()),
        keys=keys.keys,
        named_keys=keys.named,
        threshold=1,
    )
    found = linted(judged_paths([str(POLICY)], setup, lambda _done: None), (), setup).findings
    assert [finding.rule_name for finding in found] == ["expires-too-late"]


def test_no_private_key_is_handed_out() -> None:
    texts = [path.read_text() for path in EXAMPLES.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert not any("PRIVATE KEY" in text for text in texts)
    assert list(EXAMPLES.rglob("*.key")) == []


def test_the_policy_holds_until_2036_and_no_longer(tmp_path: Path) -> None:
    expiry = datetime(2036, 11, 1, tzinfo=UTC)
    assert situation(tmp_path, now=expiry - timedelta(seconds=1)).stand_in is None
    late = situation(tmp_path, now=expiry).stand_in
    assert late is not None
    assert (late.refusal.code, late.until, late.locked_down) == ("expired", expiry + timedelta(days=1), False)


def test_an_altered_example_is_refused(tmp_path: Path) -> None:
    changed = POLICY.read_bytes().replace(b"ceiling = 60", b"ceiling = 61")
    with pytest.raises(SetRefusedError) as refused:
        situation(tmp_path, policy=changed)
    assert refused.value.code == "signature-invalid"


def test_a_variable_does_not_turn_on_the_network_that_the_policy_forbids(tmp_path: Path) -> None:
    limits = situation(tmp_path, SANDBOX_NETWORKING_ALLOWED="true").limits()
    assert limits[NETWORKING_ALLOWED] is False


def test_explaining_the_policy_names_file_line_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    policy_command(["explain", "--policy", str(POLICY), "--valve", "MAX_RUNTIME_SECONDS=600", "--json"])
    told = json.loads(capsys.readouterr().out)["limits"]
    assert told["max_runtime_seconds"]["value"] == 60
    assert "shared host" in json.dumps(told["max_runtime_seconds"])
    assert told["networking_allowed"]["decided_by"] == Layer.POLICY.value
    assert f"{POLICY}:" in json.dumps(told["networking_allowed"])


def test_compose_uses_keys_that_compose_knows() -> None:
    document = compose()
    assert document.keys() <= TOP_KEYS
    assert all(service.keys() <= SERVICE_KEYS for service in document["services"].values())


def test_compose_names_files_volumes_and_paths_that_exist() -> None:
    document, service = compose(), web(compose())
    sources = [volume.split(":")[0] for volume in service["volumes"]]
    named = {source for source in sources if not source.startswith((".", "/"))}
    missing = [source for source in (*sources, *service["env_file"]) if source[0] == "." and not in_examples(source)]
    assert missing == []
    assert named == document["volumes"].keys()
    assert all(in_examples(name) for name in service["env_file"])
    assert all(in_examples(path) for path in re.findall(r"-v (\S+?):", COMPOSE.read_text()))


def test_compose_mounts_policy_and_key_read_only_where_the_variables_look() -> None:
    mounted = {Path(target).parent: options for _, target, *options in map(split_volume, web(compose())["volumes"])}
    variables = lockdown_variables()
    for variable in ("SANDBOX_POLICY_PATH", "SANDBOX_POLICY_KEYS"):
        assert mounted[Path(variables[variable])] == ["ro"]


def test_compose_has_the_settings_of_the_hard_way() -> None:
    hard_way = SETUP.read_text().partition("\n### The hard way\n")[2]
    shown = re.search(r"^docker run -d .*?^  ghcr", hard_way, re.MULTILINE | re.DOTALL)
    assert shown is not None
    service = web(compose())
    options = re.findall(r"--security-opt (\S+)", shown[0])
    assert {option.removesuffix("=true") for option in service["security_opt"]} == set(options)
    assert service["cap_add"] == re.findall(r"--cap-add (\S+)", shown[0])
    assert service["cgroup"] == re.findall(r"--cgroupns=(\S+)", shown[0])[0]
    assert "/sys/fs/cgroup:/sys/fs/cgroup:rw" in service["volumes"]
    assert service["image"] in SETUP.read_text()


def test_compose_itself_accepts_the_file() -> None:
    docker = shutil.which("docker")
    command = [str(docker), "compose", "--file", str(COMPOSE), "config", "--quiet"]
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("Docker's Compose plugin is not installed")
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stderr) == (0, "")


def test_every_part_of_the_manifest_is_valid_kubernetes() -> None:
    for part in manifest():
        kubernetes_validate.validate(part, "1.31", strict=True)


def test_the_manifest_carries_the_lockdown_and_the_policy_themselves() -> None:
    assert config_map("sandbox-environment") == lockdown_variables()
    assert config_map("sandbox-policy") == {"acme-prod.toml": POLICY.read_text(), "ops.pub": KEY.read_text()}


def test_the_manifest_mounts_policy_and_key_where_the_variables_look() -> None:
    pod = only("Deployment")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for variable, key in (("SANDBOX_POLICY_PATH", "acme-prod.toml"), ("SANDBOX_POLICY_KEYS", "ops.pub")):
        mount = mounts[lockdown_variables()[variable]]
        assert mount["readOnly"] is True
        assert volumes[mount["name"]]["configMap"]["items"] == [{"key": key, "path": key}]


def test_the_manifest_names_only_what_it_holds() -> None:
    names = {(part["kind"], part["metadata"]["name"]) for part in manifest()}
    pod = only("Deployment")["spec"]["template"]["spec"]
    maps = [source["configMapRef"]["name"] for source in pod["containers"][0]["envFrom"]]
    maps += [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    claims = [
        volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume
    ]
    assert maps
    assert claims
    assert {("ConfigMap", name) for name in maps} | {("PersistentVolumeClaim", name) for name in claims} <= names
    assert only("Service")["spec"]["selector"] == only("Deployment")["spec"]["selector"]["matchLabels"]


def test_the_manifest_gives_what_enforcing_every_limit_takes() -> None:
    container = only("Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["securityContext"] == {"privileged": True}
    assert config_map("sandbox-environment")[REQUIRE_RESOURCE_LIMITING.variable] == "true"


def test_a_policy_mounted_as_kubernetes_mounts_config_maps_loads(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for name, data in config_map("sandbox-policy").items():
        folder = mounted / name.partition(".")[2]
        (folder / "..2026_12_01").mkdir(parents=True)
        (folder / "..2026_12_01" / name).write_text(data)
        (folder / CONFIGMAP_DATA).symlink_to("..2026_12_01")
        (folder / name).symlink_to(f"{CONFIGMAP_DATA}/{name}")
    paths = {
        "SANDBOX_POLICY_PATH": str(mounted / "toml"),
        "SANDBOX_POLICY_KEYS": str(mounted / "pub"),
        "SANDBOX_POLICY_STATE": str(tmp_path / "state"),
    }
    environment = read_environment({**config_map("sandbox-environment"), **paths})
    live = LivePolicy(environment, now=lambda: NOW, reader=trusted_reader())
    assert live.situation().limits()[NETWORKING_ALLOWED] is False


def lockdown_variables() -> dict[str, str]:
    """The variables as Docker, Compose and systemd read such a file: no quotes, no expansion."""
    lines = [line for line in LOCKDOWN.read_text().splitlines() if line and not line.startswith("#")]
    pairs = dict(line.split("=", 1) for line in lines)
    assert len(pairs) == len(lines)
    assert not any(set(text) & set("\"' $") for text in pairs.values())
    return pairs


def situation(folder: Path, *, policy: bytes | None = None, now: datetime = NOW, **variables: str) -> Situation:
    """What holds on a server with the lockdown's variables and the example's policy and key."""
    policies, keys = folder / "policies", folder / "keys"
    for place, name, data in (
        (policies, POLICY.name, policy or POLICY.read_bytes()),
        (keys, KEY.name, KEY.read_bytes()),
    ):
        place.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
    paths = {
        "SANDBOX_POLICY_PATH": str(policies),
        "SANDBOX_POLICY_KEYS": str(keys),
        "SANDBOX_POLICY_STATE": str(folder / "state"),
    }
    environment = read_environment({**lockdown_variables(), **paths, **variables})
    return LivePolicy(environment, now=lambda: now, reader=trusted_reader()).situation()


def loosest_text(name: str) -> str:
    loose = {"network_allowlist": "public", "languages": "python,bash", "max_output_kilobytes": "65536"}
    switches = {"networking_allowed", "auto_install", "network_private_allowed", "debug"}
    if name in switches:
        return "true"
    if name == "require_resource_limiting":
        return "false"
    return loose.get(name) or ("4096" if name == "max_file_megabytes" else "unlimited")


def compose() -> Mapping[str, Any]:
    document: Mapping[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return document


def web(document: Mapping[str, Any]) -> Mapping[str, Any]:
    service: Mapping[str, Any] = document["services"]["open-webui"]
    return service


def split_volume(text: str) -> list[str]:
    return text.split(":")


def in_examples(name: str) -> bool:
    return (EXAMPLES / name).exists()


def manifest() -> Iterator[Mapping[str, Any]]:
    yield from yaml.safe_load_all(MANIFEST.read_text())


def only(kind: str) -> Mapping[str, Any]:
    (found,) = [part for part in manifest() if part["kind"] == kind]
    return found


def config_map(name: str) -> dict[str, str]:
    (found,) = [part["data"] for part in manifest() if part["kind"] == "ConfigMap" and part["metadata"]["name"] == name]
    return dict(found)
