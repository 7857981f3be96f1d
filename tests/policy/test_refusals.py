"""Reason codes: each is reached through a live policy, with its key, place and remedy; the first in order is named."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from policy.errors import DocumentError, Problem, SetRefusedError, StateError
from policy.load import PolicyReader
from policy.refusals import CLOCK_REMEDY, PASSING_CODES, RefusalCode, refused
from policy.remembered import Remembered
from tests.policy.instances import MALLORY, NOW, PATH, SECOND, Instance, policy, unsigned

FIRST, SECOND_FILE = f"{PATH}/1.toml", f"{PATH}/2.toml"
T = TypeVar("T")


class DamagedMemory:
    """A memory whose file is damaged."""

    def read(self) -> Remembered:
        raise self._error

    def change(self, decide: Callable[[Remembered], tuple[T, Remembered]]) -> T:  # noqa: ARG002 -- the protocol's shape
        raise self._error

    @property
    def _error(self) -> StateError:
        reason, remedy = "it is damaged", "Restore it from a backup"
        return StateError((Problem(key="policy state", origin="/state/policies.json", reason=reason, remedy=remedy),))


def after(*files: bytes, then: tuple[bytes, ...]) -> Instance:
    """An instance that accepted some files and finds others now."""
    instance = Instance(*files)
    assert instance.code() is None
    instance.ship(*then)
    return instance


def clocked(instance: Instance, offset: timedelta) -> Instance:
    instance.now += offset
    return instance


def refusal_of(instance: Instance) -> SetRefusedError:
    """Why the set is refused, whether or not an earlier one holds in its place."""
    try:
        stand_in = instance.situation().stand_in
    except SetRefusedError as refusal:
        return refusal
    assert stand_in is not None
    return stand_in.refusal


def unreadable() -> Instance:
    def closed(path: Path, _unsigned: bool) -> Mapping[str, bytes]:  # noqa: FBT001 -- the protocol's shape
        words = ("the running user may not open it", "Permit the running user to open it and its folders")
        raise DocumentError((Problem(key="policy file", origin=str(path), reason=words[0], remedy=words[1]),))

    return Instance(reader=PolicyReader(policies=closed, keys=lambda _path: {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to be refused, and what is said of it first."""

    code: RefusalCode
    instance: Callable[[], Instance]
    key: str
    origin: str
    remedy: str
    reason: str


