"""When the proof of before still counts, and what a new one finds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from sandbox.errors import UnenforceableError
from sandbox.proof import PROOFS_FOLDER, HostProof, ProofBinding, keep_proof, kept_proof, proof_binding
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


LOOSENING = """#!/bin/sh
cgroup={memory}/sandbox-lockdown/$(grep :memory: /proc/self/cgroup | sed 's|.*/||')
for file in memory.memsw.limit_in_bytes memory.limit_in_bytes; do
    [ ! -e "$cgroup/$file" ] || echo -1 > "$cgroup/$file"
done
[ ! -e "$cgroup/memory.max" ] || echo max > "$cgroup/memory.max"
exec {runsc} "$@"
"""
"""A gVisor whose RAM limit is taken away behind our back, as by a kernel that keeps it and does not enforce it."""


@pytest.mark.gvisor
async def test_limit_that_does_not_bite_is_found_and_not_kept(place: Place, tmp_path: Path) -> None:
    (memory,) = [one.folder for one in place.cgroups.places if "memory" in one.controllers]
    loosening = tmp_path / "runsc"
    loosening.write_text(LOOSENING.format(memory=memory, runsc=place.equipment.runsc.path))
    loosening.chmod(0o755)
    loose = replace(place.equipment, runsc=replace(place.equipment.runsc, path=loosening))

    proved = await with_new_proof(loose)

    assert proved.proof is not None
    assert set(proved.proof.broken) == {"max_ram_megabytes"}
    assert with_kept_proof(loose).proof is None
    with pytest.raises(UnenforceableError, match="the start-up probe broke it"):
        await ran(proved, request_of("print(1)"))


@pytest.mark.gvisor
def test_binding_names_boot_user_cgroup_kernel_and_gvisor(place: Place) -> None:
    facts = proof_binding(place.equipment.runsc, place.equipment.tree.digest, place.equipment.cgroups).facts

    assert set(facts) >= {"boot", "uid", "cgroups", "kernel", "runsc", "tree"}
    assert all(value for name, value in facts.items() if name != "arguments")
