import bz2
import hashlib
import io
import re
import socket
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from sandbox.errors import InstallError
from sandbox.release import (
    DownloadLimits,
    OutOfReachError,
    ReleaseSource,
    release_below_minimum,
    release_source,
    unpack_release,
    version_reaches,
)

_MACHINE = "x86_64"
_LIMITS = DownloadLimits(archive_bytes=1 << 20, unpacked_bytes=1 << 21, members=8, seconds=20.0)
_HEX = "ab" * 64

_TYPES = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "fifo": tarfile.FIFOTYPE}


def _member(name: str, content: bytes = b"#!/bin/sh\n", mode: int = 0o4777) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uid = len(content), mode, 54321
    return info, content


def _special(name: str, kind: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = _TYPES[kind], "/etc/passwd"
    return info, b""


def _archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return bz2.compress(raw.getvalue())


_GOOD = (
    _member("./runsc", b"runsc"),
    _member("containerd-shim-runsc-v1"),
    _member("gvisor-bin/gvisor_sentry", b"sentry"),
)


class _Server(ThreadingHTTPServer):
    respond: Callable[[BaseHTTPRequestHandler], None]
    paths: list[str]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        server = self.server
        assert isinstance(server, _Server)
        server.paths.append(self.path)
        server.respond(self)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        pass


@contextmanager
def _serving(respond: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[str]]]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.respond, server.paths = respond, []
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/releases", server.paths
        finally:
            server.shutdown()
            thread.join()


def _body(content: bytes, *, status: int = 200, length: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    def respond(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(content) if length is None else length))
        request.end_headers()
        request.wfile.write(content)

    return respond


def _redirect(target: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def respond(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return respond


def _endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(bytes(1 << 16))
    except OSError:
        pass  # the client had enough


def _not_http(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")


def _source(url: str, archive: bytes) -> ReleaseSource:
    digest = hashlib.sha512(archive).hexdigest()
    return ReleaseSource(url=url, version="20260810", sha512=((_MACHINE, digest),), limits=_LIMITS)


def _unpacked(into: Path, archive: bytes, respond: Callable[[BaseHTTPRequestHandler], None] | None = None) -> list[str]:
    with _serving(respond or _body(archive)) as (url, paths):
        unpack_release(_source(url, archive), _MACHINE, into, lambda _: None)
        return paths


def test_archive_gives_runsc_and_sidecars_and_leaves_the_rest(tmp_path: Path) -> None:
    paths = _unpacked(tmp_path, _archive(*_GOOD))

    assert paths == ["/releases/20260810/x86_64/gvisor.tar.bz2"]
    assert (tmp_path / "runsc").read_bytes() == b"runsc"
    assert (tmp_path / "gvisor-bin" / "gvisor_sentry").read_bytes() == b"sentry"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gvisor-bin", "runsc"]


def test_unpacked_programs_lose_setuid_and_writability(tmp_path: Path) -> None:
    _unpacked(tmp_path, _archive(*_GOOD))

    assert (tmp_path / "runsc").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("status", [404, 403, 500])
def test_error_page_is_never_taken_for_the_archive(tmp_path: Path, status: int) -> None:
    archive = _archive(*_GOOD)

    with pytest.raises(InstallError, match=f"HTTP status {status}") as refusal:
        _unpacked(tmp_path, archive, _body(archive, status=status))

    assert not isinstance(refusal.value, OutOfReachError)
    assert not list(tmp_path.iterdir())


def test_archive_with_another_hash_is_not_even_decompressed(tmp_path: Path) -> None:
    swapped = _archive(_member("runsc", b"swapped"), *_GOOD[1:])

    with pytest.raises(InstallError, match="SHA-512") as refusal:
        _unpacked(tmp_path, _archive(*_GOOD), _body(swapped))

    assert not isinstance(refusal.value, OutOfReachError)
    assert not (tmp_path / "runsc").exists()


def test_archive_cut_short_says_how_much_came(tmp_path: Path) -> None:
    archive = _archive(*_GOOD)
    cut = archive[:100]

    with pytest.raises(InstallError, match=rf"ended after 100 of {len(archive)} bytes"):
        _unpacked(tmp_path, archive, _body(cut, length=len(archive)))


def test_announced_size_past_the_cap_is_refused_before_it_comes(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="past 1048576"):
        _unpacked(tmp_path, b"", _body(b"x", length=1 << 40))


def test_endless_body_is_cut_at_the_cap(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="goes on past 1048576 bytes"):
        _unpacked(tmp_path, b"", _endless)

    assert (tmp_path / "gvisor.tar.bz2").stat().st_size <= 1 << 20


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:9/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "//127.0.0.1:9/"]
)
def test_redirect_away_from_https_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(InstallError, match="HTTP status 302") as refusal:
        _unpacked(tmp_path, b"", _redirect(target))

    assert not isinstance(refusal.value, OutOfReachError)


def test_redirect_to_https_is_followed(tmp_path: Path) -> None:
    with pytest.raises(OutOfReachError):
        _unpacked(tmp_path, b"", _redirect("https://127.0.0.1:9/elsewhere"))


def test_answer_that_is_not_http_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="does not speak HTTP") as refusal:
        _unpacked(tmp_path, b"", _not_http)

    assert not isinstance(refusal.value, OutOfReachError)


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (_special("gvisor-bin/link", "link"), "no regular file"),
        (_special("runsc", "hard"), "no regular file"),
        (_special("gvisor-bin/device", "device"), "no regular file"),
        (_special("elsewhere", "fifo"), "no regular file"),
        (_member("../escape"), "unsafe name"),
        (_member("gvisor-bin/../../escape"), "unsafe name"),
        (_member("/absolute"), "unsafe name"),
        (_member("gvisor-bin/\x1b[31m"), "unsafe name"),
        (_member("runsc"), "twice"),
    ],
    ids=["symlink", "hardlink", "device", "fifo", "dotdot", "inner dotdot", "absolute", "control", "twice"],
)
def test_archive_with_an_unsafe_member_is_refused(
    tmp_path: Path, member: tuple[tarfile.TarInfo, bytes], reason: str
) -> None:
    into = tmp_path / "into"
    into.mkdir()

    with pytest.raises(InstallError, match=reason):
        _unpacked(into, _archive(*_GOOD, member))

    assert [path.name for path in tmp_path.iterdir()] == ["into"]


