"""The command `sandbox` as people and scripts meet it: exit codes, words, JSON; never a traceback of ours.

Each test runs the real command in a process of its own. Goldens of `--help` lie in `goldens/help-*.txt`; after an
intended change write them anew with `WRITE_GOLDENS=1`, and review the difference.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from policy.limits import LIMITS
from sandbox.cgroup_discovery import find_cgroup_parent
from sandbox.cgroup_places import CgroupController
from sandbox.cgroups import CgroupParent
from sandbox.leases import remove_leftovers
from sandbox.main import main
from sandbox.probes import PROBES
from tests.policy.factories import text_of
from tests.sandbox.conftest import GONE_SECONDS, command_lines_with
from tests.sandbox.test_session import NEVER_RELEASED

GOLDENS = Path(__file__).parent / "goldens"
SANDBOX = (sys.executable, "-c", "from sandbox.main import main; main()")
QUIET = {"SANDBOX_NETWORKING_ALLOWED": "false"}
NOTHING_SET = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
MEASURING = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


def sandbox(
    *arguments: str | Path, code: str | bytes = "", environ: Mapping[str, str] = NOTHING_SET, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end; it must never show a frame of ours."""
    done = subprocess.run(
        [*SANDBOX, *arguments],
        input=code if isinstance(code, bytes) else code.encode(),
        capture_output=True,
        env={**MEASURING, **environ, **variables},
        timeout=60,
        check=False,
    )
    assert b'File "/' not in done.stderr
    assert b"internal error" not in done.stderr
    out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def boxes(environ: Mapping[str, str]) -> list[str]:
    return list(command_lines_with(f"{environ['XDG_CACHE_HOME']}/sandbox-lockdown/runs/").values())


def holds(condition: Callable[[], bool], within_seconds: float) -> bool:
    deadline = time.monotonic() + within_seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def gone(environ: Mapping[str, str]) -> bool:
    return holds(lambda: not boxes(environ), GONE_SECONDS)


def runs_of(environ: Mapping[str, str]) -> Path:
    return Path(environ["XDG_CACHE_HOME"], "sandbox-lockdown", "runs")


