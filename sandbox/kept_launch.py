"""Keeps how boxes start here, so that only the first start after a boot has to find out.

It holds for one boot, kernel, user, container, set of rights and `runsc`, and lies in the private folder, which only
this user can write. Anything that cannot be read, or is of another place, is none.
"""

import json
import secrets
from contextlib import suppress
from pathlib import Path

from sandbox.gvisor import Runsc
from sandbox.host_binding import host_binding
from sandbox.launch import Launch

LAUNCH_FORMAT = 1
"""Raised with every change of what is tried, or in which order."""
_LAUNCH_FILE = "launch.json"
_RIGHTS = ("CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:")


def launch_binding(runsc: Runsc, wanted_platform: str | None) -> dict[str, str]:
    """Everything that the way of starting depends on, at this moment. Source: proc(5), namespaces(7)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return {
        **host_binding(runsc),
        "format": str(LAUNCH_FORMAT),
        "place": " ".join(str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("mnt", "user")),
        "rights": " ".join(" ".join(line.split()) for line in status if line.startswith(_RIGHTS)),
        "platform": wanted_platform or "",
    }


def kept_launch(folder: Path, binding: dict[str, str]) -> Launch | None:
    """How boxes start, where that is known of this very place.

    Args:
        folder: the private folder.
        binding: what it must be bound to.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads((folder / _LAUNCH_FILE).read_text())
        if kept["binding"] == binding:
            return Launch(arguments=tuple(kept["arguments"]), rootless=kept["rootless"], platform=kept["platform"])
    return None


def keep_launch(folder: Path, binding: dict[str, str], launch: Launch) -> None:
    """Keep how boxes start; a full disk keeps nothing, and the next start finds out again.

    Args:
        folder: the private folder.
        binding: what it is bound to.
        launch: what was found.
    """
    kept = {
        "binding": binding,
        "arguments": launch.arguments,
        "rootless": launch.rootless,
        "platform": launch.platform,
    }
    with suppress(OSError):
        partial = folder / f".{_LAUNCH_FILE}-{secrets.token_hex(8)}"
        partial.write_text(json.dumps(kept, indent=1))
        partial.rename(folder / _LAUNCH_FILE)


def forget_launch(folder: Path) -> None:
    """Have the next start find out anew."""
    with suppress(OSError):
        (folder / _LAUNCH_FILE).unlink(missing_ok=True)
