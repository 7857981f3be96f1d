"""Says in one line of JSON what becomes of code in a real box, started by the real runner where this process stands.

python -m tests.vm.box_probe [CODE]
"""

import asyncio
import json
import os
import platform
import sys

from policy.effective import fixed_limits
from sandbox.cgroups import CgroupParent
from sandbox.equipment import Equipment, found_runsc, prepared
from sandbox.outcome import RunResult
from sandbox.release import release_source
from sandbox.request import RunRequest
from sandbox.runner import Runner

STARTUP_SECONDS = 180.0
RUNTIME_SECONDS = 100


def main() -> int:
    """Run the code, and write how it ended; 1 where there is no gVisor to run it."""
    runsc = found_runsc(release_source(machine=platform.machine()), os.environ)
    if runsc is None:
        sys.stderr.write("no gVisor is installed here: `sandbox install`\n")
        return 1
    equipment = prepared(runsc, os.environ, lambda _: None)
    result = asyncio.run(_ran(equipment, "".join(sys.argv[1:])))
    places = equipment.cgroups.places if isinstance(equipment.cgroups, CgroupParent) else ()
    said = {
        "places": {name: str(place.folder) for place in places for name in sorted(place.controllers)},
        "outcome": result.outcome.value,
        "unenforced": result.unenforced,
        "startup_seconds": round(result.startup_seconds, 1),
        "peak_memory_bytes": result.peak_memory_bytes,
    }
    sys.stdout.write(f"{json.dumps(said)}\n")
    return 0


async def _ran(equipment: Equipment, code: str) -> RunResult:
    limits = fixed_limits({"networking_allowed": False, "max_runtime_seconds": RUNTIME_SECONDS}, "test")
    async with Runner(equipment, startup_seconds=STARTUP_SECONDS) as runner:
        return await runner.run(RunRequest(language="python", code=code, limits=limits, person="somebody"))


if __name__ == "__main__":
    sys.exit(main())
