import bz2
import hashlib
import io
import os
import socket
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import DEVNULL, Popen, run
from threading import Thread

import pytest

from sandbox.debian import AptHost, apt_host
from sandbox.errors import InstallError, SandboxError
from sandbox.folders import private_folder
from sandbox.gvisor import (
    Runsc,
    RunscOrigin,
    auto_install_refused,
    find_runsc,
    install_runsc,
    upgraded_runsc,
)
from sandbox.release import ReleaseSource, release_source
from sandbox.runsc_program import offline_arguments, runsc_flags, runsc_version
from tests.sandbox.test_main import NOTHING_SET, sandbox

_MACHINE = os.uname().machine
_UID = os.geteuid()
_FLAGS = """\
  -root string
    \\troot directory for storage of container state.
  -sidecar-usage-policy value
    \\tpolicy for sidecar binaries: STRICT (sidecars must exist). (default DEFAULT)
  -network value
    \\tspecifies which network to use
"""


def _script(version_line: str = "runsc version release-20260810.0", flags: str = "", more: str = "") -> str:
    said = flags.replace("\n", "\\n").replace("'", "")
    return f"#!/bin/sh\n{more}\ncase $1 in --version) echo '{version_line}';; flags) printf '{said}';; esac\n"


_OLD = _script("runsc version 0.0~20221219.0")


@dataclass
class Releases:
    """A folder of releases behind a web server on this host."""

    folder: Path
    url: str
    asked: list[str] = field(default_factory=list)

    def publish(self, *programs: tuple[str, bytes], version: str = "20260810") -> ReleaseSource:
        """Put an archive there and say where to find it."""
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            for name, content in programs:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        archive = bz2.compress(raw.getvalue(), 1)
        place = self.folder / version / _MACHINE
        place.mkdir(parents=True)
        (place / "gvisor.tar.bz2").write_bytes(archive)
        digest = hashlib.sha512(archive).hexdigest()
        return ReleaseSource(url=self.url, version=version, sha512=((_MACHINE, digest),))


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    folder, asked = tmp_path / "releases", list[str]()
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - as the base class has it
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Releases(folder, f"http://127.0.0.1:{server.server_port}", asked)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return private_folder({"HOME": str(tmp_path)}, _UID)


@pytest.fixture
def no_apt(tmp_path: Path) -> AptHost:
    etc = tmp_path / "etc"
    etc.mkdir()
    return AptHost(machine=_MACHINE, etc=etc)


def _programs(script: str = _script(), sidecar: bytes = b"sentry") -> tuple[tuple[str, bytes], ...]:
    return ("runsc", script.encode()), ("gvisor-bin/gvisor_sentry", sidecar)


def _unreachable(min_version: str | None = None) -> ReleaseSource:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return ReleaseSource(url=f"http://127.0.0.1:{port}", min_version=min_version)


def _put(folder: Path, script: str = _script(), mode: int = 0o755) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "runsc"
    path.write_text(script)
    path.chmod(mode)
    return path


def _quietly(_: str) -> None:
    pass


def _find(folder: Path, source: ReleaseSource, path_env: str = "") -> Runsc | None:
    return find_runsc(folder, path_env, source, machine=_MACHINE)


def _leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "gvisor").iterdir() if path.name != ".lock")


def test_release_is_installed_whole_and_found_again(releases: Releases, folder: Path, no_apt: AptHost) -> None:
    source, said = releases.publish(*_programs(_script(flags=_FLAGS))), list[str]()

    installed = install_runsc(folder, source, no_apt, said.append)

    assert installed == Runsc(
        path=folder / "gvisor" / f"20260810-{_MACHINE}" / "runsc",
        version="20260810.0",
        origin=RunscOrigin.RELEASE,
        released=date(2026, 8, 10),
        arguments=("--sidecar-usage-policy=STRICT",),
    )
    assert (installed.path.parent / "gvisor-bin" / "gvisor_sentry").read_bytes() == b"sentry"
    assert _find(folder, source) == installed
    assert _leftovers(folder) == [f"20260810-{_MACHINE}"]
    assert said == [
        f"Downloading gVisor 20260810 ({_MACHINE})…",
        "Unpacking gVisor…",
        "Installed gVisor 20260810.0 (release).",
    ]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (_script("runsc version release-20250101.0"), "it says that it is version 20250101.0, not 20260810"),
        (_script("runsc version release-202608101.0"), "not 20260810"),
        (_script(more="exit 3"), "ended with 3"),
        (_script("hello"), "names no version"),
        ("\x7fELF but not really", "cannot be started"),
    ],
    ids=["other version", "longer version", "fails", "no version", "no program"],
)
def test_release_that_does_not_verify_leaves_nothing_behind(
    releases: Releases, folder: Path, no_apt: AptHost, script: str, reason: str
) -> None:
    with pytest.raises(InstallError, match=reason):
        install_runsc(folder, releases.publish(*_programs(script)), no_apt, _quietly)

    assert _leftovers(folder) == []


