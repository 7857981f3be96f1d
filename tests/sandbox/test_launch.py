"""Boxes start in the first way that works here; what hangs is killed with all that it started."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.gvisor import Runsc, RunscOrigin
from sandbox.kept_launch import forget_launch, keep_launch, kept_launch, launch_binding
from sandbox.launch import Launch, LaunchError, found_launch, launch_candidates
from sandbox.runsc_program import current_flags, offline_arguments
from sandbox.tree import FileTree
from tests.sandbox.conftest import Place, command_lines_with
from tests.sandbox.gvisor_versions import GVISOR_OF_SUITE, debians_runsc

HARD = ("--host-uds=none", "--host-fifo=none", "--overlay2=none", "--oci-seccomp=true")
OFFLINE = ("--sidecar-usage-policy=STRICT",)
NO_FILES = "--directfs=false"
FLAGS_OF_2022 = """\
  -host-fifo value
    \tcontrols permission to access host FIFOs (or named pipes). Values: none|open, default: none
  -host-uds value
    \tcontrols permission to access host Unix-domain sockets. Values: none|open|create|all, default: none
  -oci-seccomp
    \tEnables loading OCI seccomp filters inside the sandbox.
  -overlay2 value
    \twrap mounts with overlayfs. 'none' will turn overlay mode off.
  -platform string
    \tspecifies which platform to use: ptrace (default), kvm. (default "ptrace")
  -platform_device_path string
    \tpath to a platform-specific device file (e.g. /dev/kvm for KVM platform).
  -rootless
    \tit allows the sandbox to be started with a user that is not root.
  -vfs2
    \tDEPRECATED: this flag has no effect. (default true)
"""
DIRECTFS = """\
  -directfs
    \tdirectly access the container filesystems from the sentry. Sentry runs with higher privileges. (default true)
"""
SIDECARS = """\
  -sidecar-release-enforcement-policy value
    \twhen spawned sidecar binaries must match runsc's release: NEVER, ALWAYS, or IF_RELEASE_BUILD.
  -sidecar-usage-policy value
    \tpolicy for sidecar binaries: STRICT (sidecars must exist), LEGACY_DEPRECATED_SLOW_EMBEDDED_FALLBACK.
