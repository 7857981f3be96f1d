"""Says in one line of JSON what a process finds where it stands: `python -m tests.vm.probe [--limited]`.

`--limited` also runs a child that takes more memory than its cgroup may have.
"""

import asyncio
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

from sandbox.cgroup_discovery import find_cgroup_parent
from sandbox.cgroup_limits import CgroupLimits
from sandbox.cgroups import CgroupParent, CgroupsUnavailable, make_cgroup

MEBIBYTE = 1 << 20
LIMIT_MEBIBYTES = 48
GREEDY = "bytearray(300 << 20)"
_JOIN_ALL = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@"'


def main() -> int:
    """Write what was found; 0 whatever it is."""
    found = find_cgroup_parent()
    said: dict[str, object] = {"own": Path("/proc/self/cgroup").read_text().strip(), "uid": os.geteuid()}
    match found:
        case CgroupsUnavailable(reason=reason, remedy=remedy):
            said |= {"places": {}, "missing": {}, "reason": reason, "remedy": remedy}
        case CgroupParent(places=places, missing=missing):
            said["places"] = {name: str(place.folder) for place in places for name in sorted(place.controllers)}
            said["missing"] = {str(one.controller): f"{one.reason}. {one.remedy}" for one in missing}
            said |= _limited(found) if "--limited" in sys.argv else {}
    sys.stdout.write(f"{json.dumps(said)}\n")
    return 0


def _limited(parent: CgroupParent) -> dict[str, object]:
    """A child under all three limits that takes too much memory, and what the kernel counted."""
    limits = CgroupLimits(memory_bytes=LIMIT_MEBIBYTES * MEBIBYTE, cpu_thousandths=500, processes_hard_stop=20)
    run = make_cgroup(parent, secrets.token_hex(16), limits)
    procs = map(str, run.procs_files)
    command = ["/bin/sh", "-c", _JOIN_ALL, "sh", *procs, "--", sys.executable, "-I", "-S", "-c", GREEDY]
    ended = subprocess.run(command, check=False, timeout=60)
    counted = run.counters()
    asyncio.run(run.remove())
    left = [str(place.folder) for place in run.places if place.folder.exists()]
    return {
        "exit_code": ended.returncode,
        "oom_kills": counted.oom_kills,
        "peak_memory_bytes": counted.peak_memory_bytes,
        "cpu_seconds": counted.cpu_seconds,
        "left": left,
    }


if __name__ == "__main__":
    sys.exit(main())
