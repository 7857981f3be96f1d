"""What policy costs: resolving, loading, noticing a change, importing, and `policy verify` as a process."""

import itertools
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, create_model
from pydantic_settings import BaseSettings, SettingsConfigDict

from policy.environment import EnvironmentLayer, read_environment
from policy.keys import PrivateKey, generate_key, public_pem
from policy.limits import LIMITS
from policy.live import LivePolicy
from policy.load import read_set, trusted_reader
from policy.requester import Requester
from policy.settings import POLICY_PATH
from policy.signature_block import split_signatures
from policy.signatures import PAYLOAD_TYPE, add_signature, pre_authentication_encoding
from policy.situation import Situation
from tests.bench.measuring import Row, Sample, against, sample_of, timed, timed_in_turn, with_goal

CALLS = 10_000
PLUGIN = Path(__file__).parents[2] / "plugins" / "generated" / "tools" / "run_code.py"
GROUPS = ("students", "staff", "guests", "research", "it")
PROBE = "import sys, time, pydantic\nbegun = time.perf_counter()\n{what}\nprint(time.perf_counter() - begun)\n"


def policy_rows() -> list[Row]:
    """Every measurement of the policy core."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = generate_key()
        file = _signed_policy(folder, key)
        environment = read_environment(
            {
                "SANDBOX_POLICY_PATH": str(file),
                "SANDBOX_POLICY_KEYS": str(folder / "ops.pub"),
                "SANDBOX_MAX_RAM_MEGABYTES__CEILING": "512",
            }
        )
        return [
            *_resolving_rows(environment),
            *_loading_rows(environment, file, key),
            *_import_rows(),
            *_process_rows(file, folder / "ops.pub"),
        ]


def _resolving_rows(environment: EnvironmentLayer) -> Iterator[Row]:
    built = Row(what="a pydantic-settings class, built for each call", sample=timed([_settings_class_instance] * 1_000))
    settings = _settings_class()
    kept = Row(what="a pydantic-settings class, kept, read for each call", sample=timed([settings] * CALLS))
    documents = _live(environment).situation().documents
    fresh = [Situation(environment=environment, documents=documents) for _ in range(CALLS)]
    asking = _requests()
    calls = [_asked(situation, request) for situation, request in zip(fresh, asking, strict=False)]
    unseen = Row(what="resolve a request not seen before (4 KB policy, 8 scopes)", sample=timed(calls))
    situation = fresh[0]
    few = [_asked(situation, request) for request in itertools.islice(_requests(), 100)]
    for call in few:
        call()
    seen = Row(what="resolve a request seen before", sample=timed([few[index % 100] for index in range(CALLS)]))
    yield built
    yield kept
    yield with_goal(against(unseen, built), "p99 ≤ 1 ms", met=unseen.sample.p99 <= 1e-3)
    yield with_goal(against(seen, built), "p99 ≤ 50 µs", met=seen.sample.p99 <= 50e-6)


def _loading_rows(environment: EnvironmentLayer, file: Path, key: PrivateKey) -> Iterator[Row]:
    data = file.read_bytes()
    split = split_signatures(data, origin="bench")
    message = pre_authentication_encoding(PAYLOAD_TYPE, split.text)
    signature = split.signatures[0].value

    def floor() -> None:
        key.public.verifies(signature, message)
        tomllib.loads(split.text.decode())

    reader, path = trusted_reader(), Path(environment.settings[POLICY_PATH] or "")
    least = Row(what="Ed25519 verification and tomllib alone, of 4 KB", sample=timed([floor] * 2_000))
    load = timed([lambda: read_set(path, environment.settings, reader)] * 2_000)
    status = Row(what="one os.stat", sample=timed([lambda: os.stat(file)] * CALLS))  # noqa: PTH116 -- the floor itself
    live = _live(environment)
    _settle(live)
    yield least
    yield against(Row(what="read, verify and parse a signed 4 KB policy, keys too", sample=load), least)
    yield status
    yield against(Row(what="notice that no file changed", sample=timed([live.situation] * CALLS)), status)


def _import_rows() -> Iterator[Row]:
    """Import times are told by the process itself, after pydantic was loaded."""
    reference = _probed("import pydantic_settings, jsonschema, cryptography.hazmat.primitives.asymmetric.ed25519")
    plugin = _probed(f"exec(compile(open({str(PLUGIN)!r}).read(), 'run_code.py', 'exec'), {{'__name__': 'plugin'}})")
    floor = Row(what="import what the plugin imports, pydantic loaded already", sample=reference)
    yield floor
    yield against(Row(what="import the whole plugin, pydantic loaded already", sample=plugin), floor)


def _process_rows(file: Path, public_key: Path) -> Iterator[Row]:
    policy = str(Path(sys.executable).with_name("policy"))
    verify = [policy, "verify", "--key", str(public_key), str(file)]
    key_class = "cryptography.hazmat.primitives.asymmetric.ed25519"
    ours, floor = timed_in_turn(verify, [sys.executable, "-c", f"import {key_class}"], 20)
    least = Row(what='python -c "import …ed25519", as a process', sample=floor)
    yield least
    yield against(Row(what="policy verify FILE, as a process", sample=ours), least)


def _probed(what: str) -> Sample:
    program = [sys.executable, "-c", PROBE.format(what=what)]
    probes = (subprocess.run(program, check=True, capture_output=True, text=True) for _ in range(12))
    return sample_of([float(probe.stdout) for probe in probes])


def _live(environment: EnvironmentLayer) -> LivePolicy:
    return LivePolicy(environment, reader=trusted_reader(), now=lambda: datetime.now(UTC))


def _settle(live: LivePolicy) -> None:
    """Wait until the files are old enough for a look at them to count."""
    time.sleep(0.1)
    live.situation()


def _asked(situation: Situation, request: tuple[Requester, dict[str, object]]) -> Callable[[], object]:
    requester, valves = request
    return lambda: situation.limits(
        requester=requester, untrusted_person_valves=valves, untrusted_admin_valves={"MAX_CPUS": "2"}
    )


def _requests() -> Iterator[tuple[Requester, dict[str, object]]]:
    """Requests that all differ."""
    for number in itertools.count(1):
        groups = frozenset(GROUPS[: number % len(GROUPS)])
        requester = Requester(role="user", groups=groups, user=f"user-{number}", model="llama", surface="tool")
        yield requester, {"MAX_RUNTIME_SECONDS": number % 600 + 1, "NETWORKING_ALLOWED": True, "LANGUAGES": "python"}


def _settings_class() -> type[BaseSettings]:
    """What a plugin that knew only pydantic-settings would have for the same limits."""
    fields: dict[str, Any] = {limit.name: (str | None, Field(default=None)) for limit in LIMITS}
    base = type("Base", (BaseSettings,), {"model_config": SettingsConfigDict(env_prefix="SANDBOX_")})
    return create_model("Settings", __base__=base, **fields)


def _settings_class_instance() -> BaseSettings:
    return _settings_class()()


def _signed_policy(folder: Path, key: PrivateKey) -> Path:
    """A policy of 4 KB with scopes, signed, and its public key beside it."""
    scopes = "".join(
        f"""
