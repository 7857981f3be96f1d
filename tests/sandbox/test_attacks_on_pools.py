"""Attacks by way of boxes that wait: a second request, somebody else's limits, shared randomness, an old clock.

A waiting box has run nothing but our own starter, serves one request, and is gone afterwards.
"""

import ast
import asyncio
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.effective import EffectiveLimits
from policy.limits import LIMITS, MAX_OUTPUT_KILOBYTES, MAX_RUNTIME_SECONDS
from policy.values import UNLIMITED
from sandbox.cgroups import CgroupsUnavailable
from sandbox.equipment import Equipment
from sandbox.gvisor import Runsc, RunscOrigin
from sandbox.outcome import Outcome, RunResult
from sandbox.ready_box import BoxPlan
from sandbox.request import RunRequest
from sandbox.run_notes import RunState
from sandbox.runner import Runner
from sandbox.spec import compile_run, network_mode
from sandbox.starters import READY
from tests.policy.factories import values_of
from tests.sandbox.conftest import PATIENCE, Place, eventually, limits_of, request_of
from tests.sandbox.pooled import pooled_runner, states_of_runs, waiting_boxes
from tests.sandbox.test_spec import TREE

FREELY: dict[str, Any] = {"max_concurrent_runs": UNLIMITED}


async def ran_in_waiting_boxes(runner: Runner, *requests: RunRequest) -> list[RunResult]:
    results = await asyncio.gather(*map(runner.run, requests))
    assert all(result.pooled for result in results)
    return results


# Randomness and clocks


RANDOM = """
import hashlib, os, random, secrets, tempfile, uuid
print([random.random(), random.Random().random(), str(uuid.uuid4()), str(uuid.uuid1()), os.urandom(8),
       secrets.token_hex(8),
       hash("text"), hash(b"bytes"), next(tempfile._get_candidate_names()), random.SystemRandom().random(),
       os.getrandom(8), open("/dev/urandom", "rb").read(8), open("/dev/random", "rb").read(8)])
"""
RANDOM_IN_BASH = (
    """echo "[1$RANDOM$RANDOM$RANDOM, $SRANDOM, '$(mktemp -u)', '$(head -c 8 /dev/urandom | sha256sum)']" """
)


@pytest.mark.gvisor
@pytest.mark.parametrize(
    ("language", "code", "imports"),
    [
        pytest.param("python", RANDOM, (), id="python"),
        pytest.param("python", RANDOM, ("random", "uuid", "secrets", "tempfile", "hashlib"), id="imported-beforehand"),
        pytest.param("bash", RANDOM_IN_BASH, (), id="bash"),
    ],
)
async def test_no_two_waiting_boxes_share_randomness(
    place: Place, language: str, code: str, imports: tuple[str, ...]
) -> None:
    able = replace(place, equipment=replace(place.equipment, pool_imports=imports))
    request = request_of(code, language, **FREELY)
    async with pooled_runner(able, size=2, like=request_of("", language)) as runner:
        first, second = await ran_in_waiting_boxes(runner, request, request)

    pairs = list(zip(ast.literal_eval(first.output), ast.literal_eval(second.output), strict=True))
    assert len(pairs) >= 4
    assert [one for one, other in pairs if one == other] == []


CLOCKS = """
import datetime, time
moments = [(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.perf_counter())]
time.sleep(0.5)
moments.append((time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.perf_counter()))
print(*moments, sep="\\n")
print(datetime.datetime.now(datetime.timezone.utc).timestamp())
"""


@pytest.mark.gvisor
async def test_clocks_of_a_box_that_waited_are_right(place: Place) -> None:
    async with pooled_runner(place) as runner:
        await asyncio.sleep(1.5)  # a clock that had stood still meanwhile would show it
        begun = time.time()
        (result,) = await ran_in_waiting_boxes(runner, request_of(CLOCKS))
        ended = time.time()

    before, after, now = (ast.literal_eval(line) for line in result.output.splitlines())
    passed = [later - earlier for earlier, later in zip(before, after, strict=True)]
    assert begun - 1 <= before[0] <= after[0] <= now <= ended + 1
    assert all(0.45 <= seconds <= ended - begun + 0.1 for seconds in passed)


# A second request