def test_refused_release_does_not_fall_back_to_debian(releases: Releases, folder: Path, no_apt: AptHost) -> None:
    said = list[str]()

    with pytest.raises(InstallError, match="HTTP status 404"):
        install_runsc(folder, ReleaseSource(url=releases.url), no_apt, said.append)

    assert not [line for line in said if "Debian" in line]
    assert _leftovers(folder) == []


def test_runsc_starts_with_an_empty_environment(
    releases: Releases, folder: Path, no_apt: AptHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GVISOR_SIDECAR_BINARIES_DIR", "/elsewhere")
    more = 'test -z "$GVISOR_SIDECAR_BINARIES_DIR$HOME$http_proxy" || exit 9'

    assert install_runsc(folder, releases.publish(*_programs(_script(more=more))), no_apt, _quietly)


def test_two_installs_at_once_download_once(releases: Releases, folder: Path, no_apt: AptHost) -> None:
    source = releases.publish(*_programs(sidecar=os.urandom(1 << 20)))

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(install_runsc, folder, source, no_apt, _quietly) for _ in range(4)]
        results = {job.result(timeout=60) for job in jobs}

    assert len(results) == 1
    assert len(releases.asked) == 1


def test_two_processes_install_at_once(releases: Releases, folder: Path) -> None:
    source = releases.publish(*_programs(sidecar=os.urandom(1 << 20)))

    processes = [_installing(folder, source) for _ in range(2)]

    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert len(releases.asked) == 1
    assert _leftovers(folder) == [f"20260810-{_MACHINE}"]


def test_killed_install_leaves_nothing_that_the_next_one_keeps(
    releases: Releases, folder: Path, no_apt: AptHost
) -> None:
    source = releases.publish(*_programs())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = _installing(folder, replace(source, url=f"http://127.0.0.1:{silent.getsockname()[1]}"))
        silent.settimeout(30)
        with silent.accept()[0]:
            half_made = _leftovers(folder)
            process.kill()
            process.wait(timeout=30)

    install_runsc(folder, source, no_apt, _quietly)

    assert [name[:9] for name in half_made] == [".partial-"]
    assert _leftovers(folder) == [f"20260810-{_MACHINE}"]


def _installing(folder: Path, source: ReleaseSource) -> Popen[bytes]:
    """Another process that installs the same."""
    program = (
        "from pathlib import Path; from sandbox.debian import AptHost; from sandbox.gvisor import install_runsc; "
        "from sandbox.release import ReleaseSource; "
        f"install_runsc(Path({str(folder)!r}), ReleaseSource(url={source.url!r}, sha512={source.sha512!r}), "
        f"AptHost(machine={_MACHINE!r}), print)"
    )
    return Popen([sys.executable, "-c", program], stdout=DEVNULL, stderr=DEVNULL)


def test_leftover_of_a_crash_is_removed_by_the_next_install(releases: Releases, folder: Path, no_apt: AptHost) -> None:
    (folder / "gvisor" / ".partial-crashed" / "gvisor-bin").mkdir(parents=True)

    install_runsc(folder, releases.publish(*_programs()), no_apt, _quietly)

    assert _leftovers(folder) == [f"20260810-{_MACHINE}"]


@pytest.mark.parametrize("victim", ["runsc", "gvisor-bin/gvisor_sentry", "installation.json"])
@pytest.mark.parametrize("deed", ["removed", "shortened", "linked"])
def test_damaged_installation_counts_as_missing_and_is_replaced(
    releases: Releases, folder: Path, no_apt: AptHost, victim: str, deed: str
) -> None:
    source = releases.publish(*_programs())
    installed = install_runsc(folder, source, no_apt, _quietly)
    path = installed.path.parent / victim
    content = path.read_bytes()
    path.unlink()
    if deed == "shortened":
        path.write_bytes(content[:-1])
    if deed == "linked":
        path.symlink_to("/bin/true")

    assert _find(folder, source) is None
    assert install_runsc(folder, source, no_apt, _quietly) == installed
    assert _find(folder, source) == installed