[[scope]]
match.groups = ["{group}"]
except.roles = ["admin"]
limits.max_runtime_seconds.ceiling = {10 + number}
limits.max_ram_megabytes.ceiling = {64 + number}
limits.networking_allowed.ceiling = false
"""
        for number, group in enumerate((*GROUPS, "a", "b", "c"))
    )
    limits = "".join(
        f"""
[limits.{name}]
default = {default}
ceiling = {ceiling}
reason = "shared host, see the operations handbook"
"""
        for name, default, ceiling in (
            ("max_runtime_seconds", 30, 60),
            ("max_ram_megabytes", 128, 512),
            ("max_processes", 32, 64),
            ("max_disk_megabytes", 32, 64),
            ("max_output_kilobytes", 128, 256),
        )
    )
    head = """schema = 1
id = "bench"
serial = 1
issued_at = 2020-01-01T00:00:00Z
expires_at = 9999-01-01T00:00:00Z
audience = ["*"]

[limits]
auto_install = false
network_allowlist = ["example.com", "*.example.org:443", "192.0.2.0/24"]
"""
    text = f"{head}{limits}{scopes}"
    filled = text + "# padding to the size of a policy in use\n" * ((4096 - len(text)) // 41)
    file = folder / "bench.toml"
    file.write_bytes(add_signature(filled.encode(), key, origin="bench.toml"))
    (folder / "ops.pub").write_bytes(public_pem(key.public))
    return file
