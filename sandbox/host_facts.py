"""Gathers what can be found of this process's surroundings: rights, filters, masks, and what a child is let do.

A child tries the very calls that gVisor needs, and tells the exact errors: reading settings alone cannot tell a filter
from a profile, and a filter's rules cannot be read at all. It is a Python of its own, since the calls change the
process that makes them; it ends at once, and its namespaces and mounts with it.
Source: proc(5), user_namespaces(7), mount(2), pivot_root(2); the kernel's Documentation/admin-guide/LSM.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from sandbox.preflight import HostFacts, Surroundings

TRIAL_SECONDS = 20.0
CAPABILITY_BITS = {"SETGID": 6, "SETUID": 7, "NET_ADMIN": 12, "SYS_CHROOT": 18, "SYS_ADMIN": 21, "SETFCAP": 31}
_LIMITING_CONTROLLERS = frozenset({"memory", "cpu", "pids"})

TRIAL = """
import ctypes, json, os, platform, sys

NEW_MOUNTS, NEW_USERS, NEW_PROCESSES, RECURSIVE_PRIVATE = 0x20000, 0x10000000, 0x20000000, 0x44000
CLONE, PIVOT_ROOT = {"x86_64": (56, 155), "aarch64": (220, 41)}.get(platform.machine(), (None, None))
libc = ctypes.CDLL(None, use_errno=True)

def error(function, *arguments):
    ctypes.set_errno(0)
    return 0 if function(*arguments) >= 0 else ctypes.get_errno()

def cloned():
    result = libc.syscall(CLONE, NEW_USERS | 17, 0, 0, 0, 0)
    if result == 0:
        os._exit(0)
    return result

def in_child(work):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, json.dumps(work()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return json.loads(pipe.read() or "{}")

def write(path, text):
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as failed:
        return failed.errno
    return 0

def mounts():
    place = next(path for path in (b"/tmp", b"/mnt", b"/run", b"/dev") if os.path.isdir(path))
    found = {"unshare": error(libc.unshare, NEW_MOUNTS | NEW_PROCESSES)}
    if not found["unshare"]:
        found["mount"] = error(libc.mount, b"none", b"/", None, RECURSIVE_PRIVATE, None) or error(
            libc.mount, b"tmpfs", place, b"tmpfs", 0, None)
    if not found.get("mount", 1) and PIVOT_ROOT:
        os.chdir(place)
        found["pivot_root"] = error(libc.syscall, PIVOT_ROOT, b".", b".")
        found["chroot"] = error(libc.chroot, b".")
    return found

def as_root():
    # of a process without the rights, only a filter forbids to unshare nothing
    return mounts() if "SYS_ADMIN" in sys.argv else {"unshare": error(libc.unshare, 0)}

def rootless():
    user, group = os.geteuid(), os.getegid()
    found = {"unshare": error(libc.unshare, NEW_USERS)}
    if found["unshare"]:
        return found
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"0 {user} 1")
    write("/proc/self/gid_map", f"0 {group} 1")
    return mounts()

