"""What all that is found out about a host is bound to, so that it is found out anew where any of it changes."""

import os
import platform
from pathlib import Path

from sandbox.gvisor import Runsc

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def host_binding(runsc: Runsc) -> dict[str, str]:
    """This boot, kernel and user, and this very `runsc` with its arguments, at this moment. Source: proc(5)."""
    return {
        "boot": _BOOT_ID.read_text().strip(),
        "uid": str(os.geteuid()),
        "kernel": f"{platform.release()} {platform.version()}",
        "runsc": f"{runsc.path} {runsc.version} {program_stamp(runsc.path)}",
        "arguments": " ".join(runsc.arguments),
    }


def program_stamp(path: Path) -> str:
    """What is different once a program was put in the place of another: size, time and inode.

    Raises:
        OSError: it is not there.
    """
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"
