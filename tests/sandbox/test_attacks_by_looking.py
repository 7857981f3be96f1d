"""Attacks that only look: what `/proc`, `/sys` and `/dev` of a box show is gVisor's own, and nothing of the host.

What it does show of the host, and no test forbids: how much memory and how many processors there are.
"""

import ast
import os
import re
import secrets
from pathlib import Path

import pytest

from tests.sandbox.conftest import Place

pytestmark = pytest.mark.gvisor

READ = """
import os
try:
    with open({path!r}, "rb") as file: print(repr(file.read(1 << 16)))
except OSError: print("None")
"""


async def content_of(place: Place, path: str) -> bytes | None:
    output = (await place.run(READ.format(path=path))).output
    found = ast.literal_eval(output)
    assert found is None or isinstance(found, bytes)
    return found


def content_on_the_host(path: str) -> bytes:
    return Path(path).read_bytes()


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param(
            ("kallsyms", "kcore", "kmsg", "modules", "iomem", "ioports", "timer_list", "sched_debug", "slabinfo"),
            id="kernel",
        ),
        pytest.param(("keys", "key-users", "config.gz", "vmallocinfo", "interrupts", "softirqs"), id="keys-and-counts"),
        pytest.param(("diskstats", "partitions", "swaps", "mdstat", "devices", "mtrr"), id="disks-and-devices"),
        pytest.param(
            ("sysrq-trigger", "kpagemap", "kpageflags", "fs", "driver", "bus", "irq", "acpi", "scsi"), id="it"
        ),
        pytest.param(("1/mem", "self/pagemap", "self/syscall", "self/stack", "self/wchan"), id="memory"),
    ],
)
async def test_places_that_tell_of_a_real_kernel_are_absent_or_empty(place: Place, paths: tuple[str, ...]) -> None:
    code = f"""
import os
for path in {paths!r}:
    full = os.path.join("/proc", path)
    try: print(path, os.listdir(full) if os.path.isdir(full) else open(full, "rb").read(1 << 16))
    except OSError: pass
"""
    assert (await place.run(code)).output == ""


async def test_network_tables_know_the_boxes_own_loopback_alone(place: Place) -> None:
    code = """
import re
for name in ("dev", "route", "arp", "tcp", "tcp6", "udp", "unix", "fib_trie", "if_inet6", "wireless", "ipv6_route"):
    try: lines = open(f"/proc/net/{name}").read().splitlines()
    except OSError: continue
    rest = [line for line in lines if not re.match(r" *(sl|Num|IP address|Iface|Inter-|face|[|])", line)]
    foreign = [line for line in rest if not re.match(r" *lo\\b|.*\\blo$", line)]
    if foreign: print(name, foreign)
"""
    assert (await place.run(code)).output == ""


async def test_kernel_command_line_and_version_are_gvisors(place: Place) -> None:
    assert await content_of(place, "/proc/cmdline") != content_on_the_host("/proc/cmdline")
    version = await content_of(place, "/proc/version")
    assert version is not None
    assert os.uname().release.encode() not in version


async def test_mounts_name_no_source_on_the_host(place: Place) -> None:
    mounts = await content_of(place, "/proc/self/mountinfo")

    assert mounts is not None
    points = {line.split()[4].decode() for line in mounts.splitlines()}
    sources = {line.partition(b" - ")[2].split()[1].decode() for line in mounts.splitlines()}
    assert points <= {"/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/tmp"}
    assert sources <= {"none", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "devtmpfs"}


@pytest.mark.parametrize("path", ["/proc/1/environ", "/proc/self/environ", "/proc/thread-self/environ"])
async def test_environment_in_proc_is_the_boxes_own(place: Place, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = secrets.token_hex(16)
    monkeypatch.setenv("SECRET_CANARY", canary)

    environ = await content_of(place, path)

    if environ is None:
        return
    assert canary.encode() not in environ
    names = {entry.partition(b"=")[0] for entry in environ.split(b"\0") if entry}
    assert names <= {b"PATH", b"HOME", b"TMPDIR", b"USER", b"LANG", b"SSL_CERT_FILE"}


async def test_roots_in_proc_are_the_boxes_own(place: Place) -> None:
    code = """
import os
own = sorted(os.listdir("/"))
tricks = ("/proc/1/root", "/proc/self/root", "/proc/1/root/proc/1/root", "/proc/1/task/1/root", "/proc/self/cwd/..")
for trick in tricks:
    try: print(sorted(os.listdir(trick)) == own)
    except OSError: print(True)
print(sorted(name for name in os.listdir("/proc") if name.isdigit()))
"""
    assert (await place.run(code)).output == "True\n" * 5 + "['1']\n"


async def test_sys_shows_no_device_module_or_cgroup_of_the_host(place: Place) -> None:
    code = """
import os
for base, folders, files in os.walk("/sys"):
    for name in (*folders, *files): print(os.path.join(base, name))
"""
    seen = set((await place.run(code)).output.splitlines())

    strange = {path for path in seen if not re.fullmatch(r"/sys/(devices/system/cpu|class/net/lo|fs/cgroup)\b.*", path)}
    assert {path.removeprefix("/sys/") for path in strange} <= {
        *("block", "bus", "class", "class/net", "class/power_supply", "dev", "devices", "devices/system", "firmware"),
        *("fs", "kernel", "module", "power", "devices/virtual", "devices/virtual/net"),
    }
    assert not [path for path in seen if path.startswith("/sys/fs/cgroup/")]


async def test_devices_are_the_harmless_ones(place: Place) -> None:
    devices = set(ast.literal_eval((await place.run("import os; print(os.listdir('/dev'))")).output))

    assert devices <= {
        *("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "console"),
        *("fd", "stdin", "stdout", "stderr", "shm", "mqueue"),
        *("fuse", "net"),  # gVisor's own; without capabilities neither can be used
    }


@pytest.mark.parametrize("path", ["/dev/fuse", "/dev/net/tun"])
async def test_device_that_needs_privileges_cannot_be_used(place: Place, path: str) -> None:
    code = f"""
import fcntl, os
try:
    device = os.open({path!r}, os.O_RDWR)
    fcntl.ioctl(device, 0x400454ca, b"own\\0".ljust(16, b"\\0") + b"\\1\\0" + bytes(22))
    print("used")
except OSError: print("refused")
import ctypes
try: print(ctypes.CDLL(None).mount(b"x", b"/tmp", b"fuse", 0, b"fd=3,rootmode=40000,user_id=0,group_id=0"))
except (ImportError, OSError): print(-1)
"""
    assert (await place.run(code)).output == "refused\n-1\n"


async def test_box_started_after_the_host_knows_no_uptime_and_no_boot_of_the_host(place: Place) -> None:
    uptime = await content_of(place, "/proc/uptime")

    assert uptime is not None
    assert float(uptime.split()[0]) < 60 < float(content_on_the_host("/proc/uptime").split()[0])
    boot = "/proc/sys/kernel/random/boot_id"
    assert await content_of(place, boot) != content_on_the_host(boot)
