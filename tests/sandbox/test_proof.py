"""When the proof of before still counts, and what a new one finds."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from sandbox.cgroup_places import LIMIT_OF_CONTROLLER
from sandbox.equipment import Equipment
from sandbox.errors import UnenforceableError
from sandbox.proof import (
    MOST_PROOFS_KEPT,
    PROOFS_FOLDER,
    HostProof,
    ProofBinding,
    keep_proof,
    kept_proof,
    proof_binding,
)
from sandbox.proving import with_kept_proof, with_new_proof
from tests.sandbox.conftest import Place, ran, request_of

FACTS = {"boot": "b", "uid": "0", "cgroups": "c", "kernel": "k", "runsc": "r", "tree": "t"}


def binding_of(**facts: str) -> ProofBinding:
    return ProofBinding(facts=MappingProxyType({**FACTS, **facts}))


def test_kept_proof_is_found_again(tmp_path: Path) -> None:
    keep_proof(tmp_path, binding_of())

    found = kept_proof(tmp_path, binding_of())

    assert found is not None
    assert found.broken == {}


@pytest.mark.parametrize("fact", sorted(FACTS))
def test_proof_of_another_set_up_does_not_count(tmp_path: Path, fact: str) -> None:
    keep_proof(tmp_path, binding_of())

    assert kept_proof(tmp_path, binding_of(**{fact: "another"})) is None


def test_proof_of_another_boot_is_removed(tmp_path: Path) -> None:
    keep_proof(tmp_path, binding_of())
    keep_proof(tmp_path, binding_of(boot="later"))

    assert len(list((tmp_path / PROOFS_FOLDER).iterdir())) == 1


def test_of_many_proofs_of_one_boot_those_used_last_are_kept(tmp_path: Path) -> None:
    for number in range(MOST_PROOFS_KEPT):
        keep_proof(tmp_path, binding_of(cgroups=f"{number}"))
        path = tmp_path / PROOFS_FOLDER / f"{binding_of(cgroups=f'{number}').digest}.json"
        os.utime(path, (number, number))
    assert kept_proof(tmp_path, binding_of(cgroups="0")) is not None  # which counts as use

    keep_proof(tmp_path, binding_of(cgroups="one more"))

    kept = {name for name in ("0", "1", "2", "one more") if kept_proof(tmp_path, binding_of(cgroups=name))}
    assert kept == {"0", "2", "one more"}
    assert len(list((tmp_path / PROOFS_FOLDER).iterdir())) == MOST_PROOFS_KEPT


def test_spoilt_proof_of_another_set_up_is_removed(tmp_path: Path) -> None:
    keep_proof(tmp_path, binding_of())
    (file,) = (tmp_path / PROOFS_FOLDER).iterdir()
    file.write_text("[")

    keep_proof(tmp_path, binding_of(cgroups="another"))

    assert not file.exists()


@pytest.mark.parametrize(
    ("broken", "later_seconds", "lasts"),
    [
        pytest.param({}, 10**6, True, id="what-held-holds"),
        pytest.param({"max_ram_megabytes": "it was had"}, 59, True, id="what-broke-is-broken-for-a-minute"),
        pytest.param({"max_ram_megabytes": "it was had"}, 61, False, id="then-it-is-tried-again"),
    ],
)
def test_broken_limit_may_have_been_a_busy_host(broken: dict[str, str], later_seconds: float, lasts: bool) -> None:  # noqa: FBT001 -- a table's
    assert HostProof(broken=broken, found_at=100.0).lasts(100.0 + later_seconds) is lasts


def _emptied(file: Path) -> None:
    file.write_text("")


def _swapped(file: Path) -> None:
    file.write_text('{"boot": "b"}')


def _unreadable(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("spoil", [_emptied, _swapped, _unreadable])
def test_spoilt_proof_is_none(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    keep_proof(tmp_path, binding_of())
    (file,) = (tmp_path / PROOFS_FOLDER).iterdir()
    spoil(file)

    assert kept_proof(tmp_path, binding_of()) is None


@pytest.mark.gvisor
async def test_new_proof_holds_every_limit_and_is_kept(place: Place) -> None:
    proved = await with_new_proof(place.equipment)

    kept = with_kept_proof(place.equipment).proof
    assert proved.proof is not None
    assert kept is not None
    assert proved.proof.broken == kept.broken == {}


LOOSENED_FILES = {
    "max_ram_megabytes": {"memory.memsw.limit_in_bytes": "-1", "memory.limit_in_bytes": "-1", "memory.max": "max"},
    "max_cpus": {"cpu.cfs_quota_us": "-1", "cpu.max": "max 100000"},
    "max_processes": {"pids.max": "max"},
}
"""By limit, the files of its cgroup, on v1 and v2, and what takes the limit away."""
LOOSENING = """#!/bin/sh
/bin/sh {loosener} {folder}/sandbox-lockdown/$(sed -n 's|.*/sandbox-lockdown/.*/||p' /proc/self/cgroup | head -n 1) \\
    </dev/null >/dev/null 2>&1 &