CASES = {
    "no path though a policy is required": Case(
        code=RefusalCode.POLICY_MISSING,
        instance=lambda: Instance(SANDBOX_POLICY_PATH="", SANDBOX_POLICY_REQUIRED="true"),
        key="SANDBOX_POLICY_PATH",
        origin="environment",
        remedy="Set it",
        reason="SANDBOX_POLICY_REQUIRED is true, and this is not set",
    ),
    "no key": Case(
        code=RefusalCode.KEYS_INVALID,
        instance=lambda: Instance(policy(), SANDBOX_POLICY_KEYS=""),
        key="SANDBOX_POLICY_KEYS",
        origin="environment",
        remedy="Name the public keys that sign your policies",
        reason="SANDBOX_POLICY_PATH is set, and no key is, so no signature can count",
    ),
    "fewer keys than the threshold": Case(
        code=RefusalCode.KEYS_INVALID,
        instance=lambda: Instance(policy(), SANDBOX_POLICY_THRESHOLD="2"),
        key="SANDBOX_POLICY_THRESHOLD",
        origin="environment",
        remedy="Lower it, or add keys",
        reason="it asks for 2 keys, and SANDBOX_POLICY_KEYS holds 1 distinct ones",
    ),
    "damaged state": Case(
        code=RefusalCode.STATE_INVALID,
        instance=lambda: Instance(policy(), memory=DamagedMemory()),
        key="policy state",
        origin="/state/policies.json",
        remedy="Restore it from a backup",
        reason="it is damaged",
    ),
    "unreadable file": Case(
        code=RefusalCode.UNREADABLE,
        instance=unreadable,
        key="policy file",
        origin=PATH,
        remedy="Permit the running user to open it and its folders",
        reason="the running user may not open it",
    ),
    "unsigned file": Case(
        code=RefusalCode.SIGNATURE_INVALID,
        instance=lambda: Instance(unsigned()),
        key="signatures",
        origin=FIRST,
        remedy="Have it signed with a trusted key: policy sign --key NAME.key FILE",
        reason="0 of the trusted keys signed it, and 1 must; it has no signature",
    ),
    "signed by a stranger": Case(
        code=RefusalCode.SIGNATURE_INVALID,
        instance=lambda: Instance(policy({}, MALLORY)),
        key="signatures",
        origin=FIRST,
        remedy="Have it signed with a trusted key: policy sign --key NAME.key FILE",
        reason="0 of the trusted keys signed it, and 1 must; signatures of keys not trusted here: "
        f"{MALLORY.public.key_id}",
    ),
    "unknown limit": Case(
        code=RefusalCode.DOCUMENT_INVALID,
        instance=lambda: Instance(policy({"max_cpu": 1})),
        key="limits.max_cpu",
        origin=f"{FIRST}:11",
        remedy="You may have meant max_cpus",
        reason="there is no such key",
    ),
    "for another instance": Case(
        code=RefusalCode.WRONG_AUDIENCE,
        instance=lambda: Instance(policy(audience=["prod-us"])),
        key="audience",
        origin=FIRST,
        remedy="Ship the policy meant for this instance, or correct SANDBOX_INSTANCE",
        reason="it is for prod-us, and this instance is prod-eu",
    ),
    "one id twice": Case(
        code=RefusalCode.SET_INVALID,
        instance=lambda: Instance(policy(), policy(serial=8)),
        key="id",
        origin=SECOND_FILE,
        remedy="Give each file an id of its own",
        reason=f"{FIRST} has the id acme-prod too",
    ),
    "different locks": Case(
        code=RefusalCode.SET_INVALID,
        instance=lambda: Instance(policy({"max_cpus": 1}), policy({"max_cpus": 2}, id="b")),
        key="limits.max_cpus",
        origin=f"{SECOND_FILE}:11",
        remedy="Keep one of the two locks",
        reason=f"it locks 2 CPUs, and {FIRST}:11 locks another value",
    ),
    "retired file still there": Case(
        code=RefusalCode.SET_INVALID,
        instance=lambda: Instance(policy(retires=["b"]), policy(id="b")),
        key="retires",
        origin=FIRST,
        remedy="Remove the retired file",
        reason="it retires b, which is still here",
    ),
    "lower serial": Case(
        code=RefusalCode.ROLLBACK,
        instance=lambda: after(policy(serial=8), then=(policy(serial=7),)),
        key="serial",
        origin=FIRST,
        remedy="Ship the newer policy; to go back, sign the older text with a higher serial and rollback_of",
        reason="serial 7 is lower than 8, which this instance accepted before",
    ),
    "same serial, other text": Case(
        code=RefusalCode.SERIAL_CONFLICT,
        instance=lambda: after(policy(), then=(policy({"max_cpus": 1}),)),
        key="serial",
        origin=FIRST,
        remedy="Raise the serial",
        reason="serial 7 was accepted before with another text",
    ),
    "serial below the environment's": Case(
        code=RefusalCode.SERIAL_TOO_LOW,
        instance=lambda: Instance(policy(), SANDBOX_POLICY_MIN_SERIAL="acme-prod=8"),
        key="serial",
        origin=FIRST,
        remedy="Ship the newer policy; this may be a rollback",
        reason="serial 7 is below 8, the least that SANDBOX_POLICY_MIN_SERIAL permits",
    ),
    "id that the environment requires": Case(
        code=RefusalCode.ID_MISSING,
        instance=lambda: Instance(policy(), SANDBOX_POLICY_IDS="acme-prod,base"),
        key="SANDBOX_POLICY_IDS",
        origin="environment",
        remedy="Ship that file, or correct the id",
        reason="no policy file has the id base",
    ),
    "id that a file requires": Case(
        code=RefusalCode.ID_MISSING,
        instance=lambda: Instance(policy(requires=["base"])),
        key="requires",
        origin=FIRST,
        remedy="Ship that file too",
        reason="it requires base, and no policy file has that id",
    ),
    "id gone": Case(
        code=RefusalCode.ID_GONE,
        instance=lambda: after(policy(), policy(id="b", serial=3), then=(policy(),)),
        key="b",
        origin="policy set",
        remedy="Ship it again, retire it in another policy, or run policy status --forget b",
        reason="no file has this id, whose serial 3 was accepted before, and none retires it",
    ),
    "expired": Case(
        code=RefusalCode.EXPIRED,
        instance=lambda: Instance(policy(expires_at=NOW)),
        key="expires_at",
        origin=FIRST,
        remedy="Issue it anew with a higher serial and a later date",
        reason="it expired at 2026-12-01T00:00:00+00:00",
    ),
    "not yet valid": Case(
        code=RefusalCode.NOT_YET_VALID,
        instance=lambda: Instance(policy(not_before=NOW + SECOND)),
        key="not_before",
        origin=FIRST,
        remedy="Ship it later",
        reason="it holds from 2026-12-01T00:00:01+00:00 on",
    ),
    "issued in the future": Case(
        code=RefusalCode.CLOCK_BEHIND,
        instance=lambda: Instance(policy(issued_at=NOW + SECOND)),
        key="issued_at",
        origin=FIRST,
        remedy="Set this host's clock right",
        reason="it was issued at 2026-12-01T00:00:01+00:00, which this clock has not reached",
    ),
    "clock behind what was accepted": Case(
        code=RefusalCode.CLOCK_BEHIND,
        instance=lambda: clocked(
            after(policy(), policy(issued_at=NOW, id="b"), then=(policy(serial=8, retires=["b"]),)), -SECOND
        ),
        key="clock",
        origin="this host",
        remedy=CLOCK_REMEDY,
        reason="it is 2026-11-30T23:59:59+00:00, and a policy issued at 2026-12-01T00:00:00+00:00 was accepted before",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_set_is_refused_with_its_code_key_place_and_remedy(case: Case) -> None:
    refusal = refusal_of(case.instance())

    problem = Problem(key=case.key, origin=case.origin, reason=case.reason, remedy=case.remedy)
    assert (refusal.code, refusal.problems[0].as_json()) == (case.code.code, problem.as_json())


def test_every_code_has_such_a_case() -> None:
    assert {case.code for case in CASES.values()} == set(RefusalCode)


def test_every_code_is_stable_and_explained_in_one_sentence() -> None:
    assert [code.code for code in RefusalCode] == [
        "policy-missing",
        "keys-invalid",
        "state-invalid",
        "wrong-audience",
        "unreadable",
        "signature-invalid",
        "document-invalid",
        "set-invalid",
        "rollback",
        "serial-conflict",
        "serial-too-low",
        "id-missing",
        "id-gone",
        "expired",
        "not-yet-valid",
        "clock-behind",
    ]
    assert all(code.meaning.endswith(".") and ". " not in code.meaning for code in RefusalCode)


def test_code_named_is_the_first_in_order_whatever_order_they_are_found_in() -> None:
    found = [(code, Problem(key=code.code, origin="x", reason="x", remedy="")) for code in RefusalCode]
    for (first, _), (second, _) in itertools.combinations(found, 2):
        both = [each for each in found if each[0] in {first, second}]
        assert {refused(both).code, refused(both[::-1]).code} == {first.code}
    assert [problem.key for problem in refused(found[::-1]).problems] == [code.code for code in RefusalCode][::-1]


GOOD = {name: policy(id=name) for name in ("aud", "old", "same", "low", "needy", "late", "early", "ahead")}
FLAWS: Mapping[RefusalCode, tuple[str, bytes | None]] = {
    RefusalCode.WRONG_AUDIENCE: ("aud", policy(id="aud", serial=8, audience=["prod-us"])),
    RefusalCode.SET_INVALID: ("twin", policy(id="aud")),
    RefusalCode.ROLLBACK: ("old", policy(id="old", serial=6)),
    RefusalCode.SERIAL_CONFLICT: ("same", policy({"max_cpus": 1}, id="same")),
    RefusalCode.SERIAL_TOO_LOW: ("low", policy(id="low")),
    RefusalCode.ID_MISSING: ("needy", policy(id="needy", serial=8, requires=["nowhere"])),
    RefusalCode.ID_GONE: ("gone", None),
    RefusalCode.EXPIRED: ("late", policy(id="late", serial=8, expires_at=NOW)),
    RefusalCode.NOT_YET_VALID: ("early", policy(id="early", serial=8, not_before=NOW + SECOND)),
    RefusalCode.CLOCK_BEHIND: ("ahead", policy(id="ahead", serial=8, issued_at=NOW + SECOND)),
}
"""For each thing that can be wrong with files that verify, the file that has it; one of them is a file that lacks."""


@pytest.mark.parametrize("first", FLAWS, ids=lambda code: code.code)
def test_where_much_is_wrong_the_first_code_is_named_and_everything_listed(first: RefusalCode) -> None:
    order = list(FLAWS)
    wrong = order[order.index(first) :]
    shipped = GOOD | {"gone": policy(id="gone")}
    instance = Instance(*shipped.values())
    assert instance.code() is None
    for name, flawed in (FLAWS[code] for code in wrong):
        shipped = {key: data for key, data in shipped.items() if key != name} | ({name: flawed} if flawed else {})
    if RefusalCode.SERIAL_TOO_LOW in wrong:
        instance.variables["SANDBOX_POLICY_MIN_SERIAL"] = "low=8"
    instance.ship(*shipped.values())

    refusal = refusal_of(instance)

    assert refusal.code == first.code
    assert len(refusal.problems) >= len(wrong)


def test_only_what_time_brings_about_leaves_an_old_set_good_enough() -> None:
    assert {code.code for code in PASSING_CODES} == {"expired", "not-yet-valid", "clock-behind"}


def test_wrong_audience_cannot_be_hidden_behind_files_that_contradict_each_other() -> None:
    instance = after(policy(), then=(policy(audience=["prod-us"]), policy()))

    stand_in = instance.situation().stand_in

    assert stand_in is not None
    assert (stand_in.refusal.code, stand_in.locked_down) == ("wrong-audience", True)