"""
FLAGS_OF_2024 = DIRECTFS + FLAGS_OF_2022.replace(
    'ptrace (default), kvm. (default "ptrace")', 'systrap (default), ptrace, kvm. (default "systrap")'
)
FLAGS_OF_2026 = FLAGS_OF_2024 + SIDECARS
"""As runsc/config/flags.go of the summer of 2026 has them; no such release was at hand."""


def ways(flags: str, *, platform: str | None = None, as_root: bool = True) -> list[tuple[str, ...]]:
    """The candidates without the flags that all of them have."""
    known = current_flags(flags)
    offline = offline_arguments(known)
    found = launch_candidates(offline, known, platform=platform, as_root=as_root)
    assert {launch.arguments[: len(offline) + len(HARD)] for launch in found} == {(*offline, *HARD)}
    return [launch.arguments[len(offline) + len(HARD) :] for launch in found]


def test_the_gvisor_of_2022_is_tried_as_root_and_then_rootless_on_its_own_platform() -> None:
    assert ways(FLAGS_OF_2022) == [(), ("--rootless",)]


@pytest.mark.parametrize("flags", [FLAGS_OF_2024, FLAGS_OF_2026], ids=["2024", "2026"])
def test_a_newer_gvisor_is_tried_on_its_own_platform_first_and_without_files_before_with_them(flags: str) -> None:
    platforms: tuple[tuple[str, ...], ...] = ((), ("--platform=ptrace",))
    modes: tuple[tuple[str, ...], ...] = ((), ("--rootless",))
    files: tuple[tuple[str, ...], ...] = ((NO_FILES,), ())
    assert ways(flags) == [(*mode, *platform, *file) for mode in modes for platform in platforms for file in files]


def test_a_release_with_sidecars_never_downloads_any() -> None:
    assert offline_arguments(current_flags(FLAGS_OF_2026)) == OFFLINE


@pytest.mark.parametrize("platform", ["systrap", "ptrace", "kvm"])
def test_a_platform_that_the_administrator_names_is_the_only_one(platform: str) -> None:
    assert all(f"--platform={platform}" in way for way in ways(FLAGS_OF_2024, platform=platform))


def test_without_the_rights_of_root_only_rootless_ways_are_tried() -> None:
    assert ways(FLAGS_OF_2022, as_root=False) == [("--rootless",)]
    assert all("--rootless" in way for way in ways(FLAGS_OF_2024, as_root=False))


def test_kvm_is_never_picked_by_itself_even_where_a_release_prefers_it() -> None:
    flags = FLAGS_OF_2024.replace('(default "systrap")', '(default "kvm")')
    platforms = {launch.platform for launch in launch_candidates((), current_flags(flags), platform=None, as_root=True)}
    assert platforms == {"systrap", "ptrace"}
    assert () not in ways(flags)


def test_a_deprecated_flag_is_not_used() -> None:
    flags = FLAGS_OF_2022.replace("controls permission to access host FIFOs", "DEPRECATED: no effect")
    arguments = launch_candidates((), current_flags(flags), platform=None, as_root=True)[0].arguments
    assert "--host-fifo=none" not in arguments
    assert "--host-uds=none" in arguments


def test_a_gvisor_that_tells_no_flags_is_tried_without_any() -> None:
    assert launch_candidates((), {}, platform=None, as_root=False)[0] == Launch(
        arguments=(), rootless=False, platform="default"
    )


@pytest.fixture
def tree(tmp_path: Path) -> FileTree:
    return FileTree(root=tmp_path, digest="d", python="/p", bash="/b", file_count=1, size_bytes=1, omitted=())


def fake_runsc(tmp_path: Path, script: str, flags: str = FLAGS_OF_2022) -> Runsc:
    """A program that prints flags, and else does as a script says; `$*` holds what it was asked."""
    (tmp_path / "flags.txt").write_text(flags)
    path = tmp_path / "runsc"
    path.write_text(f'#!/bin/sh\nif [ "$1" = flags ]; then cat {tmp_path}/flags.txt; exit 0; fi\n{script}\n')
    path.chmod(0o755)
    return Runsc(path=path, version="20240729.0", origin=RunscOrigin.PREINSTALLED, released=None)


STARTS = "printf 'a box starts here'"
HANGS = "trap '' TERM INT HUP; sleep 300 & while :; do sleep 1; done"


def test_the_first_way_that_works_is_taken_after_one_start(tmp_path: Path, tree: FileTree) -> None:
    runsc = fake_runsc(tmp_path, f"echo started >> {tmp_path}/starts; {STARTS}")

    found = found_launch(runsc, tree, tmp_path / "private")

    assert found.arguments[: len(HARD)] == HARD
    assert (tmp_path / "starts").read_text() == "started\n"
    assert list((tmp_path / "private" / "runs").iterdir()) == []


@pytest.mark.gvisor
def test_neighbour_cannot_reach_the_box_that_a_launch_is_tried_with(tmp_path: Path, tree: FileTree) -> None:
    """Whoever could kill the first that is tried would have all later boxes started in a worse way."""
    runsc = fake_runsc(tmp_path, f"readlink /proc/self/ns/net > {tmp_path}/network; {STARTS}")

    found_launch(runsc, tree, tmp_path / "private")

    assert (tmp_path / "network").read_text().strip() != str(Path("/proc/self/ns/net").readlink())


def test_a_way_that_fails_is_followed_by_the_next(tmp_path: Path, tree: FileTree) -> None:
    script = f'case "$*" in *--platform=ptrace*) {STARTS};; *) echo "unknown system call" >&2; exit 128;; esac'
    found = found_launch(fake_runsc(tmp_path, script, FLAGS_OF_2024), tree, tmp_path / "private")

    assert found.platform == "ptrace"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo first >&2; echo 'last  word' >&2; exit 3", "last word"),
        ("exit 3", "it ended with exit code 3 and said nothing"),
        ("exit 0", "it ended with exit code 0 and said nothing"),
        (f"{STARTS}; exit 1", "a box starts here"),
        (f"{STARTS}; echo more", "a box starts heremore"),
    ],
)
def test_no_way_at_all_is_an_error_that_names_each_with_what_gvisor_said(
    tmp_path: Path, tree: FileTree, script: str, said: str
) -> None:
    with pytest.raises(LaunchError) as caught:
        found_launch(fake_runsc(tmp_path, script), tree, tmp_path / "private")

    assert {attempt.said for attempt in caught.value.attempts} == {said}
    assert "rootless on ptrace" in caught.value.reason
    assert said not in caught.value.reason
    assert f"tried as root on ptrace, rootless on ptrace: {said}" in caught.value.with_internals().reason
    assert "sandbox doctor" in caught.value.remedy


@pytest.mark.parametrize(
    "script", [HANGS, "yes", f"{STARTS}; exec >&- 2>&-; sleep 300"], ids=["mute", "loud", "silent"]
)
def test_a_platform_that_hangs_is_given_up_and_nothing_of_it_is_left(
    tmp_path: Path, tree: FileTree, script: str
) -> None:
    runsc = fake_runsc(tmp_path, script)
    begun = time.monotonic()

    with pytest.raises(LaunchError) as caught:
        found_launch(runsc, tree, tmp_path / "private", platform="kvm", within_seconds=0.5)

    assert time.monotonic() - begun < 20
    assert {attempt.launch.platform for attempt in caught.value.attempts} == {"kvm"}
    assert "did not end within" in caught.value.detail or "y" in caught.value.detail
    assert command_lines_with(str(tmp_path)) == {}
    assert list((tmp_path / "private" / "runs").iterdir()) == []


def test_a_launch_is_kept_for_its_place_alone(tmp_path: Path) -> None:
    runsc = fake_runsc(tmp_path, STARTS)
    launch = Launch(arguments=("--a", "--b=c"), rootless=True, platform="systrap")
    binding = launch_binding(runsc, None)

    keep_launch(tmp_path, binding, launch)

    assert kept_launch(tmp_path, launch_binding(runsc, None)) == launch
    assert kept_launch(tmp_path, launch_binding(runsc, "ptrace")) is None
    assert kept_launch(tmp_path, launch_binding(replace(runsc, arguments=("--x",)), None)) is None
    assert kept_launch(tmp_path, {**binding, "boot": "another"}) is None
    forget_launch(tmp_path)
    assert kept_launch(tmp_path, binding) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"binding": 1}', "\0"])
def test_a_kept_launch_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "launch.json").write_text(text)

    assert kept_launch(tmp_path, launch_binding(fake_runsc(tmp_path, STARTS), None)) is None


@pytest.fixture(params=GVISOR_OF_SUITE)
def real(request: pytest.FixtureRequest) -> Runsc:
    """Each gVisor that Debian ships."""
    return debians_runsc(request.param)


@pytest.mark.gvisor
def test_a_real_gvisor_starts_in_the_first_way(place: Place, real: Runsc) -> None:
    found = found_launch(real, place.equipment.tree, place.equipment.folder)

    assert not found.rootless
    assert (NO_FILES in found.arguments) is (real.version > "2023")
    assert found.platform == ("systrap" if real.version > "2023" else "ptrace")


@pytest.mark.gvisor
def test_a_real_gvisor_that_lacks_a_platform_says_so(place: Place, real: Runsc) -> None:
    if real.version > "2023":
        assert found_launch(real, place.equipment.tree, place.equipment.folder, platform="ptrace").platform == "ptrace"
        return
    with pytest.raises(LaunchError) as caught:
        found_launch(real, place.equipment.tree, place.equipment.folder, platform="systrap")
    assert "unknown platform: systrap" in caught.value.detail