@contextmanager
def endless(environ: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """The command with endless code, once its box has started; what it leaves behind is removed at the end."""
    pipe, variables = subprocess.PIPE, {**MEASURING, **environ, **QUIET}
    with subprocess.Popen([*SANDBOX, "run"], stdin=pipe, stdout=pipe, stderr=pipe, env=variables) as process:
        assert process.stdin is not None
        process.stdin.write(b"while True: pass")
        process.stdin.close()
        process.stdin = None
        try:
            assert holds(lambda: any(line.startswith("runsc-sandbox") for line in boxes(environ)), 20)
            time.sleep(0.2)
            yield process
        finally:
            process.kill()
            process.wait()
            asyncio.run(remove_leftovers(runs_of(environ), find_cgroup_parent()))


# Code that runs


@pytest.mark.gvisor
@pytest.mark.parametrize(
    ("arguments", "code", "exit_code", "output"),
    [
        pytest.param((), "print(6 * 7)", 0, "42\n", id="python"),
        pytest.param(("-",), "print('é€😀')", 0, "é€😀\n", id="dash"),
        pytest.param(("--language", "bash"), "echo $((6 * 7)); exit 7", 7, "42\n", id="bash"),
        pytest.param((), "import os; os.kill(os.getpid(), 11)", 139, "", id="signal"),
        pytest.param((), "", 0, "", id="empty"),
    ],
)
def test_output_and_exit_code_are_the_codes_own(
    environ: Mapping[str, str], arguments: tuple[str, ...], code: str, exit_code: int, output: str
) -> None:
    done = sandbox("run", *arguments, code=code, environ=environ, **QUIET)

    assert (done.returncode, done.stdout, done.stderr) == (exit_code, output, "")


@pytest.mark.gvisor
def test_both_streams_of_the_code_go_where_they_belong(environ: Mapping[str, str]) -> None:
    done = sandbox("run", code="print('out')\n1 / 0", environ=environ, **QUIET)

    assert (done.returncode, done.stdout) == (1, "out\n")
    assert done.stderr.splitlines()[0].startswith("Traceback")
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.gvisor
@pytest.mark.parametrize(("name", "code"), [("hello.py", "print('hello')"), ("hello.sh", "echo hello")])
def test_a_file_runs_in_the_language_of_its_name(
    environ: Mapping[str, str], tmp_path: Path, name: str, code: str
) -> None:
    (tmp_path / name).write_text(code)

    assert sandbox("run", tmp_path / name, environ=environ, **QUIET).stdout == "hello\n"


@pytest.mark.gvisor
@pytest.mark.parametrize(
    ("arguments", "code", "exit_code", "note"),
    [
        pytest.param(
            ("--valve", "MAX_RUNTIME_SECONDS=1"),
            "while True: pass",
            124,
            "note: Python code was stopped after 1 second, its runtime limit.",
            id="timed-out",
        ),
        pytest.param(
            ("--valve", "MAX_RAM_MEGABYTES=64"),
            "b = bytearray(256 << 20)",
            137,
            "note: Python code was stopped at 64 megabytes, its RAM limit.",
            id="out-of-memory",
        ),
        pytest.param(
            ("--valve", "MAX_OUTPUT_KILOBYTES=1"),
            "print('x' * 5000)",
            0,
            "note: Output was cut after 1 kilobytes.",
            id="truncated",
        ),
    ],
)
def test_a_limit_that_bit_shows_in_exit_code_and_note(
    environ: Mapping[str, str], arguments: tuple[str, ...], code: str, exit_code: int, note: str
) -> None:
    done = sandbox("run", *arguments, code=code, environ=environ, **QUIET)

    assert (done.returncode, done.stderr) == (exit_code, f"{note}\n")


@pytest.mark.gvisor
def test_json_holds_the_record_and_the_output(environ: Mapping[str, str]) -> None:
    done = sandbox("run", "--json", code="print('é'); exit(3)", environ=environ)
    record = json.loads(done.stdout)

    assert done.returncode == 3
    assert list(record) == [
        "outcome",
        "surface",
        "language",
        "code_sha256",
        "exit_code",
        "truncated",
        "notices",
        "unenforced",
        "limits_digest",
        "policies",
        "policy_refusal",
        "ended_by_administrator",
        "gvisor",
        "box_digest",
        "pooled",
        "queue_seconds",
        "startup_seconds",
        "wall_seconds",
        "cpu_seconds",
        "peak_memory_bytes",
        "network",
        "audit_hash",
        "output",
    ]
    assert (record["outcome"], record["exit_code"], record["output"]) == ("error", 3, "é\n")
    assert record["notices"] == []


@pytest.mark.gvisor
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_command_ends_the_box_tidies_up_and_says_nothing_of_our_insides(
    environ: Mapping[str, str], number: signal.Signals
) -> None:
    with endless(environ) as process:
        process.send_signal(number)
        _, words = process.communicate(timeout=10)

        assert process.returncode == 137
        assert b'File "/' not in words
        assert boxes(environ) == []
        assert list(runs_of(environ).iterdir()) == []


@pytest.mark.gvisor
def test_a_killed_command_ends_its_box_and_the_next_run_tidies_up(environ: Mapping[str, str]) -> None:
    cgroups = find_cgroup_parent()
    assert isinstance(cgroups, CgroupParent)
    with endless(environ) as process:
        (name,) = [folder.name for folder in runs_of(environ).iterdir()]
        left = [place.folder for place in cgroups.run_cgroup(name).places]
        assert all(folder.exists() for folder in left)

        process.kill()
        process.wait(10)

        assert gone(environ)
        assert sandbox("run", code="print(1)", environ=environ, **QUIET).stdout == "1\n"
        assert list(runs_of(environ).iterdir()) == []
        assert not any(folder.exists() for folder in left)


# Refusals


@pytest.mark.gvisor
def test_one_run_more_than_permitted_is_refused_as_busy(environ: Mapping[str, str]) -> None:
    one = {**environ, "SANDBOX_MAX_CONCURRENT_RUNS": "1", "SANDBOX_QUEUE_SIZE": "0"}
    with endless(one):
        done = sandbox("run", code="print(1)", environ=one)

    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("error: max_concurrent_runs (SANDBOX_MAX_CONCURRENT_RUNS): as many runs")
    assert gone(environ)


@pytest.mark.gvisor
def test_a_missing_gvisor_that_may_not_be_installed_is_refused_with_how_to(environ: Mapping[str, str]) -> None:
    done = sandbox("run", code="print(1)", environ=environ, SANDBOX_AUTO_INSTALL="false", **NEVER_RELEASED)

    assert done.returncode == 125
    assert "SANDBOX_AUTO_INSTALL" in done.stderr
    assert "sandbox install" in done.stderr


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        pytest.param({"SANDBOX_MAX_CPUS": ""}, "SANDBOX_MAX_CPUS: it is set but empty", id="empty"),
        pytest.param({"SANDBOX_MAX_RAM_MEGABYTES": "lots"}, "'lots'", id="malformed"),
        pytest.param({"SANDBOX_MAX_RUNTIME_SECOND": "5"}, "SANDBOX_MAX_RUNTIME_SECONDS", id="near-miss"),
        pytest.param(
            {"SANDBOX_POLICY_PATH": "/nonexistent/acme.toml", "SANDBOX_POLICY_UNSIGNED_ALLOWED": "true"},
            "/nonexistent/acme.toml",
            id="missing-policy",
        ),
        pytest.param({"SANDBOX_POLICY_REQUIRED": "true"}, "SANDBOX_POLICY_PATH", id="policy-required"),
        pytest.param({"SANDBOX_LANGUAGES": "none"}, "languages (SANDBOX_LANGUAGES)", id="no-language"),
    ],
)
def test_a_refusal_by_policy_or_environment_names_the_thing_and_exits_125(
    variables: dict[str, str], words: str
) -> None:
    done = sandbox("run", code="print(1)", environ={**NOTHING_SET, **variables})

    assert (done.returncode, done.stdout) == (125, "")
    assert words in done.stderr
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param(b"x = 1\nprint('\x00')", "it holds a NUL character in line 2. Remove the character", id="NUL"),
        pytest.param(b"#" * (10 << 20), "it has more than 1048576 bytes. Shorten it", id="10-MiB"),
        pytest.param(b"x\n\xff\xfe", "it is not UTF-8 in line 2. Save it as UTF-8", id="not-UTF-8"),
        pytest.param("\ud800".encode(errors="surrogatepass"), "it is not UTF-8 in line 1", id="half-a-pair"),
    ],
)
def test_code_that_cannot_run_is_refused_with_line_and_remedy(code: bytes, words: str) -> None:
    done = sandbox("run", code=code)

    assert (done.returncode, done.stdout) == (125, "")
    assert words in done.stderr
    assert len(done.stderr) < 300


