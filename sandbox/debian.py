"""Debian's package of gVisor, fetched through apt and unpacked beside: nothing is installed system-wide.

apt works in a folder of its own, so this needs no root, leaves the system's lists alone and starts from nothing. It
takes the host's sources, keys and proxies out of `/etc/apt`, and a signed index must vouch for the package: options
that weaken this are forced off, and a package whose source is marked `trusted=yes`, `allow-insecure` or
the like is refused, because apt would take it unsigned.
Source: apt.conf(5), sources.list(5), apt-secure(8), apt's doc/acquire-additional-files.md (index targets).
"""

import hashlib
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import InstallError
from sandbox.release import SIDECAR_FOLDER

_APT_GET = "/usr/bin/apt-get"
_DPKG_DEB = "/usr/bin/dpkg-deb"
_DEBIAN_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
_APT_SECONDS = 600.0
_APT_TARGET_FIELDS = ("REPO_URI", "SOURCESENTRY", "TRUSTED")
# an option of a one-line entry, or a field of a deb822 one, that has apt do without a good signature
_APT_MARK = re.compile(
    r"(?:^|[\s\[])(?:trusted|allow-(?:insecure|weak|downgrade-to-insecure))\s*[+-]?[=:]\s*(?!(?:no|false|0)(?:[\s\]]|$))",
    re.IGNORECASE | re.MULTILINE,
)
_APT_CANDIDATE = re.compile(
    r"'(?P<uri>[!-~]+)' (?P<file>runsc_[A-Za-z0-9.+~%_-]+\.deb) (?P<size>[0-9]{1,12}) "
    r"(?P<kind>SHA256|SHA512):(?P<digest>[0-9a-f]+)",
    re.ASCII,
)
_PACKAGE_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~-]{0,63}", re.ASCII)
_MOST_PACKAGE_BYTES = 400 << 20
_APT_CONFIGURATION = """\
// Written by sandbox-lockdown; read after the host's own configuration, so that it wins.
#clear APT::Update;
#clear APT::Architectures;
#clear APT::Default-Release;
#clear Acquire::IndexTargets;
#clear Acquire::Languages;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
// only the package index: no translations, contents, sources or desktop metadata
Acquire::Languages {{ "none"; }};
Acquire::IndexTargets::deb::Packages {{
  MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages";
  flatMetaKey "Packages";
  ShortDescription "Packages";
  Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Packages";
  flatDescription "$(RELEASE) Packages";
  Optional "0";
}};
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Acquire::Retries "1";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
APT::Get::AllowUnauthenticated "false";
APT::Authentication::TrustCDROM "false";
// its own user (_apt) could not enter the private folder; what comes is believed for its signature alone
APT::Sandbox::User "root";
Dir::Etc "{etc}";
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{state}";
Dir::Log "{state}";
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AptHost:
    """What apt is told about the host."""

    machine: str
    """The machine as `uname -m` names it."""
    proxies: tuple[tuple[str, str], ...] = ()
    """Proxy variables, the only ones that apt gets to see."""
    etc: Path = Path("/etc/apt")
    """Folder of `sources.list`, `sources.list.d` and keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianPackage:
    """The package that apt would fetch, as its index describes it."""

    uri: str
    """Where the package lies."""
    file: str
    """File name."""
    size: int
    """Bytes."""
    kind: str
    """`SHA256` or `SHA512`."""
    digest: str
    """Its hash, lower-case hexadecimal."""


def apt_host(machine: str, environ: Mapping[str, str]) -> AptHost:
    """The host as apt shall see it.

    Of the environment only proxies count. `APT_CONFIG` is left out on purpose: what the host's administrator decided
    about apt stands in `/etc/apt`, and everything else that steers apt should be visible there.
    """
    proxies = tuple((name, environ[name]) for name in _PROXY_VARIABLES if environ.get(name))
    return AptHost(machine=machine, proxies=proxies)


def unpack_debian(host: AptHost, into: Path, report: Callable[[str], None]) -> str:
    """Fetch Debian's package and put its `runsc` into an empty folder; its version, such as `0.0~20221219.0-2+b3`.

    Raises:
        InstallError: there is no apt, no such package, or no signed index that vouches for it.
    """
    if not (Path(_APT_GET).exists() and Path(_DPKG_DEB).exists()):
        raise _debian_refused("this host has no apt-get and dpkg-deb")
    state = into / "apt"
    _prepare_apt(host, state)
    report("Fetching Debian's package index…")
    # One unsigned source of several fails the whole update; whether *our* package is vouched for is asked below.
    complaints = _apt_get(host, state, "update", must_work=False).stderr
    package = _apt_candidate(host, state, complaints)
    report(f"Downloading Debian's gVisor package ({package.size >> 20} MB)…")
    _apt_get(host, state, "download", "runsc")
    archive = state / package.file
    _refuse_altered_package(archive, package)
    _refuse_marked_source(package, _apt_targets_unsigned(host, state))
    version = _unpack_package(archive, into)
    shutil.rmtree(state)
    return version


def _prepare_apt(host: AptHost, state: Path) -> None:
    architecture = _DEBIAN_MACHINES.get(host.machine)
    if architecture is None:
        raise _debian_refused(f"Debian has no gVisor for {host.machine}")
    for name in ("lists/partial", "archives/partial", "tmp"):
        Path(state, name).mkdir(parents=True, mode=0o700)
    (state / "status").touch()
    for path in (state, host.etc):
        if not re.fullmatch(r"[^\"\\\x00-\x1f]+", str(path)):
            raise _debian_refused(f"apt cannot be told the path {str(path)!r}")
    (state / "apt.conf").write_text(_APT_CONFIGURATION.format(architecture=architecture, state=state, etc=host.etc))


