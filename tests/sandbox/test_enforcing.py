"""What is refused, and what is named, where a limit cannot be enforced."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from policy.values import UNLIMITED
from sandbox.cgroup_limits import CgroupLimits
from sandbox.cgroup_places import CgroupController, CgroupPlace, CgroupVersion
from sandbox.cgroups import CgroupParent, CgroupsUnavailable, MissingController
from sandbox.enforcing import enforceable
from sandbox.errors import UnenforceableError
from sandbox.proof import HostProof
from tests.sandbox.conftest import limits_of

WANTED = CgroupLimits(memory_bytes=1 << 27, cpu_thousandths=1000, processes_hard_stop=1280)
ALL_HERE = CgroupParent(
    places=(
        CgroupPlace(folder=Path("/c"), version=CgroupVersion.V2, controllers=frozenset({"memory", "cpu", "pids"})),
    ),
    missing=(),
)
NO_PIDS = CgroupParent(
    places=ALL_HERE.places,
    missing=(MissingController(controller=CgroupController.PIDS, reason="it is not there", remedy="Mount it"),),
)
NONE = CgroupsUnavailable(reason="there are none", remedy="Mount them")


def proof_of(**broken: str) -> HostProof:
    return HostProof(broken=broken)


def test_everything_that_is_here_is_enforced() -> None:
    found = enforceable(WANTED, limits_of(), ALL_HERE, proof_of())

    assert found.cgroup_limits == WANTED
    assert found.unenforced == ()


def test_a_missing_controller_is_refused_with_limit_and_remedy() -> None:
    with pytest.raises(UnenforceableError) as caught:
        enforceable(WANTED, limits_of(), NO_PIDS, proof_of())

    assert caught.value.key == "max_processes"
    assert "it is not there" in caught.value.reason
    assert caught.value.remedy == "Mount it. Or permit runs without it by SANDBOX_REQUIRE_RESOURCE_LIMITING=false"


def test_where_permitted_a_missing_controller_is_named_alone() -> None:
    found = enforceable(WANTED, limits_of(require_resource_limiting=False), NO_PIDS, proof_of())

    assert found.unenforced == ("max_processes",)
    assert found.cgroup_limits.processes_hard_stop is None
    assert found.cgroup_limits.memory_bytes == WANTED.memory_bytes


@pytest.mark.parametrize(
    ("broken", "permitted"),
    [
        pytest.param({"max_ram_megabytes": "it was had"}, True, id="ram"),
        pytest.param({"max_disk_megabytes": "it was had"}, True, id="disk"),
        pytest.param({"networking_allowed": "it got out"}, False, id="network"),
        pytest.param({"max_runtime_seconds": "it went on"}, False, id="runtime"),
        pytest.param({"max_output_kilobytes": "it was kept"}, False, id="output"),
    ],
)
def test_a_limit_that_the_probe_broke(broken: Mapping[str, str], permitted: bool) -> None:  # noqa: FBT001 -- a table's
    (name,) = broken

    with pytest.raises(UnenforceableError, match=name):
        enforceable(WANTED, limits_of(), ALL_HERE, proof_of(**broken))
    lenient = limits_of(require_resource_limiting=False)
    if permitted:
        assert enforceable(WANTED, lenient, ALL_HERE, proof_of(**broken)).unenforced == (name,)
    else:
        with pytest.raises(UnenforceableError, match=name):
            enforceable(WANTED, lenient, ALL_HERE, proof_of(**broken))


def test_a_limit_that_nobody_set_needs_no_enforcing() -> None:
    free = CgroupLimits(memory_bytes=None, cpu_thousandths=None, processes_hard_stop=None)
    limits = limits_of(max_ram_megabytes=UNLIMITED, max_cpus=UNLIMITED, max_processes=UNLIMITED)

    assert enforceable(free, limits, NONE, proof_of(max_ram_megabytes="it was had")).unenforced == ()


def test_without_any_cgroup_every_resource_limit_is_named() -> None:
    found = enforceable(WANTED, limits_of(require_resource_limiting=False), NONE, None)

    assert found.unenforced == ("max_ram_megabytes", "max_cpus", "max_processes")