def test_other_release_than_the_wanted_one_is_not_used(releases: Releases, folder: Path, no_apt: AptHost) -> None:
    install_runsc(folder, releases.publish(*_programs()), no_apt, _quietly)

    newer = releases.publish(*_programs(_script("runsc version release-20260831.0")), version="20260831.0")

    assert _find(folder, newer) is None


def test_both_out_of_reach_says_both_reasons_and_the_remedy(folder: Path, no_apt: AptHost) -> None:
    with pytest.raises(InstallError) as refusal:
        install_runsc(folder, _unreachable(), no_apt, _quietly)

    assert "out of reach" in refusal.value.reason
    assert "Debian's package runsc" in refusal.value.reason
    assert "apt-get install runsc" in refusal.value.remedy
    assert _leftovers(folder) == []


def test_full_or_closed_disk_is_named(tmp_path: Path, releases: Releases, no_apt: AptHost) -> None:
    (tmp_path / "gvisor").touch()

    with pytest.raises(InstallError, match="cannot be written"):
        install_runsc(tmp_path, releases.publish(*_programs()), no_apt, _quietly)


def test_preinstalled_runsc_on_path_is_found(folder: Path, tmp_path: Path) -> None:
    path = _put(tmp_path / "bin", _script("runsc version 0.0~20221219.0\nspec: 1.0.2-dev"))

    found = _find(folder, ReleaseSource(), f"relative:/nowhere:{path.parent}")

    assert found == Runsc(path=path, version="20221219.0", origin=RunscOrigin.PREINSTALLED, released=date(2022, 12, 19))


def test_own_release_comes_before_a_preinstalled_one(
    releases: Releases, folder: Path, tmp_path: Path, no_apt: AptHost
) -> None:
    source = releases.publish(*_programs())
    installed = install_runsc(folder, source, no_apt, _quietly)

    assert _find(folder, source, str(_put(tmp_path / "bin").parent)) == installed


@pytest.fixture
def old(folder: Path, tmp_path: Path) -> Runsc:
    """A gVisor on this host that can be used, and is older than the release."""
    found = _find(folder, ReleaseSource(), str(_put(tmp_path / "old", _OLD).parent))
    assert found is not None
    return found


def test_older_gvisor_gives_way_to_the_release(releases: Releases, folder: Path, old: Runsc) -> None:
    source = releases.publish(*_programs())

    upgraded = upgraded_runsc(old, folder, source, _MACHINE, _quietly)

    assert (upgraded.version, upgraded.origin) == ("20260810.0", RunscOrigin.RELEASE)
    assert _find(folder, source, str(old.path.parent)) == upgraded
    assert upgraded_runsc(old, folder, source, _MACHINE, _quietly) == upgraded
    assert len(releases.asked) == 1


@pytest.mark.parametrize("version", ["20260810.0", "20260810.1", "20261231.0"])
def test_gvisor_as_new_as_the_release_is_left_alone(
    releases: Releases, folder: Path, tmp_path: Path, version: str
) -> None:
    source = releases.publish(*_programs())
    found = _find(folder, source, str(_put(tmp_path / "bin", _script(f"runsc version {version}")).parent))
    assert found is not None

    assert upgraded_runsc(found, folder, source, _MACHINE, _quietly) is found
    assert releases.asked == []


def test_older_gvisor_stays_where_the_release_host_is_out_of_reach_and_says_so(folder: Path, old: Runsc) -> None:
    said = list[str]()

    assert upgraded_runsc(old, folder, _unreachable(), _MACHINE, said.append) is old

    assert said[-1].startswith("gVisor 20221219.0 stays, since release 20260810 cannot be had: ")
    assert "out of reach" in said[-1]
    assert len([sentence for sentence in said if "stays" in sentence]) == 1
    assert _leftovers(folder) == []