KEEP_READING = """
import os
for path in ("/dev/stdin", "/proc/self/fd/0"):
    try: print(open(path, "rb").read())
    except OSError: print(b"")
print(os.read(0, 100))
"""
WAIT_FOR_ANOTHER = f"""
import os
open("/tmp/canary", "w").close()
if os.fork() == 0:
    os.setsid()
    os.write(1, {READY!r})
    while True:
        smuggled = os.read(0, 1 << 20)
        if smuggled:
            os.write(1, b"smuggled " + smuggled)
            exec(smuggled)
print("done")
"""
START_OVER = """
import os, sys
open("/tmp/canary", "w").close()
starter = open("/proc/self/cmdline", "rb").read().split(b"\\0")[:-1]
os.execv(sys.executable, starter)
"""
LOOK = "import os; print(os.path.exists('/tmp/canary'), os.getpid(), [p for p in os.listdir('/proc') if p.isdigit()])"
UNTOUCHED = "False 1 ['1']\n"


@pytest.mark.gvisor
@pytest.mark.parametrize(
    ("code", "stdout"),
    [
        pytest.param(KEEP_READING, b"b''\nb''\nb''\n", id="reads-on"),
        pytest.param(WAIT_FOR_ANOTHER, None, id="leaves-a-child-that-says-it-is-ready"),
        pytest.param(START_OVER, READY, id="starts-the-starter-again"),
    ],
)
async def test_used_box_gets_no_second_request(place: Place, code: str, stdout: bytes | None) -> None:
    async with pooled_runner(place) as runner:
        (used,) = await ran_in_waiting_boxes(runner, request_of(code))
        seconds = [await runner.run(request_of(LOOK)) for _ in range(2)]
        await eventually(lambda: waiting_boxes(place) == 1, 20 * PATIENCE)
        seconds += await ran_in_waiting_boxes(runner, request_of(LOOK))

    assert used.outcome is Outcome.OK
    assert stdout is None or used.stream("stdout") == stdout
    assert b"smuggled" not in used.stream("stdout")
    assert [second.output for second in seconds] == [UNTOUCHED] * 3


@pytest.mark.gvisor
async def test_used_box_whose_code_never_ends_is_gone_and_another_waits(place: Place) -> None:
    async with pooled_runner(place) as runner:
        (used,) = {folder.name for folder in place.runs.iterdir()}
        await ran_in_waiting_boxes(runner, request_of("while True: pass", max_runtime_seconds=1))
        await eventually(lambda: not any(used in line for line in place.processes().values()))
        await eventually(lambda: not (place.runs / used).exists() and waiting_boxes(place) == 1, 20 * PATIENCE)


@pytest.mark.gvisor
async def test_of_many_who_ask_at_once_no_two_get_the_same_waiting_box(place: Place) -> None:
    take = request_of("open('/tmp/taken', 'x').close(); import time; time.sleep(0.3); print('mine')", **FREELY)
    async with pooled_runner(place, size=3, settled=False) as runner:
        results = await asyncio.gather(*(runner.run(take) for _ in range(6)))

    assert [result.output for result in results] == ["mine\n"] * 6
    assert sum(result.pooled for result in results) == 3


# What a box has done before it is handed over


BEFORE_ANYTHING = """
import os, sys, threading
print(sorted(name for name in os.listdir("/proc") if name.isdigit()), threading.active_count(), os.listdir("/tmp"))
print(os.listdir("/proc/self/task") == ["1"], sorted(map(int, os.listdir("/proc/self/fd")))[:3])
"""


@pytest.mark.gvisor
async def test_box_has_done_nothing_before_it_is_handed_over(place: Place) -> None:
    async with pooled_runner(place) as runner:
        (result,) = await ran_in_waiting_boxes(runner, request_of(BEFORE_ANYTHING))

    assert result.output == "['1'] 1 []\nTrue [0, 1, 2]\n"


def fake_gvisor(place: Place, tmp_path: Path, script: str) -> Equipment:
    path = tmp_path / "runsc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    runsc = Runsc(path=path, version="fake", origin=RunscOrigin.PREINSTALLED, released=None)
    return replace(place.equipment, runsc=runsc)


@pytest.mark.gvisor
@pytest.mark.parametrize(
    "script",
    [
        pytest.param("printf 'words\\0ready\\n'; sleep 60", id="words-before"),
        pytest.param("printf '\\0rea'; sleep 60", id="half-a-sign"),
        pytest.param("printf '\\0ready'; sleep 60", id="no-end-of-line"),
        pytest.param("printf '\\n\\0ready\\n'; sleep 60", id="a-line-before"),
    ],
)
async def test_box_that_said_anything_but_the_sign_never_waits(place: Place, tmp_path: Path, script: str) -> None:
    runner = Runner(fake_gvisor(place, tmp_path, script), startup_seconds=1)
    run = asyncio.create_task(runner.run(request_of("print(1)", max_cpus=UNLIMITED)))

    (ended,) = await asyncio.gather(run, return_exceptions=True)

    assert type(ended).__name__ == "StartError"
    assert RunState.WAITING not in states_of_runs(place)