@pytest.mark.parametrize(
    "members", [_GOOD[:2], _GOOD[1:], (_member("README"),)], ids=["no sidecars", "no runsc", "neither"]
)
def test_archive_without_runsc_or_sidecars_is_refused(
    tmp_path: Path, members: tuple[tuple[tarfile.TarInfo, bytes], ...]
) -> None:
    with pytest.raises(InstallError, match="lacks runsc, or the programs in gvisor-bin"):
        _unpacked(tmp_path, _archive(*members))


def test_archive_that_unpacks_past_the_cap_is_refused(tmp_path: Path) -> None:
    bomb = _archive(*_GOOD, _member("zeros", bytes(3 << 20)))
    assert len(bomb) < 10_000

    with pytest.raises(InstallError, match="unpacks to more than"):
        _unpacked(tmp_path, bomb)


def test_archive_with_too_many_members_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="more than 8 members"):
        _unpacked(tmp_path, _archive(*_GOOD, *(_member(f"file{number}") for number in range(8))))


@pytest.mark.parametrize("broken", [b"no bzip2 at all", bz2.compress(b"no tar" * 200)], ids=["bzip2", "tar"])
def test_archive_of_another_format_is_refused(tmp_path: Path, broken: bytes) -> None:
    with pytest.raises(InstallError, match="official release is refused"):
        _unpacked(tmp_path, broken)


def test_refused_connection_is_out_of_reach(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(OutOfReachError, match="out of reach"):
        unpack_release(_source(f"http://127.0.0.1:{port}", b""), _MACHINE, tmp_path, lambda _: None)


def test_connection_closed_without_an_answer_is_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(OutOfReachError):
        _unpacked(tmp_path, b"", lambda _: None)


def test_host_that_does_not_answer_in_time_is_out_of_reach_and_its_late_answer_is_closed(tmp_path: Path) -> None:
    asked, late, closed = Event(), Event(), Event()

    def respond(request: BaseHTTPRequestHandler) -> None:
        asked.set()
        assert late.wait(30)
        with suppress(ConnectionError):  # closed with the answer unread, it may also be reset
            _body(b"x")(request)
            assert request.rfile.read(1) == b""
        closed.set()

    with _serving(respond) as (url, _):
        source = _source(url, b"x")
        impatient = replace(source, limits=replace(_LIMITS, answer_seconds=0.3))
        with pytest.raises(OutOfReachError, match=r"out of reach \(no answer within 0\.3 seconds\)"):
            unpack_release(impatient, _MACHINE, tmp_path, lambda _: None)
        assert asked.wait(30)
        late.set()
        assert closed.wait(30)


def test_name_that_cannot_be_looked_up_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="official release is refused"):
        unpack_release(_source(f"https://{'x' * 70}.example", b""), _MACHINE, tmp_path, lambda _: None)


