"""gVisor's official release archive: which one, how it is fetched, and what is taken out of it.

The SHA-512 stands here, not beside the archive: a checksum from the same host vouches for nothing. Nothing is
decompressed before it matched. A host that cannot be reached at all is told apart (`OutOfReachError`) from one that
answers wrongly, because only the first leads to Debian's package.
Source: https://gvisor.dev/docs/user_guide/install/ and https://github.com/google/gvisor/issues/13718 (sidecars).
"""

import bz2
import hashlib
import http.client
import ipaddress
import os
import re
import shutil
import ssl
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import IO

from sandbox.errors import InstallError

SIDECAR_FOLDER = "gvisor-bin"

_OFFICIAL_RELEASES_URL = "https://storage.googleapis.com/gvisor/releases/release"
_PINNED_RELEASE_VERSION = "20260810"
_PINNED_RELEASE_SHA512 = (
    (
        "x86_64",
        (
            "3de91138cda15682c11807387f6ecad9e7c8932262018a2813277e1b4efa03ef"
            "e33b0a948e148c6b1ccfe7345bfab5d5e0d072519505465751273898bae19c62"
        ),
    ),
    (
        "aarch64",
        (
            "dc21bdc7a4f52d049f4da74a337fc7437b2ac1465c7479816a852120a8cff529"
            "2d72ae78bc4c581f857836bc9a56a1ba18ad687e6bef13d03fdd670d6f2071f7"
        ),
    ),
)
_RELEASE_VERSION = re.compile(r"([0-9]{8})(?:\.([0-9]{1,4}))?", re.ASCII)
_DOWNLOAD_MEBIBYTE = 1 << 20
_DOWNLOAD_CHUNK_BYTES = _DOWNLOAD_MEBIBYTE
_DOWNLOAD_QUIET_SECONDS = 15.0  # without an answer, or without a byte
_DOWNLOAD_PROGRESS_SECONDS = 2.0
_HTTP_OK = 200
INSTALL_OTHERWISE = (
    "Give this host a way out (https_proxy) or a mirror (SANDBOX_GVISOR_URL), or run `apt-get install runsc` as root, "
    "or put runsc (with its gvisor-bin folder, where the release has one) into a folder of PATH"
)
"""What to do where installing failed, so that running the same again would not help."""