def test_a_file_that_cannot_be_read_is_refused_with_its_name(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.py", "No such file or directory"), (tmp_path, "Is a directory")):
        done = sandbox("run", path)

        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.startswith(f"error: {path} (command line): it cannot be read: {reason}. ")


def test_a_closed_standard_input_is_refused() -> None:
    command = ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *SANDBOX, "run"]
    done = subprocess.run(command, capture_output=True, env=NOTHING_SET, text=True, timeout=30, check=False)

    assert done.returncode == 125
    assert done.stderr == (
        "error: standard input (command line): it is closed. Name a file, or give code on standard input.\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--nope"),
        ("run", "one.py", "two.py"),
        ("run", "--language", "ruby"),
        ("run", "--valve", "MAX_CPUS"),
        ("run", "--valve", "NO_SUCH_VALVE=1"),
        ("run", "--surface", "page"),
        ("run", "--group", "students", "--no-group"),
        ("doctor", "--nope"),
        ("install", "now"),
        ("ps", "now"),
        ("kill",),
        ("kill", "3f2a", "--all"),
        ("kill", "--person", "4f1c", "--waiting"),
        ("nosuch",),
        ("--nope",),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_and_points_to_help(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert "Usage: sandbox" in err
    assert "Error: " in err


@pytest.mark.parametrize("command", ["doctor", "install"])
def test_a_malformed_environment_is_a_no_for_the_other_commands(command: str) -> None:
    done = sandbox(command, SANDBOX_MAX_CPUS="many")

    assert done.returncode == 1
    assert "SANDBOX_MAX_CPUS" in done.stdout + done.stderr


def test_a_foreign_variable_is_warned_of(tmp_path: Path) -> None:
    done = sandbox("run", tmp_path / "none.py", SANDBOX_ZEBRA_COLOUR="striped")
    refused = sandbox("run", code="print(1)", SANDBOX_ZEBRA_COLOUR="striped", SANDBOX_LANGUAGES="none")

    assert "ZEBRA" not in done.stderr  # nothing was read of the environment yet
    assert refused.stderr.startswith("warning: ")
    assert "SANDBOX_ZEBRA_COLOUR" in refused.stderr


# Who the run is for


def school(folder: Path) -> dict[str, str]:
    """Variables that name a policy under which students may run nothing, nobody but them Bash, and a tool no Python."""
    now = datetime.now(UTC).replace(microsecond=0)
    dates = {"issued_at": now - timedelta(hours=1), "expires_at": now + timedelta(days=1)}
    scopes = [
        {"match": {"groups": ["students"]}, "limits": {"languages": []}},
        {"match": {"surface": "tool"}, "limits": {"languages": ["bash"]}},
    ]
    path = folder / "acme.toml"
    path.write_text(text_of({"networking_allowed": False}, audience=["*"], scope=scopes, **dates))
    path.chmod(0o600)
    return {"SANDBOX_POLICY_PATH": str(path), "SANDBOX_POLICY_UNSIGNED_ALLOWED": "true"}


@pytest.mark.parametrize(
    ("arguments", "permitted"),
    [
        ((), "none"),
        (("--group", "students", "--surface", "function"), "none"),
        (("--no-group", "--surface", "tool"), "bash"),
        (("--group", "staff", "--group", "parents"), "bash"),
    ],
    ids=lambda value: " ".join(value) or "nothing said" if isinstance(value, tuple) else value,
)
def test_scopes_hold_as_for_the_person_described(tmp_path: Path, arguments: tuple[str, ...], permitted: str) -> None:
    done = sandbox("run", *arguments, code="print(1)", environ=school(tmp_path))

    assert done.returncode == 125
    assert f"python is not among the permitted languages ({permitted})" in done.stderr


@pytest.mark.gvisor
def test_person_of_whom_no_scope_speaks_runs_what_everybody_may(environ: Mapping[str, str], tmp_path: Path) -> None:
    who = ("--no-group", "--surface", "function")

    done = sandbox("run", *who, code="print(6 * 7)", environ=environ, **school(tmp_path))

    assert (done.returncode, done.stdout) == (0, "42\n")


# Help, doctor, install


@pytest.mark.parametrize("command", ["", "run", "doctor", "install", "ps", "kill"])
def test_help_reads_as_its_golden(command: str) -> None:
    golden = GOLDENS / f"help-{command or 'sandbox'}.txt"
    done = sandbox(*command.split(), "--help")
    if os.environ.get("WRITE_GOLDENS"):
        golden.write_text(done.stdout)

    assert (done.returncode, done.stdout, done.stderr) == (0, golden.read_text(), "")


def test_the_version_is_told() -> None:
    done = sandbox("--version")

    assert done.returncode == 0
    assert done.stdout.startswith("sandbox, version ")


@pytest.mark.gvisor
def test_doctor_proves_every_limit_and_says_so_as_json(environ: Mapping[str, str]) -> None:
    done = sandbox("doctor", "--json", environ=environ)
    checks = json.loads(done.stdout)["checks"]

    assert (done.returncode, done.stderr) == (0, "")
    assert {limit.name for limit in LIMITS} <= {check["name"] for check in checks}
    assert all(list(check) == ["name", "verdict", "detail", "remedy"] for check in checks)
    assert {check["verdict"] for check in checks} <= {"ok", "warning"}
    assert [check["name"] for check in checks if check["detail"].startswith("proved: ")] == [
        *(probe.limit for probe in PROBES),
        "SANDBOX_NETWORK_MODE=proxy",
    ]
    assert all(check["remedy"] for check in checks if check["verdict"] == "warning")


@pytest.mark.gvisor
def test_doctor_warns_of_a_refused_policy_set_in_whose_place_the_last_good_one_holds(
    environ: Mapping[str, str], tmp_path: Path
) -> None:
    variables = {**school(tmp_path), **NEVER_RELEASED, "SANDBOX_POLICY_STATE": str(tmp_path / "state")}
    accepted = json.loads(sandbox("doctor", "--json", environ=environ, **variables).stdout)
    file = Path(variables["SANDBOX_POLICY_PATH"])
    file.write_text(f"{file.read_text()}\n# another text under the same serial\n")

    refused = json.loads(sandbox("doctor", "--json", environ=environ, **variables).stdout)

    verdicts = [next(check for check in told["checks"] if check["name"] == "policy") for told in (accepted, refused)]
    assert [verdict["verdict"] for verdict in verdicts] == ["ok", "warning"]
    assert "[serial-conflict]" in verdicts[1]["detail"]
    assert "policy status" in verdicts[1]["remedy"]


@pytest.fixture
def bare(tmp_path: Path) -> Mapping[str, str]:
    """An environment with a private folder of its own in which nothing is, and a newest gVisor that starts nothing."""
    runsc = tmp_path / "bin" / "runsc"
    runsc.parent.mkdir()
    runsc.write_text("#!/bin/sh\necho 'runsc version release-20261231.0'\n")
    runsc.chmod(0o755)
    return {"PATH": f"{runsc.parent}:/usr/bin:/bin", "HOME": str(tmp_path)}


def told_by_doctor(environ: Mapping[str, str], **variables: str) -> Mapping[str, Mapping[str, str]]:
    """The doctor's checks by name, where some failed."""
    done = sandbox("doctor", "--json", environ=environ, **variables)
    assert done.returncode == 1
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


CGROUP_CHECKS = {f"cgroup {controller.value}" for controller in CgroupController}


def test_doctor_installs_nothing_and_tells_of_the_host_what_it_can(bare: Mapping[str, str]) -> None:
    checks = told_by_doctor(bare, **NEVER_RELEASED)

    assert checks["gVisor"]["verdict"] == "failed"
    assert checks["gVisor"]["remedy"].startswith("Run `sandbox install`")
    assert "SANDBOX_AUTO_INSTALL" not in checks
    assert set(checks) >= {"policy", *CGROUP_CHECKS}


def test_doctor_shows_gvisor_and_cgroups_beside_a_bad_folder_of_packages(bare: Mapping[str, str]) -> None:
    checks = told_by_doctor(bare, SANDBOX_PACKAGES_PATH="/nonexistent/packages")

    assert checks["SANDBOX_PACKAGES_PATH"]["verdict"] == "failed"
    assert checks["gVisor"]["detail"].startswith("20261231.0 (preinstalled")
    assert set(checks) >= CGROUP_CHECKS


def test_doctor_shows_cgroups_beside_a_bad_policy(bare: Mapping[str, str]) -> None:
    checks = told_by_doctor(bare, SANDBOX_POLICY_REQUIRED="true")

    assert checks["policy"]["verdict"] == "failed"
    assert set(checks) >= CGROUP_CHECKS


def test_doctor_takes_a_bad_setting_of_gvisor_for_what_it_is(bare: Mapping[str, str]) -> None:
    checks = told_by_doctor(bare, SANDBOX_GVISOR_VERSION="20260810")

    assert checks["SANDBOX_GVISOR_VERSION"]["verdict"] == "failed"
    assert set(checks) >= CGROUP_CHECKS


def test_a_minimum_above_the_release_is_refused_only_where_no_gvisor_reaches_it(bare: Mapping[str, str]) -> None:
    minimum = {"SANDBOX_GVISOR_MIN_VERSION": "20261201"}
    reached = told_by_doctor(bare, **minimum)
    beyond = told_by_doctor(bare, SANDBOX_GVISOR_MIN_VERSION="20991231")

    assert reached["gVisor"]["detail"].startswith("20261231.0 (preinstalled")
    assert beyond["gVisor"]["remedy"].startswith("Set SANDBOX_GVISOR_VERSION and SANDBOX_GVISOR_SHA512")


def test_install_leaves_a_gvisor_alone_that_is_as_new_as_the_release(bare: Mapping[str, str]) -> None:
    done = sandbox("install", environ=bare, SANDBOX_AUTO_INSTALL="false")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("gVisor 20261231.0 (preinstalled, ")


@pytest.mark.parametrize(("typed", "near"), [("dcotor", "doctor"), ("instal", "install")])
def test_a_misspelt_command_is_told_which_one_is_near(typed: str, near: str) -> None:
    done = sandbox(typed)

    assert done.returncode == 2
    assert f"No such command '{typed}'. Did you mean '{near}'?" in done.stderr


def test_a_command_that_is_near_none_is_only_said_not_to_be_there() -> None:
    done = sandbox("zzz")

    assert (done.returncode, "Did you mean" in done.stderr) == (2, False)