def test_older_gvisor_stays_where_the_release_is_refused(releases: Releases, folder: Path, old: Runsc) -> None:
    said, swapped = list[str](), replace(releases.publish(*_programs()), sha512=((_MACHINE, "0" * 128),))

    assert upgraded_runsc(old, folder, swapped, _MACHINE, said.append) is old

    assert "its SHA-512 is " in said[-1]
    assert _leftovers(folder) == []


def test_silent_release_host_holds_up_an_upgrade_for_seconds_only(folder: Path, old: Runsc) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = ReleaseSource(url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()

        assert upgraded_runsc(old, folder, source, _MACHINE, _quietly) is old

    assert time.monotonic() - begun < 12


def test_sandbox_install_replaces_an_older_gvisor(releases: Releases, old: Runsc, tmp_path: Path) -> None:
    source = releases.publish(*_programs(_script("runsc version release-20260831.0")), version="20260831")
    variables = {"SANDBOX_GVISOR_VERSION": source.version, "SANDBOX_GVISOR_SHA512": source.digest_for(_MACHINE)}
    environ = {**NOTHING_SET, "HOME": str(tmp_path), "PATH": f"{old.path.parent}:/usr/bin:/bin", **variables}

    away = sandbox("install", environ=environ, SANDBOX_GVISOR_URL=_unreachable().url)
    near = sandbox("install", environ=environ, SANDBOX_GVISOR_URL=source.url)

    assert (away.returncode, near.returncode) == (0, 0)
    assert away.stdout.startswith("gVisor 20221219.0 (preinstalled")
    assert "gVisor 20221219.0 stays, since release 20260831 cannot be had: " in away.stderr
    assert near.stdout.startswith("gVisor 20260831.0 (release")


def test_preinstalled_runsc_newer_than_the_release_satisfies_a_newer_minimum(folder: Path, tmp_path: Path) -> None:
    path = _put(tmp_path / "bin", _script("runsc version release-20261231.0"))

    found = _find(folder, release_source(machine=_MACHINE, min_version="20261201"), str(path.parent))

    assert found is not None
    assert found.path == path


def test_minimum_that_no_installation_could_reach_is_told_before_anything_is_fetched(
    folder: Path, no_apt: AptHost
) -> None:
    source, said = replace(_unreachable(), min_version="20261201"), list[str]()

    with pytest.raises(InstallError, match="the release to install, 20260810, is older") as refusal:
        install_runsc(folder, source, no_apt, said.append)

    assert refusal.value.key == auto_install_refused(source, "environment").key == "SANDBOX_GVISOR_MIN_VERSION"
    assert said == []


def test_preinstalled_runsc_below_the_minimum_is_passed_over(folder: Path, tmp_path: Path) -> None:
    old = _put(tmp_path / "old", _script("runsc version 0.0~20221219.0"))
    new = _put(tmp_path / "new", _script("runsc version release-20240729.0"))
    source = ReleaseSource(min_version="20240729")

    found = _find(folder, source, f"{old.parent}:{new.parent}")

    assert found is not None
    assert found.path == new


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_preinstalled_runsc_that_others_can_write_is_refused(folder: Path, tmp_path: Path, mode: int) -> None:
    path = _put(tmp_path / "bin", mode=mode)

    with pytest.raises(InstallError, match=r"can write it|could have put it"):
        _find(folder, ReleaseSource(), str(path.parent))


def test_preinstalled_runsc_in_a_folder_of_everybody_is_refused(folder: Path, tmp_path: Path) -> None:
    path = _put(tmp_path / "bin")
    path.parent.chmod(0o777)

    with pytest.raises(InstallError, match="somebody else could have put it there"):
        _find(folder, ReleaseSource(), str(path.parent))


@pytest.mark.skipif(_UID != 0, reason="only root can give files to somebody else")
def test_preinstalled_runsc_of_somebody_else_is_refused(folder: Path, tmp_path: Path) -> None:
    path = _put(tmp_path / "bin")
    os.chown(path, 54321, -1)

    with pytest.raises(InstallError, match="54321"):
        _find(folder, ReleaseSource(), str(path.parent))


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("runsc version 0.0~20221219.0\nspec: 1.0.2-dev", "20221219.0"),
        ("runsc version release-20240729.0\nspec: 1.1.0-rc.1", "20240729.0"),
        ("runsc version release-20240729.0-43-gabcdef012345", "20240729.0"),
        ("runsc version 20260810", "20260810"),
        ("runsc version VERSION_MISSING", "VERSION_MISSING"),
    ],
)
def test_version_is_read_in_each_of_its_shapes(tmp_path: Path, line: str, version: str) -> None:
    assert runsc_version(_put(tmp_path / "bin", _script(line))) == version


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("  -root string\n", ()),
        (_FLAGS, ("--sidecar-usage-policy=STRICT",)),
        ("  -sidecar-usage-policy value\n    \tDEPRECATED: this flag has no effect\n", ()),
        ("  -download-sidecars value\n    \twhen to download\n", ("--download-sidecars=NEVER",)),
        ("  -other\n    \tsee sidecar-usage-policy\n", ()),
    ],
    ids=["older", "with policy", "deprecated", "with download", "only mentioned"],
)
def test_arguments_against_downloads_are_those_that_it_knows(
    tmp_path: Path, flags: str, arguments: tuple[str, ...]
) -> None:
    assert offline_arguments(runsc_flags(_put(tmp_path / "bin", _script(flags=flags)))) == arguments