clone = {"clone": error(cloned)} if CLONE else {}
print(json.dumps([{**clone, **in_child(as_root)}, {**clone, **in_child(rootless)}]))
"""
"""Prints what it tried as root, and in a user namespace of its own, each with the error number."""


def host_facts() -> HostFacts:
    """What is found here now; takes a tenth of a second."""
    status = _status_fields()
    effective = _capabilities(status.get("CapEff", "0"))
    tried_as_root, tried_rootless = _tried(has_sys_admin="SYS_ADMIN" in effective)
    mounts = _words(Path("/proc/self/mountinfo")).splitlines()
    selinux_enforces = _words(Path("/sys/fs/selinux/enforce")) == "1"
    return HostFacts(
        surroundings=surroundings_here(),
        root=os.geteuid() == 0,
        inside_gvisor="gVisor" in _words(Path("/proc/version")),
        effective=effective,
        bounding=_capabilities(status.get("CapBnd", "0")),
        filtered=status.get("Seccomp", "0") != "0",
        tried_as_root=tried_as_root,
        tried_rootless=tried_rootless,
        masked_proc=masked_below_proc(mounts),
        most_user_namespaces=_number(Path("/proc/sys/user/max_user_namespaces")),
        user_namespaces_for_root_alone=_number(Path("/proc/sys/kernel/unprivileged_userns_clone")) == 0,
        apparmor_holds_user_namespaces=_number(Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")) == 1,
        apparmor=_apparmor_profile(),
        selinux=_words(Path("/proc/self/attr/current")) if selinux_enforces else "",
        cgroups_read_only=not cgroups_writable(mounts),
        cgroups_elsewhere=in_own_cgroup_namespace(mounts, _words(Path("/proc/self/cgroup")).splitlines()),
    )


def surroundings_here() -> Surroundings:
    """What kind of place this is."""
    if Path("/var/run/secrets/kubernetes.io").exists():
        return Surroundings.KUBERNETES
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return Surroundings.CONTAINER
    return Surroundings.HOST


def masked_below_proc(mountinfo: list[str]) -> tuple[str, ...]:
    """What is mounted over something below /proc, in the lines of a mountinfo."""
    points = [line.split(" ")[4] for line in mountinfo]
    return tuple(point for point in points if point.startswith("/proc/"))


def cgroups_writable(mountinfo: list[str]) -> bool:
    """Whether some cgroup hierarchy that can limit is mounted writable, by the lines of a mountinfo."""
    return any("rw" in options for options, _, _ in _limiting_hierarchies(mountinfo))


def in_own_cgroup_namespace(mountinfo: list[str], own: list[str]) -> bool:
    """Whether what is mounted begins elsewhere than where this process believes to be.

    Args:
        mountinfo: the lines of `/proc/self/mountinfo`.
        own: the lines of `/proc/self/cgroup`.
    """
    unified = next((line[3:] for line in own if line.startswith("0::")), "/")
    roots = [root for _, root, kind in _limiting_hierarchies(mountinfo) if kind == "cgroup2"]
    hidden = any(".." in PurePosixPath(root).parts for root in roots)
    # of the true root cgroup alone there is no such file
    inner = unified == "/" and Path("/sys/fs/cgroup/cgroup.type").exists()
    return bool(roots) and (hidden or inner)


def _limiting_hierarchies(mountinfo: list[str]) -> list[tuple[set[str], str, str]]:
    """Options, root and kind of each mounted hierarchy that has a controller of ours."""
    found: list[tuple[set[str], str, str]] = []
    for line in mountinfo:
        mount, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and _LIMITING_CONTROLLERS & set(options.split(","))):
            fields = mount.split(" ")
            found.append((set(fields[5].split(",")), fields[3], kind))
    return found


def _tried(*, has_sys_admin: bool) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """What a child found; nothing where it could not even run."""
    words = ["SYS_ADMIN"] if has_sys_admin else []
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", TRIAL, *words],
            capture_output=True,
            cwd="/",
            timeout=TRIAL_SECONDS,
            check=True,
        )
        as_root, rootless = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}, {}
    return as_root, rootless


def _status_fields() -> dict[str, str]:
    lines = _words(Path("/proc/self/status")).splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _capabilities(hexadecimal: str) -> frozenset[str]:
    return frozenset(name for name, bit in CAPABILITY_BITS.items() if int(hexadecimal, 16) >> bit & 1)


def _apparmor_profile() -> str:
    """The profile that confines this process, without its mode; empty where none does."""
    said = _words(Path("/proc/self/attr/apparmor/current")) or _words(Path("/proc/self/attr/current"))
    name, _, mode = said.partition(" ")
    return name if mode == "(enforce)" else ""


def _words(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _words(path)
    return int(text) if text.isdecimal() else None