exec {runsc} "$@"
"""
"""A gVisor whose limit is taken away behind our back, as by a kernel that keeps it and does not enforce it."""


def loosening_gvisor(place: Place, folder: Path, limit: str) -> Equipment:
    """Equipment with a gVisor for which one limit of its cgroup never holds."""
    (controller,) = [name for name, of in LIMIT_OF_CONTROLLER.items() if of == limit]
    (above,) = [one.folder for one in place.cgroups.places if controller in one.controllers]
    loosener, program = folder / "loosener", folder / "runsc"
    files = LOOSENED_FILES[limit].items()
    writing = "\n".join(f"[ ! -e $1/{name} ] || echo {value} > $1/{name}" for name, value in files)
    loosener.write_text(f"while [ -d $1 ]; do\n{writing}\nsleep 0.05\ndone\n")
    program.write_text(LOOSENING.format(loosener=loosener, folder=above, runsc=place.equipment.runsc.path))
    program.chmod(0o755)
    return replace(place.equipment, runsc=replace(place.equipment.runsc, path=program))


@pytest.mark.gvisor
@pytest.mark.parametrize("limit", LOOSENED_FILES)
async def test_limit_that_does_not_bite_is_found_and_not_kept(place: Place, tmp_path: Path, limit: str) -> None:
    loose = loosening_gvisor(place, tmp_path, limit)

    proved = await with_new_proof(loose)
    for _ in range(2):  # where the processor is busy with others, code does not get even what it may have
        if proved.proof is not None and not proved.proof.broken:
            shutil.rmtree(loose.folder / PROOFS_FOLDER)
            proved = await with_new_proof(loose)

    assert proved.proof is not None
    assert set(proved.proof.broken) == {limit}
    assert with_kept_proof(loose).proof is None
    with pytest.raises(UnenforceableError, match="the start-up probe broke it"):
        await ran(proved, request_of("print(1)"))


@pytest.mark.gvisor
async def test_gvisor_exchanged_while_it_is_proved_does_not_get_the_proof(place: Place, tmp_path: Path) -> None:
    program = tmp_path / "runsc"
    program.write_text(f'#!/bin/sh\ntouch -d 2001-01-01 $0\nexec {place.equipment.runsc.path} "$@"\n')
    program.chmod(0o755)
    exchanged = replace(place.equipment, runsc=replace(place.equipment.runsc, path=program))

    proved = await with_new_proof(exchanged)

    assert proved.proof is not None
    assert proved.proof.broken == {}
    assert with_kept_proof(exchanged).proof is None


@pytest.mark.gvisor
def test_binding_names_boot_user_cgroup_kernel_and_gvisor(place: Place) -> None:
    facts = proof_binding(place.equipment.runsc, place.equipment.tree.digest, place.equipment.cgroups).facts

    assert set(facts) >= {"boot", "uid", "cgroups", "kernel", "runsc", "tree"}
    assert all(value for name, value in facts.items() if name != "arguments")