def test_unknown_host_is_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(OutOfReachError):
        unpack_release(_source("https://host.invalid", b""), _MACHINE, tmp_path, lambda _: None)


def test_machine_without_a_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="no release of gVisor is known for riscv64"):
        unpack_release(ReleaseSource(), "riscv64", tmp_path, lambda _: None)


def test_settings_that_say_nothing_mean_the_pinned_release() -> None:
    source = release_source(machine=_MACHINE)

    assert source == ReleaseSource()
    assert re.fullmatch(r"[0-9a-f]{128}", source.digest_for("aarch64"))
    assert source.archive_url("aarch64").endswith("/20260810/aarch64/gvisor.tar.bz2")


def test_settings_override_version_and_hash_together() -> None:
    source = release_source(machine=_MACHINE, url="https://mirror.example/gvisor", version="20260831.0", sha512=_HEX)

    assert source.digest_for(_MACHINE) == _HEX
    assert source.archive_url(_MACHINE) == "https://mirror.example/gvisor/20260831.0/x86_64/gvisor.tar.bz2"


@pytest.mark.parametrize(("version", "sha512"), [("20260831.0", None), (None, _HEX)], ids=["version", "hash"])
def test_version_or_hash_alone_is_refused_naming_both(version: str | None, sha512: str | None) -> None:
    with pytest.raises(InstallError) as refusal:
        release_source(machine=_MACHINE, version=version, sha512=sha512)

    assert "SANDBOX_GVISOR_VERSION" in str(refusal.value)
    assert "SANDBOX_GVISOR_SHA512" in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://mirror.example/gvisor",
        "http://127.0.0.1.example/",
        "http://localhost.example/",
        "ftp://mirror.example",
        "file:///srv/gvisor",
        "https://",
        "https://user:word@mirror.example",
        "https://mirror.example/?x=1",
        "https://mirror.example:port/",
        "https://[",
    ],
)
def test_address_that_is_not_plain_https_is_refused(url: str) -> None:
    with pytest.raises(InstallError, match="SANDBOX_GVISOR_URL"):
        release_source(machine=_MACHINE, url=url)


@pytest.mark.parametrize(
    "version",
    [
        "latest",
        "2026081",
        "20260810/../x",
        "20260810.",
        " 20260810",
        "\uff12\uff10\uff12\uff16\uff10\uff18\uff11\uff10",
    ],
)
def test_version_that_is_no_release_is_refused(version: str) -> None:
    with pytest.raises(InstallError, match="SANDBOX_GVISOR_VERSION"):
        replace(ReleaseSource(), version=version)


def test_minimum_above_the_release_to_install_is_an_error_only_of_installing() -> None:
    source = release_source(machine=_MACHINE, min_version="20270101")

    error = release_below_minimum(source)

    assert error is not None
    assert error.key == "SANDBOX_GVISOR_MIN_VERSION"
    assert "SANDBOX_GVISOR_VERSION and SANDBOX_GVISOR_SHA512 to a newer release, or pre-install one" in error.remedy
    assert release_below_minimum(release_source(machine=_MACHINE, min_version=source.version)) is None


@pytest.mark.parametrize(
    ("version", "minimum", "reaches"),
    [
        ("20240729.0", "20240729", True),
        ("20240729.1", "20240729.2", False),
        ("20240729.10", "20240729.9", True),
        ("20221219.0", "20240729", False),
        ("VERSION_MISSING", "20240729", False),
        ("VERSION_MISSING", None, True),
    ],
)
def test_versions_are_compared_by_date_then_number(version: str, minimum: str | None, reaches: bool) -> None:  # noqa: FBT001
    assert version_reaches(version, minimum) is reaches
