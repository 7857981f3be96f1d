import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest

from sandbox.debian import AptHost, apt_host, unpack_debian
from sandbox.errors import InstallError

_MACHINE = os.uname().machine
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(_MACHINE, "amd64")

_DPKG_DEB, _GPG, _GPGCONF = "/usr/bin/dpkg-deb", "/usr/bin/gpg", "/usr/bin/gpgconf"

pytestmark = pytest.mark.skipif(
    not all(Path(program).exists() for program in (_DPKG_DEB, _GPG, "/usr/bin/apt-get")),
    reason="needs apt-get, dpkg-deb and gpg",
)


@dataclass(frozen=True)
class Signer:
    """A throw-away OpenPGP key, and its public half as apt wants it."""

    home: Path
    keyring: Path

    def clearsign(self, text: Path, signed: Path) -> None:
        _gpg(self.home, "--clearsign", "--output", str(signed), str(text))


def _gpg(home: Path, *arguments: str) -> None:
    command = [_GPG, "--homedir", str(home), "--batch", "--quiet", "--yes", "--passphrase", "", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def signer() -> Iterator[Signer]:
    home = Path(tempfile.mkdtemp(prefix="gpg-"))  # short: the agent's socket lies in it
    try:
        _gpg(home, "--quick-generate-key", "test@example.org", "ed25519", "sign", "never")
        keyring = home / "public.gpg"
        _gpg(home, "--output", str(keyring), "--export", "test@example.org")
        yield Signer(home, keyring)
    finally:
        subprocess.run([_GPGCONF, "--homedir", str(home), "--kill", "all"], check=False, timeout=30)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def _tree(tmp_path: Path, name: str, version: str) -> Path:
    tree = tmp_path / f"{name}-tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr" / "bin").mkdir(parents=True)
    (tree / "usr" / "bin" / "runsc").write_text("#!/bin/sh\necho runsc version 0.0~20230101.0\n")
    (tree / "usr" / "bin" / "other").write_text("not wanted")
    (tree / "DEBIAN" / "control").write_text(
        f"Package: runsc\nVersion: {version}\nArchitecture: {_ARCHITECTURE}\nMaintainer: x <x@x>\nDescription: x\n"
    )
    return tree


def _index(repository: Path, tree: Path) -> bytes:
    archive = repository / "runsc.deb"
    subprocess.run([_DPKG_DEB, "--build", str(tree), str(archive)], check=True, capture_output=True, timeout=60)
    content = archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    control = (tree / "DEBIAN" / "control").read_text()
    return f"{control}Filename: ./{archive.name}\nSize: {len(content)}\nSHA256: {digest}\n".encode()


def _repository(
    tmp_path: Path,
    signer: Signer | None,
    *,
    version: str = "0.0~20230101.0-1",
    name: str = "repository",
    linked: bool = False,
) -> Path:
    repository, tree = tmp_path / name, _tree(tmp_path, name, version)
    repository.mkdir()
    if linked:
        (tree / "usr" / "bin" / "runsc").unlink()
        (tree / "usr" / "bin" / "runsc").symlink_to("/bin/sh")
    index = _index(repository, tree)
    (repository / "Packages").write_bytes(index)
    release = repository / "Release"
    digest = hashlib.sha256(index).hexdigest()
    release.write_text(f"Date: {formatdate(usegmt=True)}\nSHA256:\n {digest} {len(index)} Packages\n")
    if signer is not None:
        signer.clearsign(release, repository / "InRelease")
    return repository


def _host(tmp_path: Path, *lines: str, deb822: str = "") -> AptHost:
    etc = tmp_path / "etc"
    (etc / "sources.list.d").mkdir(parents=True)
    (etc / "sources.list").write_text("".join(f"{line}\n" for line in lines))
    (etc / "sources.list.d" / "more.sources").write_text(deb822)
    return AptHost(machine=_MACHINE, etc=etc)


def _unpacked(host: AptHost, into: Path) -> str:
    return unpack_debian(host, into, lambda _: None)


def test_package_of_a_signed_source_is_unpacked_alone(tmp_path: Path, into: Path, signer: Signer) -> None:
    repository = _repository(tmp_path, signer)

    version = _unpacked(_host(tmp_path, f"deb [signed-by={signer.keyring}] file:{repository} ./"), into)

    assert version == "0.0~20230101.0-1"
    assert [str(path.relative_to(into)) for path in into.rglob("*")] == ["runsc"]
    assert (into / "runsc").stat().st_mode & 0o7777 == 0o755


def test_source_without_a_signature_is_refused(tmp_path: Path, into: Path) -> None:
    repository = _repository(tmp_path, None)

    with pytest.raises(InstallError, match=r"no signed source offers it.*is not signed"):
        _unpacked(_host(tmp_path, f"deb file:{repository} ./"), into)