def _apt_get(host: AptHost, state: Path, *arguments: str, must_work: bool = True) -> subprocess.CompletedProcess[str]:
    """Run apt-get in its own folder, with an environment that holds nothing of the host but its proxies."""
    environ = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(state), "TMPDIR": str(state / "tmp")}
    result = _run_packager(
        [_APT_GET, "-q", "-c", str(state / "apt.conf"), *arguments], state, environ | dict(host.proxies)
    )
    if must_work and result.returncode != 0:
        raise _debian_refused(f"apt-get {arguments[0]} failed: {_apt_last_words(result.stderr)}")
    return result


def _run_packager(command: list[str], cwd: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_APT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _debian_refused(f"{Path(command[0]).name} did not end within {_APT_SECONDS:.0f} seconds") from error


def _apt_candidate(host: AptHost, state: Path, complaints: str) -> DebianPackage:
    listed = _apt_get(host, state, "download", "--print-uris", "runsc", must_work=False)
    found = _APT_CANDIDATE.search(listed.stdout)
    if listed.returncode != 0 or found is None:
        raise _debian_refused(
            f"no signed source offers it: {_apt_last_words(listed.stderr)}; {_apt_last_words(complaints)}"
        )
    if int(found["size"]) > _MOST_PACKAGE_BYTES:
        raise _debian_refused(f"it would be {found['size']} bytes, past {_MOST_PACKAGE_BYTES}")
    return DebianPackage(
        uri=found["uri"], file=found["file"], size=int(found["size"]), kind=found["kind"], digest=found["digest"]
    )


def _refuse_altered_package(archive: Path, package: DebianPackage) -> None:
    if not archive.is_file() or archive.is_symlink():
        raise _debian_refused(f"apt-get did not deliver {package.file}")
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, package.kind.lower()).hexdigest()
    if found != package.digest:
        raise _debian_refused(f"its {package.kind} is {found[:16]}…, the index says {package.digest[:16]}…")


def _apt_targets_unsigned(host: AptHost, state: Path) -> tuple[Mapping[str, str], ...]:
    """What apt believes of each source once the signatures are taken away: only marked ones are still trusted."""
    for signed in (*state.glob("lists/*InRelease"), *state.glob("lists/*Release.gpg")):
        signed.unlink()
    fields = "|".join(f"$({name})" for name in _APT_TARGET_FIELDS)
    rows = _apt_get(host, state, "indextargets", "--format", fields).stdout.splitlines()
    split = [row.split("|") for row in rows]
    return tuple(
        dict(zip(_APT_TARGET_FIELDS, row, strict=True)) for row in split if len(row) == len(_APT_TARGET_FIELDS)
    )


def _refuse_marked_source(package: DebianPackage, targets: tuple[Mapping[str, str], ...]) -> None:
    uri = urllib.parse.unquote(package.uri)
    sources = [target for target in targets if uri.startswith(urllib.parse.unquote(target["REPO_URI"]))]
    if not sources:
        raise _debian_refused(f"apt does not say which source {package.uri} comes from")
    for source in sources:
        entry = source["SOURCESENTRY"]
        if source["TRUSTED"] != "no" or _APT_MARK.search(_source_entry(entry)):
            raise _debian_refused(
                f"its source ({entry}) is marked to be taken without a valid signature",
                f"Remove trusted and allow-… from {entry.rpartition(':')[0]}, and add its key",
            )


def _source_entry(entry: str) -> str:
    """What a source's file says of it: its line, or all of a deb822 file, whose entries apt does not give by line."""
    name, _, number = entry.rpartition(":")
    try:
        lines = Path(name).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise _debian_refused(f"its source {entry} cannot be read: {error.strerror}") from error
    if name.endswith(".list") and number.isdecimal() and 0 < int(number) <= len(lines):
        return lines[int(number) - 1].partition("#")[0]
    return "\n".join(line for line in lines if not line.startswith("#"))


def _unpack_package(archive: Path, into: Path) -> str:
    """Keep of the package only `runsc` and, where there are any, the sidecars beside it."""
    tree = archive.parent / "tree"
    environ = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    version = _run_packager([_DPKG_DEB, "-f", str(archive), "Version"], into, environ).stdout.strip()
    if _PACKAGE_VERSION.fullmatch(version) is None:
        raise _debian_refused(f"{version[:64]!r} is not a version that can name a folder")
    unpacked = _run_packager([_DPKG_DEB, "-x", str(archive), str(tree)], into, environ)
    if unpacked.returncode != 0:
        raise _debian_refused(f"dpkg-deb failed: {_apt_last_words(unpacked.stderr)}")
    programs = tree / "usr" / "bin"
    for path in (programs / "runsc", *sorted(programs.glob(f"{SIDECAR_FOLDER}/*"))):
        if path.is_symlink() or not path.is_file():
            raise _debian_refused(f"{path.relative_to(tree)} is missing from the package, or no regular file")
        destination = into / path.relative_to(programs)
        destination.parent.mkdir(mode=0o755, exist_ok=True)
        path.rename(destination)
        destination.chmod(0o755)
    return version


def _apt_last_words(text: str) -> str:
    """What apt complains of, as one short line without control characters."""
    lines = [line for line in text.splitlines() if line.startswith(("E:", "W:"))] or text.splitlines()
    said = " ".join(" ".join(lines[-3:]).split())
    return "".join(letter for letter in said if letter.isprintable())[:400] or "no message"


def _debian_refused(
    reason: str, remedy: str = "Run `apt-get update && apt-get install runsc` as root, or put runsc on PATH"
) -> InstallError:
    return InstallError(key="Debian's package runsc", origin="apt", reason=reason, remedy=remedy)