class OutOfReachError(InstallError):
    """The release host gave no answer at all: no name, no route, no proxy, no TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadLimits:
    """How much is accepted from outside before the download is refused."""

    archive_bytes: int = 400 * _DOWNLOAD_MEBIBYTE
    """Largest archive."""
    unpacked_bytes: int = 2048 * _DOWNLOAD_MEBIBYTE
    """Largest sum of the archive's members, taken or not."""
    members: int = 64
    """Most members of the archive."""
    seconds: float = 1800.0
    """Longest download."""
    answer_seconds: float = 60.0
    """Longest wait for the release host's first answer: name, connections, TLS and redirects together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSource:
    """Which gVisor is wanted, and where its official archive comes from."""

    url: str = _OFFICIAL_RELEASES_URL
    """Folder of releases: https, or http on loopback; `SANDBOX_GVISOR_URL`."""
    version: str = _PINNED_RELEASE_VERSION
    """Release, `YYYYMMDD` or `YYYYMMDD.N`; `SANDBOX_GVISOR_VERSION`."""
    sha512: tuple[tuple[str, str], ...] = _PINNED_RELEASE_SHA512
    """SHA-512 of `gvisor.tar.bz2` for each machine (`uname -m`); `SANDBOX_GVISOR_SHA512`."""
    min_version: str | None = None
    """Oldest gVisor that may run code, from wherever; `SANDBOX_GVISOR_MIN_VERSION`."""
    limits: DownloadLimits = DownloadLimits()
    """How much is accepted from there."""

    def __post_init__(self) -> None:
        """Refuse what could not be fetched safely, or would be refused afterwards."""
        if not _is_fetchable(self.url):
            raise _bad_gvisor_setting("SANDBOX_GVISOR_URL", f"{self.url!r} is neither https nor on loopback")
        for variable, version in (("VERSION", self.version), ("MIN_VERSION", self.min_version)):
            if version is not None and _RELEASE_VERSION.fullmatch(version) is None:
                raise _bad_gvisor_setting(f"SANDBOX_GVISOR_{variable}", f"{version!r} is no release such as 20260810.0")
        for _, digest in self.sha512:
            if re.fullmatch(r"[0-9a-f]{128}", digest) is None:
                raise _bad_gvisor_setting("SANDBOX_GVISOR_SHA512", "it is not 128 lower-case hexadecimal digits")

    def digest_for(self, machine: str) -> str:
        """The SHA-512 of the archive for a machine, as `uname -m` names it."""
        for name, digest in self.sha512:
            if name == machine:
                return digest
        raise InstallError(
            key="gVisor",
            origin="this host",
            reason=f"no release of gVisor is known for {machine}",
            remedy="Run on x86_64 or aarch64",
        )

    def archive_url(self, machine: str) -> str:
        """Where the archive for a machine lies."""
        return f"{self.url.rstrip('/')}/{self.version}/{machine}/gvisor.tar.bz2"


def release_source(
    *,
    machine: str,
    url: str | None = None,
    version: str | None = None,
    sha512: str | None = None,
    min_version: str | None = None,
) -> ReleaseSource:
    """The source that the settings name, the pinned release where they say nothing.

    Raises:
        InstallError: version without SHA-512, or the reverse; or a value that cannot be used.
    """
    if (version is None) != (sha512 is None):
        present, absent = ("VERSION", "SHA512") if sha512 is None else ("SHA512", "VERSION")
        raise _bad_gvisor_setting(
            f"SANDBOX_GVISOR_{present}",
            f"it is set without SANDBOX_GVISOR_{absent}, and a release is only safe with its own checksum",
            "Set SANDBOX_GVISOR_VERSION and SANDBOX_GVISOR_SHA512 together, or neither",
        )
    return ReleaseSource(
        url=url or _OFFICIAL_RELEASES_URL,
        version=version or _PINNED_RELEASE_VERSION,
        sha512=_PINNED_RELEASE_SHA512 if sha512 is None else ((machine, sha512),),
        min_version=min_version,
    )


def release_below_minimum(source: ReleaseSource) -> InstallError | None:
    """Why no installation can help a host without a gVisor that is new enough; `None` where one can."""
    if version_reaches(source.version, source.min_version):
        return None
    return _bad_gvisor_setting(
        "SANDBOX_GVISOR_MIN_VERSION",
        f"no usable gVisor of at least version {source.min_version} is on this host, and the release to install, "
        f"{source.version}, is older",
        "Set SANDBOX_GVISOR_VERSION and SANDBOX_GVISOR_SHA512 to a newer release, or pre-install one: put its runsc "
        "into a folder of PATH",
    )


def version_reaches(version: str, minimum: str | None) -> bool:
    """Whether a version is at least the minimum; one that cannot be read reaches none."""
    if minimum is None:
        return True
    has, needs = _RELEASE_VERSION.fullmatch(version), _RELEASE_VERSION.fullmatch(minimum)
    if has is None or needs is None:
        return False
    return (int(has[1]), int(has[2] or 0)) >= (int(needs[1]), int(needs[2] or 0))


class _HttpsRedirectsOnly(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to https and refuses every other."""

    max_redirections = 5

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Refuse a target that is not https: the archive's hash would hold, but who fetches what would show."""
        if not newurl.startswith("https://"):
            raise urllib.error.HTTPError(req.full_url, code, f"it redirects to {newurl!r}, not https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def unpack_release(source: ReleaseSource, machine: str, into: Path, report: Callable[[str], None]) -> None:
    """Fetch the archive and put `runsc` and its sidecars into an empty folder.

    Raises:
        OutOfReachError: the host cannot be reached at all.
        InstallError: it can, but what it gives is refused.
    """
    expected, archive = source.digest_for(machine), into / "gvisor.tar.bz2"
    report(f"Downloading gVisor {source.version} ({machine})…")
    found = _fetch_archive(source, machine, archive, report)
    if found != expected:
        raise _refused_release(source, machine, f"its SHA-512 is {found[:16]}…, not the pinned {expected[:16]}…")
    report("Unpacking gVisor…")
    try:
        _extract_archive(archive, into, source.limits)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _refused_release(source, machine, str(error)) from error
    except OSError as error:
        if error.errno is None:  # bz2 says so of data it cannot read; what the disk says has a number
            raise _refused_release(source, machine, str(error)) from error
        raise
    finally:
        archive.unlink(missing_ok=True)


class _DownloadProgress:
    """Reports a download's percentage, at most once in two seconds."""

    def __init__(self, total: int | None, report: Callable[[str], None]) -> None:
        self._total = total
        self._report = report
        self._next = time.monotonic() + _DOWNLOAD_PROGRESS_SECONDS

    def reached(self, size: int) -> None:
        """So many bytes are there."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _DOWNLOAD_PROGRESS_SECONDS
        share = f"{100 * size // self._total} % of " if self._total else ""
        self._report(f"Downloading gVisor: {share}{(self._total or size) // _DOWNLOAD_MEBIBYTE} MB…")


def _fetch_archive(source: ReleaseSource, machine: str, archive: Path, report: Callable[[str], None]) -> str:
    """Write the archive to a file and return its SHA-512."""
    with _answered_archive(source, machine) as response:
        length = response.headers.get("Content-Length", "")
        total = int(length) if re.fullmatch(r"[0-9]{1,18}", length, re.ASCII) else None
        if response.status != _HTTP_OK:
            raise _refused_release(source, machine, f"the host answered with HTTP status {response.status}")
        if total is not None and total > source.limits.archive_bytes:
            raise _refused_release(source, machine, f"it would be {total} bytes, past {source.limits.archive_bytes}")
        try:
            digest, size = _saved_archive(response, archive, source.limits, _DownloadProgress(total, report))
        except (http.client.HTTPException, ValueError) as error:
            raise _refused_release(source, machine, str(error) or type(error).__name__) from error
    if total is not None and size != total:
        raise _refused_release(source, machine, f"it ended after {size} of {total} bytes")
    return digest


def _answered_archive(source: ReleaseSource, machine: str) -> http.client.HTTPResponse:
    """The host's answer, waited for no longer than permitted.

    Asked in a thread, since a name's lookup knows no deadline, and a connection's holds for each address anew.
    """
    answer: Future[http.client.HTTPResponse] = Future()
    Thread(target=_ask_for_archive, args=(source, machine, answer), daemon=True).start()
    seconds = source.limits.answer_seconds
    try:
        return answer.result(timeout=seconds)
    except TimeoutError as error:
        if answer.cancel():
            raise _host_out_of_reach(source.archive_url(machine), f"no answer within {seconds:g} seconds") from error
        return answer.result()  # it came just now


def _ask_for_archive(source: ReleaseSource, machine: str, answer: Future[http.client.HTTPResponse]) -> None:
    try:
        response = _opened_archive(source, machine)
    except InstallError as error:
        with suppress(InvalidStateError):  # nobody waits any more
            answer.set_exception(error)
        return
    try:
        answer.set_result(response)
    except InvalidStateError:
        response.close()


def _opened_archive(source: ReleaseSource, machine: str) -> http.client.HTTPResponse:
    url = source.archive_url(machine)
    handlers: list[urllib.request.BaseHandler] = [_HttpsRedirectsOnly()]
    if url.startswith("http:"):
        handlers.append(urllib.request.ProxyHandler({}))  # loopback is never reached through a proxy
    request = urllib.request.Request(url, headers={"User-Agent": "sandbox-lockdown"})  # noqa: S310 - checked in ReleaseSource
    try:
        response: http.client.HTTPResponse = urllib.request.build_opener(*handlers).open(
            request, timeout=_DOWNLOAD_QUIET_SECONDS
        )
    except urllib.error.HTTPError as error:
        error.close()
        raise _refused_release(
            source, machine, f"the host answered with HTTP status {error.code} ({error.msg})"
        ) from error
    except http.client.HTTPException as error:
        if isinstance(error, ConnectionError):  # RemoteDisconnected is both
            raise _host_out_of_reach(url, error) from error
        raise _refused_release(source, machine, f"the host does not speak HTTP: {type(error).__name__}") from error
    except OSError as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise _refused_release(
                source, machine, f"the host's certificate is not valid: {cause.verify_message}"
            ) from error
        raise _host_out_of_reach(url, cause) from error
    except ValueError as error:  # no name that can be looked up
        raise _refused_release(source, machine, f"the address cannot be used: {error}") from error
    return response


def _saved_archive(
    body: IO[bytes], archive: Path, limits: DownloadLimits, progress: _DownloadProgress
) -> tuple[str, int]:
    digest, size, deadline = hashlib.sha512(), 0, time.monotonic() + limits.seconds
    with archive.open("xb") as file:
        while chunk := _read_archive(body):
            size += len(chunk)
            if size > limits.archive_bytes:
                raise ValueError(f"it goes on past {limits.archive_bytes} bytes")
            if time.monotonic() > deadline:
                raise ValueError(f"it did not come within {limits.seconds:.0f} seconds")
            digest.update(chunk)
            file.write(chunk)
            progress.reached(size)
    return digest.hexdigest(), size


def _read_archive(body: IO[bytes]) -> bytes:
    try:
        return body.read(_DOWNLOAD_CHUNK_BYTES)
    except (ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise ValueError(f"the connection broke: {error}") from error


def _extract_archive(archive: Path, into: Path, limits: DownloadLimits) -> None:
    seen: set[str] = set()
    with bz2.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|", bufsize=_DOWNLOAD_CHUNK_BYTES) as members:
        for member in _checked_members(members, limits):
            name = str(PurePosixPath(member.name))
            if name in seen:
                raise ValueError(f"the archive holds {name!r} twice")
            seen.add(name)
            content = members.extractfile(member) if _is_wanted_member(name) else None
            if content is not None:
                _write_program(content, into / name)
    if "runsc" not in seen or not any(_is_wanted_member(name) for name in seen - {"runsc"}):
        raise ValueError(f"the archive lacks runsc, or the programs in {SIDECAR_FOLDER} that it needs beside it")


def _checked_members(members: tarfile.TarFile, limits: DownloadLimits) -> Iterator[tarfile.TarInfo]:
    """Every regular file of the archive; anything but files and folders with plain names refuses the whole."""
    count, unpacked = 0, 0
    for member in members:
        count, unpacked = count + 1, unpacked + member.size
        if count > limits.members or unpacked > limits.unpacked_bytes:
            raise ValueError(
                f"the archive unpacks to more than {limits.members} members or {limits.unpacked_bytes} bytes"
            )
        if member.name.startswith("/") or ".." in member.name.split("/") or not member.name.isprintable():
            raise ValueError(f"the archive holds the unsafe name {member.name!r}")
        if member.isdir():
            continue
        if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
            raise ValueError(f"the archive holds {member.name!r}, which is no regular file")
        yield member


def _is_wanted_member(name: str) -> bool:
    """`runsc` and what lies in the sidecar folder; the containerd shim and the rest stay in the archive."""
    return name == "runsc" or name.startswith(f"{SIDECAR_FOLDER}/")


def _write_program(content: IO[bytes], path: Path) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file, _DOWNLOAD_CHUNK_BYTES)
        os.fchmod(file.fileno(), 0o755)


def _is_fetchable(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.query or parts.fragment or not url.isascii():
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback_host(host))


def _is_loopback_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refused_release(source: ReleaseSource, machine: str, reason: str) -> InstallError:
    return InstallError(
        key=f"gVisor {source.version}",
        origin=source.archive_url(machine),
        reason=f"the official release is refused: {reason}",
        remedy=INSTALL_OTHERWISE,
    )


def _host_out_of_reach(url: str, cause: object) -> OutOfReachError:
    return OutOfReachError(
        key="gVisor's release host",
        origin=urllib.parse.urlsplit(url).netloc,
        reason=f"the official release host is out of reach ({cause})",
        remedy=INSTALL_OTHERWISE,
    )


def _bad_gvisor_setting(variable: str, reason: str, remedy: str = "Correct or unset it") -> InstallError:
    return InstallError(key=variable, origin="environment", reason=reason, remedy=remedy)
