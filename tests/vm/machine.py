"""A virtual machine that starts this host's own files under Debian's kernel, in software emulation alone.

The host's root folder is exported read-only, so nothing is copied and nothing of the host can be written; what the
machine writes is kept in its memory. It has no network. Its first serial port is the console, kept in a file; the
second carries one JSON object a line, which `Machine.reports` hands on. Source: qemu(1).
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm.initramfs import initramfs

PORT = Path("/dev/ttyS1")
"""Where a program in the machine writes what it has to report."""
PACKAGES = "apt-get install qemu-system-x86 linux-image-amd64 busybox-static"
PROGRAM = "qemu-system-x86_64"

_BOOT = Path("/boot")
_MODULES = Path("/lib/modules")
_INIT = Path(__file__).with_name("init.sh")
_MEMORY_MEBIBYTES = 3072
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("HOME", "XDG_CACHE_HOME")
"""Variables that say where this user's gVisor is."""
_TAIL_LINES = 80
"""A panic says its reason first, then forty lines of registers and calls."""
_PROCESSOR = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand"
"""Without AVX, whose emulation costs more than it gains; a quarter faster than `max`."""
_KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=4 panic=-1 cgroup_no_v1=all "
    # Other clocks than the processor's own are slow devices here, and what only guards a real host is slow, too.
    "clocksource=tsc tsc=reliable mitigations=off init_on_alloc=0 hardened_usercopy=off rcupdate.rcu_expedited=1"
)
_TERMINAL_CODES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|c)")


class MachineError(Exception):
    """The machine cannot be started, or did not come to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel of this host that the machine can start."""

    image: Path
    """What the bootloader would load."""
    modules: Path
    """The folder of its modules."""


def newest_kernel(boot: Path = _BOOT, modules: Path = _MODULES) -> Kernel:
    """Find the newest kernel of this host that has its modules.

    Raises:
        MachineError: there is none.
    """
    found = [
        Kernel(image=image, modules=modules / release)
        for image in boot.glob("vmlinuz-*")
        if (modules / (release := image.name.removeprefix("vmlinuz-")) / "modules.dep").exists()
    ]
    if not found:
        raise MachineError(f"no kernel with its modules in {boot} and {modules}: {PACKAGES}")
    return max(found, key=lambda kernel: [int(number) for number in re.findall(r"\d+", kernel.image.name)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What to start, and how long it may take."""

    kernel: Kernel
    """The kernel."""
    command: Sequence[str]
    """The program to run as root, once, with its arguments; when it ends, so does the machine."""
    folder: Path
    """The folder in which it starts."""
    console: Path
    """The file that gets everything written to the console."""
    deadline_seconds: float
    """When the machine is switched off, whatever it does."""

    def reports(self) -> Iterator[dict[str, object]]:
        """Start the machine, and hand on each report as it comes, until the machine has switched itself off.

        Raises:
            MachineError: it was switched off at the deadline, or wrote what is no report.
        """
        with tempfile.TemporaryDirectory(prefix="sandbox-vm-") as folder:
            archive = Path(folder) / "initramfs"
            archive.write_bytes(initramfs(self.kernel.modules, _static_busybox(), _INIT.read_text(), self._then()))
            yield from self._reports_of(_started(self.kernel.image, archive, self.console))

    def last_words(self) -> str:
        """The last lines on the console."""
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        lines = [_TERMINAL_CODES.sub("", line).rstrip() for line in text.splitlines()]
        return "\n".join([line for line in lines if line][-_TAIL_LINES:])

    def _then(self) -> str:
        """The script that runs as process 1, which may not end."""
        variables = {"PATH": _PATH, "HOME": "/root", **{name: os.environ[name] for name in _KEPT if name in os.environ}}
        assigned = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        start = f"cd {shlex.quote(str(self.folder))} && {assigned} {shlex.join(self.command)}"
        return f"{start}\necho b > /proc/sysrq-trigger\n"

    def _reports_of(self, qemu: subprocess.Popen[str]) -> Iterator[dict[str, object]]:
        overdue = threading.Event()

        def switch_off() -> None:
            overdue.set()
            qemu.kill()

        timer = threading.Timer(self.deadline_seconds, switch_off)
        timer.start()
        try:
            for line in qemu.stdout or ():
                yield _parsed(line)
        finally:
            timer.cancel()
            qemu.kill()
            said = qemu.communicate()[1]
        if overdue.is_set():
            raise MachineError(f"it was switched off after {self.deadline_seconds:.0f} s")
        if qemu.returncode > 0:
            raise MachineError(f"{PROGRAM} failed: {said.strip()}")


def _started(kernel: Path, archive: Path, console: Path) -> subprocess.Popen[str]:
    console.parent.mkdir(parents=True, exist_ok=True)
    console.unlink(missing_ok=True)
    return subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "KILL", "--", PROGRAM),
            *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", _PROCESSOR, "-smp", "2"),
            *("-m", str(_MEMORY_MEBIBYTES), "-nodefaults", "-display", "none", "-nic", "none", "-no-reboot"),
            *("-kernel", str(kernel), "-initrd", str(archive), "-append", _KERNEL_ARGUMENTS),
            *("-serial", f"file:{console}", "-serial", "stdio"),
            *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def _parsed(line: str) -> dict[str, object]:
    try:
        report = json.loads(line)
    except ValueError:
        raise MachineError(f"it wrote what is no report: {line.strip()[:200]}") from None
    if not isinstance(report, dict):
        raise MachineError(f"it wrote what is no report: {line.strip()[:200]}")
    return report


def _static_busybox() -> Path:
    """Find a busybox that needs no shared library, of which the initramfs has none.

    Raises:
        MachineError: there is none.
    """
    found = shutil.which("busybox", path="/usr/bin:/bin")
    if found is None or b"/ld-linux" in Path(found).read_bytes():
        raise MachineError(f"no busybox without shared libraries: {PACKAGES}")
    return Path(found)