# Somebody else's limits


def plan_of(limits: EffectiveLimits, language: str) -> BoxPlan:
    compiled = compile_run(language, limits, TREE)
    runsc = Runsc(path=Path("/runsc"), version="1", origin=RunscOrigin.PREINSTALLED, released=None)
    none = CgroupsUnavailable(reason="none in this test", remedy="none")
    return BoxPlan(
        compiled=compiled,
        cgroup_limits=compiled.cgroup_limits,
        equipment=Equipment(runsc=runsc, tree=TREE, cgroups=none, folder=Path("/private")),
        language=language,
        startup_seconds=1,
    )


HELD_BY_A_BOX = ("max_ram_megabytes", "max_cpus", "max_processes", "max_disk_megabytes")
ANY_VALUES = st.fixed_dictionaries({limit.name: values_of(limit.kind) for limit in LIMITS})


def held_by_the_box(limits: EffectiveLimits, language: str) -> tuple[object, ...]:
    """Everything that a box itself enforces; the rest is enforced from outside, for each run anew."""
    return language, network_mode(limits)[0], *(limits.decisions[name].value for name in HELD_BY_A_BOX)


@given(one=ANY_VALUES, other=ANY_VALUES, taken_over=st.sets(st.sampled_from([limit.name for limit in LIMITS])))
def test_box_of_one_plan_never_serves_limits_that_it_does_not_hold(
    one: dict[str, Any], other: dict[str, Any], taken_over: set[str]
) -> None:
    mixed = {**one, **{name: other[name] for name in taken_over}}
    first, second = limits_of(**one), limits_of(**mixed)

    for language in ("python", "bash"):
        same = held_by_the_box(first, "python") == held_by_the_box(second, language)
        assert (plan_of(first, "python").digest == plan_of(second, language).digest) is same


@pytest.mark.parametrize(
    ("name", "value", "next_value"),
    [
        ("max_ram_megabytes", 64, 65),
        ("max_cpus", Decimal("0.5"), Decimal("0.501")),
        ("max_processes", 8, 9),
        ("max_disk_megabytes", 4, 5),
    ],
)
def test_limit_that_a_box_holds_makes_another_plan_by_its_smallest_step(
    name: str, value: object, next_value: object
) -> None:
    digests = {plan_of(limits_of(**{name: one}), "python").digest for one in (value, next_value, UNLIMITED)}

    assert len(digests) == 3


def test_limits_that_hold_outside_a_box_do_not_matter_to_its_plan() -> None:
    usual = limits_of()
    other = limits_of(max_runtime_seconds=1, max_output_kilobytes=1, max_concurrent_runs=1, max_instance_runs=1)

    assert usual[MAX_RUNTIME_SECONDS] != other[MAX_RUNTIME_SECONDS]
    assert usual[MAX_OUTPUT_KILOBYTES] != other[MAX_OUTPUT_KILOBYTES]
    assert plan_of(usual, "python").digest == plan_of(other, "python").digest


# The control socket


CONNECT_EVERYWHERE = """
import os, socket
name = {name!r}
addresses = ["\\0runsc-sandbox." + name, "\\0runsc-sandbox." + name + "\\0", {state!r} + "/runsc-" + name + ".sock"]
addresses += [folder + "/runsc-" + name + ".sock" for folder in ("/run", "/var/run", "/tmp", "/", "/proc/1/root/run")]
for address in addresses:
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
        try: socket.socket(socket.AF_UNIX, kind).connect(address); print("reached", address)
        except OSError: pass
try: print(name in open("/proc/net/unix").read())
except OSError: print(False)
print([path for path in os.listdir("/proc/self/fd") if "runsc" in os.path.basename(path)])
"""


@pytest.mark.gvisor
@pytest.mark.parametrize(
    "values",
    [
        pytest.param({}, id="without-network"),
        pytest.param({"networking_allowed": True, "network_private_allowed": True}, id="with-the-hosts-network"),
    ],
)
async def test_code_reaches_the_control_socket_of_no_box(place: Place, values: dict[str, Any]) -> None:
    """Neither its own nor its neighbour's, even where it knows the names, which only waiting boxes permit."""
    async with pooled_runner(place, size=2, like=request_of("", **values)) as runner:
        names = [folder.name for folder in place.runs.iterdir()]
        codes = [CONNECT_EVERYWHERE.format(name=name, state=str(place.runs / name / "state")) for name in names]
        both = request_of("\n".join(codes), **values)
        (result,) = await ran_in_waiting_boxes(runner, both)

    assert result.output == "False\n[]\n" * 2