def test_a_runsc_that_fails_to_tell_its_flags_knows_none(tmp_path: Path) -> None:
    assert runsc_flags(_put(tmp_path / "bin", "#!/bin/sh\necho '  -root string'; exit 1\n")) == {}


def test_age_counts_days_since_the_release() -> None:
    old = Runsc(path=Path("/x"), version="20221219.0", origin=RunscOrigin.DEBIAN, released=date(2022, 12, 19))

    assert old.age_days(date(2026, 12, 19)) == 1461


def test_refusal_to_install_names_the_variable_and_how_to_pre_install() -> None:
    refusal = auto_install_refused(ReleaseSource(min_version="20240729"), "environment")

    assert isinstance(refusal, SandboxError)
    for words in ("SANDBOX_AUTO_INSTALL", "sandbox install", "apt-get install runsc", "PATH", "20240729"):
        assert words in str(refusal)


@dataclass(frozen=True)
class Installed:
    """Debian's package, installed because the release host is out of reach."""

    folder: Path
    runsc: Runsc
    said: tuple[str, ...]


@pytest.fixture(scope="module")
def debians(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder, said = private_folder({"HOME": str(tmp_path_factory.mktemp("home"))}, _UID), list[str]()
    runsc = install_runsc(folder, _unreachable(), apt_host(_MACHINE, os.environ), said.append)
    return Installed(folder, runsc, tuple(said))


@pytest.mark.gvisor
def test_out_of_reach_release_is_replaced_by_debians_package_that_runs(debians: Installed) -> None:
    assert debians.runsc.origin is RunscOrigin.DEBIAN
    assert _find(debians.folder, _unreachable()) == debians.runsc
    assert debians.said[1] == "The official gVisor release is out of reach, so Debian's package is tried…"
    assert _leftovers(debians.folder) == [debians.runsc.path.parent.name]
    assert _says_hi(debians.runsc, debians.folder / "state")


@pytest.mark.gvisor
def test_debians_package_below_the_minimum_is_refused(folder: Path) -> None:
    with pytest.raises(InstallError, match="SANDBOX_GVISOR_MIN_VERSION is 20260810"):
        install_runsc(folder, _unreachable("20260810"), apt_host(_MACHINE, os.environ), _quietly)

    assert _leftovers(folder) == []


@pytest.mark.gvisor
def test_real_runsc_in_a_release_archive_runs_after_install(
    releases: Releases, folder: Path, no_apt: AptHost, debians: Installed
) -> None:
    real = debians.runsc.path.read_bytes()
    source = releases.publish(("runsc", real), ("gvisor-bin/gvisor_sentry", b"sentry"), version=debians.runsc.version)

    installed = install_runsc(folder, source, no_apt, _quietly)

    assert installed.version == debians.runsc.version
    assert _says_hi(installed, folder / "state")


def _says_hi(runsc: Runsc, state: Path) -> bool:
    """Whether a box of it says so; `do` needs nothing but the host's own files, read-only."""
    command = [
        "/usr/bin/timeout",
        "60",
        str(runsc.path),
        f"--root={state}",
        "--network=none",
        "--ignore-cgroups",
        *runsc.arguments,
    ]
    done = run([*command, "do", "/bin/echo", "hi"], env={}, cwd="/", capture_output=True, check=False, timeout=90)
    return done.returncode == 0 and done.stdout == b"hi\n"
