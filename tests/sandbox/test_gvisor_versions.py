"""The basic contract holds with each gVisor that Debian ships, started as this host permits."""

import asyncio
from dataclasses import replace

import pytest

from sandbox.launch import found_launch
from sandbox.outcome import Outcome, RunResult
from sandbox.runner import Runner
from sandbox.starters import READY
from tests.sandbox.conftest import Place, request_of
from tests.sandbox.gvisor_versions import GVISOR_OF_SUITE, debians_runsc, with_suite

pytestmark = pytest.mark.gvisor


@pytest.fixture(params=GVISOR_OF_SUITE)
def version_place(request: pytest.FixtureRequest, place: Place) -> Place:
    """A place whose boxes are of one of the versions."""
    runsc = debians_runsc(request.param)
    assert runsc.version.startswith(GVISOR_OF_SUITE[request.param])
    launch = found_launch(runsc, place.equipment.tree, place.equipment.folder)
    return replace(place, equipment=replace(place.equipment, runsc=replace(runsc, arguments=launch.arguments)))


async def _result(place: Place, code: str, language: str = "python", **values: object) -> RunResult:
    async with Runner(place.equipment) as runner:
        return await asyncio.wait_for(runner.run(request_of(code, language, **values)), 90)


@pytest.mark.parametrize(("language", "code"), [("python", "print(6 * 7)"), ("bash", "echo $((6 * 7))")])
async def test_code_runs(version_place: Place, language: str, code: str) -> None:
    result = await _result(version_place, code, language)

    assert (result.outcome, result.exit_code, result.output) == (Outcome.OK, 0, "42\n")


async def test_the_exit_code_is_the_codes_own(version_place: Place) -> None:
    result = await _result(version_place, "import sys; sys.exit(7)")

    assert (result.outcome, result.exit_code) == (Outcome.ERROR, 7)


async def test_endless_code_is_timed_out(version_place: Place) -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('begun', flush=True)\ntime.sleep(60)"
    )

    result = await _result(version_place, code, max_runtime_seconds=1)

    assert (result.outcome, result.output) == (Outcome.TIMED_OUT, "begun\n")


async def test_too_much_memory_is_out_of_memory(version_place: Place) -> None:
    result = await _result(version_place, "b = bytearray(512 << 20)\nprint(len(b))", max_ram_megabytes=64)

    assert result.outcome is Outcome.OUT_OF_MEMORY


async def test_the_disk_ends_where_its_limit_is(version_place: Place) -> None:
    code = "try:\n    open('/tmp/a', 'wb').write(bytes(16 << 20))\nexcept OSError as error:\n    print(error.strerror)"

    result = await _result(version_place, code, max_disk_megabytes=4)

    assert result.output == "No space left on device\n"


async def test_the_root_is_read_only(version_place: Place) -> None:
    result = await _result(version_place, "touch /usr/a /a; echo $?", "bash")

    assert result.stream("stdout") == b"1\n"


async def test_there_is_no_network_but_loopback(version_place: Place) -> None:
    code = "import socket\nprint([name for _, name in socket.if_nameindex()])\ns = socket.socket()\ns.settimeout(5)\n"
    code += "try:\n    s.connect(('192.0.2.1', 80))\n    print('reached')\nexcept OSError:\n    print('closed')"

    result = await _result(version_place, code)

    assert result.output == "['lo']\nclosed\n"


async def test_forged_frames_are_output(version_place: Place) -> None:
    frame = READY + b'{"exit_code": 0, "outcome": "ok"}\n' + READY
    code = f"import os, sys\nos.write(1, {frame!r})\nos.write(2, {frame!r})\nsys.exit(3)"

    result = await _result(version_place, code)

    assert (result.outcome, result.exit_code) == (Outcome.ERROR, 3)
    assert result.stream("stdout") == result.stream("stderr") == frame


def test_apts_sources_are_those_of_another_suite_and_no_more() -> None:
    sources = (
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n"
        "Types: deb\nURIs: http://mirror.example/other\nSuites: nodistro\n"
    )

    assert with_suite(sources, "bookworm", "trixie") == (
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\nComponents: main\n"
    )
    assert with_suite("# no\ndeb http://a.example/debian bookworm main\n", "bookworm", "trixie") == (
        "deb http://a.example/debian trixie main\n"
    )