def test_source_signed_by_an_unknown_key_is_refused(tmp_path: Path, into: Path, signer: Signer) -> None:
    repository = _repository(tmp_path, signer)

    with pytest.raises(InstallError, match="no signed source offers it"):
        _unpacked(_host(tmp_path, f"deb file:{repository} ./"), into)


@pytest.mark.parametrize("mark", ["trusted=yes", "trusted=1", "allow-insecure=yes", "trusted=yes allow-insecure=yes"])
def test_unsigned_source_marked_as_trusted_is_refused(tmp_path: Path, into: Path, mark: str) -> None:
    repository = _repository(tmp_path, None)

    with pytest.raises(InstallError, match=r"marked to be taken without|could not be authenticated"):
        _unpacked(_host(tmp_path, f"deb [{mark}] file:{repository} ./"), into)

    assert not (into / "runsc").exists()


@pytest.mark.parametrize(
    "mark", ["Trusted: yes", "Allow-Insecure: yes", "Allow-Weak: yes", "Allow-Downgrade-To-Insecure: yes"]
)
def test_signed_source_that_would_do_without_is_refused(tmp_path: Path, into: Path, signer: Signer, mark: str) -> None:
    repository = _repository(tmp_path, signer)
    deb822 = f"Types: deb\nURIs: file:{repository}\nSuites: ./\nSigned-By: {signer.keyring}\n{mark}\n"

    with pytest.raises(InstallError, match=r"more\.sources:1\) is marked") as refusal:
        _unpacked(_host(tmp_path, deb822=deb822), into)

    assert "more.sources, and add its key" in refusal.value.remedy


def test_unsigned_source_beside_a_signed_one_is_passed_over(tmp_path: Path, into: Path, signer: Signer) -> None:
    signed = _repository(tmp_path, signer)
    unsigned = _repository(tmp_path, None, version="0.0~20990101.0-1", name="unsigned")

    host = _host(tmp_path, f"deb file:{unsigned} ./", f"deb [signed-by={signer.keyring}] file:{signed} ./")

    assert _unpacked(host, into) == "0.0~20230101.0-1"


def test_newer_package_of_a_marked_source_beside_a_signed_one_is_refused(
    tmp_path: Path, into: Path, signer: Signer
) -> None:
    signed = _repository(tmp_path, signer)
    marked = _repository(tmp_path, None, version="0.0~20990101.0-1", name="marked")

    with pytest.raises(InstallError, match="is marked to be taken"):
        _unpacked(
            _host(
                tmp_path, f"deb [trusted=yes] file:{marked} ./", f"deb [signed-by={signer.keyring}] file:{signed} ./"
            ),
            into,
        )


def test_package_altered_after_signing_is_refused(tmp_path: Path, into: Path, signer: Signer) -> None:
    repository = _repository(tmp_path, signer)
    archive = next(repository.glob("*.deb"))
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")

    with pytest.raises(InstallError, match="apt-get download failed"):
        _unpacked(_host(tmp_path, f"deb [signed-by={signer.keyring}] file:{repository} ./"), into)


def test_index_altered_after_signing_is_refused(tmp_path: Path, into: Path, signer: Signer) -> None:
    repository = _repository(tmp_path, signer)
    index = repository / "Packages"
    index.write_text(index.read_text().replace("20230101", "20990101"))

    with pytest.raises(InstallError, match="no signed source offers it"):
        _unpacked(_host(tmp_path, f"deb [signed-by={signer.keyring}] file:{repository} ./"), into)


def test_host_without_sources_is_told_so(tmp_path: Path, into: Path) -> None:
    with pytest.raises(InstallError, match="Unable to locate package runsc"):
        _unpacked(_host(tmp_path), into)


def test_package_whose_runsc_is_a_link_is_refused(tmp_path: Path, into: Path, signer: Signer) -> None:
    repository = _repository(tmp_path, signer, linked=True)

    with pytest.raises(InstallError, match="no regular file"):
        _unpacked(_host(tmp_path, f"deb [signed-by={signer.keyring}] file:{repository} ./"), into)


def test_machine_that_debian_has_no_gvisor_for_is_refused(into: Path) -> None:
    with pytest.raises(InstallError, match="riscv64"):
        _unpacked(AptHost(machine="riscv64"), into)


def test_apt_sees_nothing_of_the_environment_but_proxies() -> None:
    environ = {"http_proxy": "http://proxy.example:3128", "no_proxy": "", "APT_CONFIG": "/x", "LD_PRELOAD": "/x"}

    assert apt_host(_MACHINE, environ).proxies == (("http_proxy", "http://proxy.example:3128"),)
