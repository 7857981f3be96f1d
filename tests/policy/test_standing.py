"""What stands: old sets are told from new ones, and a refused one leaves the last good set for a time nothing restarts.

Every question is put to a new process of the instance, so that nothing but what is remembered tells the past.
"""

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.errors import SetRefusedError
from policy.limits import LIMITS, MAX_CPUS, MAX_RUNTIME_SECONDS, NETWORKING_ALLOWED
from policy.remembered import Remembered
from policy.signatures import add_signature
from tests.policy.factories import HEADER
from tests.policy.instances import ADA, DAY, GRACE, HOUR, MALLORY, NOW, SECOND, Instance, inline, policy, unsigned

STALE = timedelta(hours=24)
LENIENT = {"max_cpus": 2}
BAD = policy({}, MALLORY)
LOCK = "SANDBOX_MAX_RUNTIME_SECONDS"


def good(*files: bytes, **variables: str) -> Instance:
    """An instance that has accepted these files."""
    instance = Instance(*files or (policy(LENIENT),))
    instance.variables |= variables
    assert instance.code() is None
    return instance


def remembered(instance: Instance) -> Remembered:
    return instance.memory.read()


def holds_back(instance: Instance) -> bool:
    """Whether the last good set holds without the lockdown values; it must hold either way."""
    standing = instance.standing()
    assert not isinstance(standing.in_force, SetRefusedError)
    assert standing.stand_in is not None
    return not standing.stand_in.locked_down


def is_locked_down(instance: Instance) -> bool:
    return not holds_back(instance)


# Old files, and files that are gone


def test_older_serial_is_rollback() -> None:
    instance = good(policy(LENIENT, serial=8))
    instance.ship(policy(serial=7))

    assert instance.code() == "rollback"
    assert instance.situation().documents[0].serial == 8


def test_rollback_of_a_rollback_needs_a_higher_serial_of_its_own() -> None:
    instance = good(policy({"max_cpus": 1}, serial=7))
    instance.ship(policy({"max_cpus": 2}, serial=8))
    assert instance.code() is None
    instance.ship(policy({"max_cpus": 1}, serial=9, rollback_of=8))

    assert instance.code() is None
    assert instance.situation().limits()[MAX_CPUS] == 1


def test_serial_used_for_another_payload_is_refused_and_the_first_one_stays() -> None:
    instance = good(policy({"max_cpus": 1}))
    instance.ship(policy({"max_cpus": 2}))

    assert instance.code() == "serial-conflict"
    assert instance.situation().limits()[MAX_CPUS] == 1


def test_signature_added_to_the_same_payload_is_no_conflict() -> None:
    instance = good(SANDBOX_POLICY_KEYS=inline(ADA, GRACE))
    instance.ship(add_signature(policy(LENIENT), GRACE, origin="a.toml"))

    assert instance.code() is None
    assert set(instance.situation().documents[0].key_ids) == {ADA.public.key_id, GRACE.public.key_id}
    assert list(remembered(instance).last_good.values()) == list(instance.files.values())


def test_signature_taken_off_is_no_conflict_while_enough_are_left() -> None:
    instance = good(policy(LENIENT, ADA, GRACE), SANDBOX_POLICY_KEYS=inline(ADA, GRACE))
    instance.ship(policy(LENIENT, GRACE))

    assert instance.code() is None


def test_removing_a_file_of_the_set_is_noticed_as_an_id_that_is_gone() -> None:
    instance = good(policy(LENIENT), policy({"networking_allowed": False}, id="no-net"))
    instance.ship(policy(LENIENT))

    assert instance.code() == "id-gone"
    assert instance.situation().limits()[NETWORKING_ALLOWED] is False


def test_removing_a_file_under_cover_of_a_new_one_is_noticed() -> None:
    instance = good(policy(LENIENT), policy({"networking_allowed": False}, id="no-net"))
    instance.ship(policy(LENIENT, serial=8), policy({"max_cpus": {"ceiling": 1}}, id="another"))

    assert instance.code() == "id-gone"


def test_retired_id_may_be_gone_and_stays_so_when_the_retiring_file_says_it_no_more() -> None:
    instance = good(policy(LENIENT), policy(id="b"))
    instance.ship(policy(LENIENT, serial=8, retires=["b"]))
    assert instance.code() is None
    instance.ship(policy(LENIENT, serial=9))

    assert instance.code() is None
    assert remembered(instance).policies["b"].retired_by == "acme-prod"


def test_retiring_file_may_be_retired_itself() -> None:
    instance = good(policy(LENIENT), policy(id="b"))
    instance.ship(policy(LENIENT, serial=8, retires=["b"]))
    assert instance.code() is None
    instance.ship(policy(LENIENT, id="c", retires=["acme-prod"]))

    assert instance.code() is None


def test_retired_file_that_is_still_there_is_refused() -> None:
    instance = good(policy(LENIENT), policy(id="b"))
    instance.ship(policy(LENIENT, serial=8, retires=["b"]), policy(id="b"))

    assert instance.code() == "set-invalid"


@pytest.mark.parametrize(("serial", "code"), [(2, "rollback"), (3, "rollback"), (4, None)])
def test_retired_id_comes_back_only_with_a_higher_serial_than_it_had(serial: int, code: str | None) -> None:
    instance = good(policy(LENIENT), policy(id="b", serial=3))
    instance.ship(policy(LENIENT, serial=8, retires=["b"]))
    assert instance.code() is None
    instance.ship(policy(LENIENT, serial=9), policy(id="b", serial=serial))

    assert instance.code() == code


def test_retired_id_that_came_back_must_stay_again() -> None:
    instance = good(policy(LENIENT), policy(id="b", serial=3))
    for files in (
        (policy(LENIENT, serial=8, retires=["b"]),),
        (policy(LENIENT, serial=9), policy(id="b", serial=4)),
    ):
        instance.ship(*files)
        assert instance.code() is None
    instance.ship(policy(LENIENT, serial=9))

    assert instance.code() == "id-gone"


def test_id_is_not_retired_by_a_set_that_is_refused() -> None:
    instance = good(policy(LENIENT), policy(id="b"))
    instance.ship(policy(LENIENT, serial=8, retires=["b"], requires=["nowhere"]))
    assert instance.code() == "id-missing"
    instance.ship(policy(LENIENT, serial=8))

    assert instance.code() == "id-gone"


def test_refused_set_leaves_no_serial_behind() -> None:
    instance = good(policy(LENIENT))
    instance.ship(policy(LENIENT, serial=2**53 - 1), policy(id="b", audience=["prod-us"]))
    assert instance.code() == "wrong-audience"
    instance.ship(policy(LENIENT, serial=8))

    assert instance.code() is None


def test_clock_set_back_before_what_was_accepted_is_refused() -> None:
    instance = good(policy(LENIENT, issued_at=NOW - HOUR))
    instance.now = NOW - HOUR - SECOND

    assert instance.code() == "clock-behind"
    instance.now = NOW - HOUR
    assert instance.code() is None


def test_newest_issue_counts_though_its_file_is_retired() -> None:
    instance = good(policy(LENIENT), policy(id="b", issued_at=NOW))
    instance.ship(policy(LENIENT, serial=8, retires=["b"]))
    assert instance.code() is None
    instance.now -= SECOND

    assert instance.code() == "clock-behind"


def test_file_issued_as_early_as_a_calendar_begins_can_be_remembered() -> None:
    first = unsigned(LENIENT).replace(b"2026-11-01 00:00:00+00:00", b"0001-01-01T00:00:00+14:00")
    instance = good(add_signature(first, ADA, origin="a.toml"))

    assert instance.code() is None


SHIPPED = {(serial, cpus): policy({"max_cpus": cpus}, serial=serial) for serial in range(1, 5) for cpus in (1, 2)}


@settings(max_examples=40)  # each judges many sets
@given(
    steps=st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 2]), st.integers(-30, 30)), min_size=1, max_size=8)
)
def test_accepted_serials_never_go_down_whatever_is_shipped(steps: list[tuple[int, int, int]]) -> None:
    instance, accepted = Instance(policy()), [0]
    for serial, cpus, days in steps:
        instance.ship(SHIPPED[serial, cpus])
        instance.now += timedelta(days=days)
        standing = instance.standing()
        if standing.refusal is None:
            accepted.append(serial)
        for document in () if isinstance(standing.in_force, SetRefusedError) else standing.in_force.documents:
            assert document.serial == max(accepted)
    assert accepted == sorted(accepted)


# At first contact, and without it


@pytest.mark.parametrize(
    "files",
    [(), (BAD,), (b"garbage\n",), (policy(audience=["prod-us"]),), (policy(expires_at=NOW),)],
    ids=["nothing", "signed by a stranger", "garbage", "for another instance", "expired"],
)
def test_first_contact_with_a_bad_set_runs_nothing(files: tuple[bytes, ...]) -> None:
    instance = Instance(*files)

    refusal = instance.refusal()

    assert refusal.problems[-1].reason == "no earlier set was accepted here that could hold in place of this one"
    assert remembered(instance).policies == {}


def test_bad_set_at_first_contact_is_mended_without_a_trace() -> None:
    instance = Instance(BAD)
    instance.refusal()
    instance.ship(policy(LENIENT))

    assert instance.code() is None
    assert remembered(instance).first_refusal is None


def test_what_must_be_remembered_is_remembered_of_every_file() -> None:
    known = remembered(good(policy(LENIENT), policy(id="b", serial=3, issued_at=NOW)))

    assert {policy_id: each.serial for policy_id, each in known.policies.items()} == {"acme-prod": 7, "b": 3}
    assert known.newest_issued_at == NOW
    assert len(known.last_good) == 2


# The last good set, and the time for which it holds


def test_last_good_set_holds_for_the_time_that_is_set_and_then_within_the_lockdown_values() -> None:
    instance = good(**{LOCK: "600", "SANDBOX_NETWORKING_ALLOWED": "true"})
    instance.ship(BAD)
    assert holds_back(instance)
    assert instance.situation().limits()[MAX_RUNTIME_SECONDS] == 600

    instance.now += STALE - SECOND
    assert holds_back(instance)
    instance.now += SECOND

    assert is_locked_down(instance)
    limits = instance.situation().limits(untrusted_admin_valves={"MAX_PROCESSES": 4096, "DEBUG": True})
    for limit in LIMITS:
        assert limit.kind.within(limits[limit], limit.lockdown), limit.name
    assert limits[MAX_RUNTIME_SECONDS] == 10  # above the environment's own lock too


def test_lockdown_values_do_not_loosen_what_is_stricter() -> None:
    instance = good(policy({"max_cpus": 0.25}), **{LOCK: "3"}, SANDBOX_POLICY_MAX_STALE="0s")
    instance.ship(BAD)

    assert is_locked_down(instance)
    limits = instance.situation().limits()
    assert (limits.values["max_cpus"], limits[MAX_RUNTIME_SECONDS]) == (0.25, 3)


def test_until_then_people_are_told_until_when_and_why() -> None:
    instance = good()
    instance.ship(BAD)

    stand_in = instance.situation().stand_in

    assert stand_in is not None
    assert stand_in.until == NOW + STALE
    assert stand_in.sentence.startswith("The policy set is refused [signature-invalid]: /etc/sandbox/policies/1.toml: ")
    assert stand_in.sentence.endswith(" The last good set holds until 2026-12-02T00:00:00+00:00.")


def test_in_lockdown_people_are_told_so() -> None:
    instance = good(SANDBOX_POLICY_MAX_STALE="0s")
    instance.ship(BAD)

    situation = instance.situation()

    assert situation.stand_in is not None
    assert situation.stand_in.sentence.endswith(" The last good set holds, bounded by the lockdown values.")
    assert "the policy set is refused: signature-invalid" in str(situation.limits().as_json())


def test_time_counts_from_expiry_and_not_from_the_moment_somebody_noticed() -> None:
    instance = good()
    instance.now = HEADER["expires_at"] + STALE - SECOND
    assert holds_back(instance)

    late = good()
    late.now = HEADER["expires_at"] + STALE
    assert is_locked_down(late)


def test_time_counts_from_the_expiry_of_the_file_that_expires_first() -> None:
    instance = good(policy(LENIENT), policy(id="b", expires_at=NOW + DAY))
    instance.now += DAY + STALE

    assert is_locked_down(instance)


def test_time_counts_from_the_first_refusal_where_that_comes_before_expiry() -> None:
    instance = good()
    instance.now = HEADER["expires_at"] - HOUR
    instance.ship(BAD)
    assert holds_back(instance)
    instance.now = HEADER["expires_at"] - HOUR + STALE

    assert is_locked_down(instance)


def another_kind_of_refusal(instance: Instance) -> None:
    instance.ship(policy(LENIENT, serial=6))
    assert instance.code() == "rollback"


def nothing_there(instance: Instance) -> None:
    instance.ship()
    assert instance.code() == "unreadable"


def other_bad_text(instance: Instance) -> None:
    instance.ship(policy({"max_cpus": 8}, MALLORY, serial=9))
    assert instance.code() == "signature-invalid"


def another_path(instance: Instance) -> None:
    instance.variables["SANDBOX_POLICY_PATH"] = "/etc/elsewhere"


def longer_and_back(instance: Instance) -> None:
    instance.variables["SANDBOX_POLICY_MAX_STALE"] = "90d"
    assert holds_back(instance)
    instance.variables["SANDBOX_POLICY_MAX_STALE"] = "24h"


def without_policy_for_a_while(instance: Instance) -> None:
    path = instance.variables["SANDBOX_POLICY_PATH"]
    instance.variables["SANDBOX_POLICY_PATH"] = ""
    instance.situation()
    instance.variables["SANDBOX_POLICY_PATH"] = path


def clock_back_and_forth(instance: Instance) -> None:
    now = instance.now
    instance.now = now - DAY
    instance.standing()
    instance.now = now


@pytest.mark.parametrize(
    "act",
    [
        another_kind_of_refusal,
        nothing_there,
        other_bad_text,
        another_path,
        longer_and_back,
        without_policy_for_a_while,
        clock_back_and_forth,
    ],
    ids=lambda act: act.__name__.replace("_", " "),
)
def test_time_is_not_restarted_by(act: Callable[[Instance], None]) -> None:
    instance = good()
    instance.ship(BAD)
    assert holds_back(instance)
    for _ in range(3):
        instance.now += STALE / 4
        act(instance)
    assert holds_back(instance)
    instance.now += STALE / 4

    assert is_locked_down(instance)


def test_longer_time_counts_from_the_same_start_and_a_shorter_one_too() -> None:
    instance = good()
    instance.ship(BAD)
    assert holds_back(instance)
    instance.now += STALE
    assert is_locked_down(instance)
    instance.variables["SANDBOX_POLICY_MAX_STALE"] = "25h"
    assert holds_back(instance)
    instance.now += HOUR

    assert is_locked_down(instance)


BAD_SETS = {
    "bad": (BAD,),
    "gone": (),
    "garbage": (b"garbage\n",),
    "old": (policy(LENIENT, serial=6),),
    "early": (policy(LENIENT, serial=9, not_before=NOW + 400 * DAY, expires_at=NOW + 500 * DAY),),
}


@settings(max_examples=40)  # each judges many sets
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(sorted(BAD_SETS)), st.integers(0, 30), st.sampled_from(["24h", "12h", "48h"])),
        min_size=1,
        max_size=10,
    )
)
def test_nothing_but_a_good_set_lengthens_the_time(steps: list[tuple[str, int, str]]) -> None:
    instance = good()
    for name, hours, stale in steps:
        instance.ship(*BAD_SETS[name])
        instance.variables["SANDBOX_POLICY_MAX_STALE"] = stale
        expected = instance.now < NOW + timedelta(hours=int(stale[:-1]))
        assert holds_back(instance) is expected
        instance.now += timedelta(hours=hours)


def test_mended_set_brings_all_back_and_the_next_refusal_counts_anew() -> None:
    instance = good(**{LOCK: "600"})
    instance.ship(BAD)
    assert holds_back(instance)
    instance.now += STALE
    assert is_locked_down(instance)
    instance.ship(policy(LENIENT, serial=8))

    assert instance.code() is None
    assert instance.situation().stand_in is None
    assert instance.situation().limits()[MAX_RUNTIME_SECONDS] == 600
    assert remembered(instance).first_refusal is None
    instance.ship(BAD)
    assert holds_back(instance)


def test_last_good_set_that_is_put_back_is_a_good_set() -> None:
    instance = good()
    instance.ship(BAD)
    assert holds_back(instance)
    instance.ship(policy(LENIENT))

    assert instance.code() is None


def test_frozen_set_is_locked_down_a_while_after_its_expiry_however_often_it_is_put_back() -> None:
    instance = good()
    instance.now = HEADER["expires_at"]
    for _ in range(4):
        instance.ship(BAD)
        assert instance.code() == "signature-invalid"
        instance.ship(policy(LENIENT))
        assert instance.code() == "expired"
        instance.now += STALE / 4

    assert is_locked_down(instance)


def test_no_time_at_all_is_lockdown_at_once() -> None:
    instance = good(SANDBOX_POLICY_MAX_STALE="0s")
    instance.ship(BAD)

    assert is_locked_down(instance)


def test_wrong_audience_gets_no_time() -> None:
    instance = good()
    instance.ship(policy(LENIENT, serial=8, audience=["prod-us"]))

    assert is_locked_down(instance)
    assert instance.situation().limits()[MAX_RUNTIME_SECONDS] == 10


def test_wrong_audience_that_comes_and_goes_gives_no_time_back() -> None:
    instance = good()
    instance.ship(BAD)
    assert holds_back(instance)
    instance.now += STALE - SECOND
    instance.ship(policy(LENIENT, serial=8, audience=["prod-us"]))
    assert is_locked_down(instance)
    instance.ship(BAD)
    assert holds_back(instance)
    instance.now += SECOND

    assert is_locked_down(instance)


def test_clock_set_back_before_the_first_refusal_is_lockdown() -> None:
    instance = good()
    instance.ship(BAD)
    assert holds_back(instance)
    instance.now -= SECOND

    assert is_locked_down(instance)


def test_clock_that_was_far_ahead_once_locks_nothing_down_for_good() -> None:
    instance = good()
    instance.now = NOW + 3650 * DAY
    assert is_locked_down(instance)
    instance.now = NOW + HOUR

    assert instance.code() is None


# A last good set that may not hold today


def revoked(instance: Instance) -> None:
    instance.variables["SANDBOX_POLICY_KEYS"] = inline(GRACE)


def threshold_raised(instance: Instance) -> None:
    instance.variables |= {"SANDBOX_POLICY_KEYS": inline(ADA, GRACE), "SANDBOX_POLICY_THRESHOLD": "2"}


def keys_unusable(instance: Instance) -> None:
    instance.variables["SANDBOX_POLICY_KEYS"] = "ed25519:AAAA"


def least_serial_raised(instance: Instance) -> None:
    instance.variables["SANDBOX_POLICY_MIN_SERIAL"] = "acme-prod=8"


def another_id_required(instance: Instance) -> None:
    instance.variables["SANDBOX_POLICY_IDS"] = "base"


def instance_renamed(instance: Instance) -> None:
    instance.variables["SANDBOX_INSTANCE"] = "prod-us"


@pytest.mark.parametrize(
    ("act", "code", "words"),
    [
        (revoked, "signature-invalid", "1.toml (as last accepted): signatures: 0 of the trusted keys signed it"),
        (threshold_raised, "signature-invalid", "(as last accepted): signatures: 1 of the trusted keys signed it"),
        (keys_unusable, "keys-invalid", "SANDBOX_POLICY_KEYS"),
        (least_serial_raised, "serial-too-low", "(as last accepted): serial: serial 7 is below 8"),
        (another_id_required, "id-missing", "no policy file has the id base"),
        (instance_renamed, "wrong-audience", "(as last accepted): audience: it is for prod-eu"),
    ],
    ids=lambda each: each.__name__.replace("_", " ") if callable(each) else "",
)
def test_last_good_set_does_not_outlive(act: Callable[[Instance], None], code: str, words: str) -> None:
    instance = good()
    act(instance)

    refusal = instance.refusal()

    assert refusal.code == code
    assert words in str(refusal)


def test_unsigned_last_good_set_does_not_outlive_its_permission() -> None:
    instance = good(unsigned(LENIENT), SANDBOX_POLICY_KEYS="", SANDBOX_POLICY_UNSIGNED_ALLOWED="true")
    instance.variables |= {"SANDBOX_POLICY_KEYS": inline(ADA), "SANDBOX_POLICY_UNSIGNED_ALLOWED": ""}

    assert instance.refusal().code == "signature-invalid"


def test_permission_taken_away_without_keys_leaves_nothing_either() -> None:
    instance = good(unsigned(LENIENT), SANDBOX_POLICY_KEYS="", SANDBOX_POLICY_UNSIGNED_ALLOWED="true")
    instance.variables["SANDBOX_POLICY_UNSIGNED_ALLOWED"] = ""

    assert instance.refusal().code == "keys-invalid"


def test_file_of_a_revoked_key_leaves_the_last_good_set_of_a_trusted_one() -> None:
    instance = good(policy(LENIENT, GRACE), SANDBOX_POLICY_KEYS=inline(GRACE))
    instance.ship(policy({"max_cpus": 64}, ADA, serial=8))

    assert instance.code() == "signature-invalid"
    assert holds_back(instance)
    assert instance.situation().limits()[MAX_CPUS] == 2


# A stolen key


def test_one_stolen_key_of_two_changes_nothing_where_both_must_sign() -> None:
    both = {"SANDBOX_POLICY_KEYS": inline(ADA, GRACE), "SANDBOX_POLICY_THRESHOLD": "2"}
    instance = good(policy(LENIENT, ADA, GRACE), **both)
    instance.ship(policy({"max_cpus": 64}, ADA, serial=8))

    assert instance.code() == "signature-invalid"
    assert instance.situation().limits()[MAX_CPUS] == 2


def test_serial_burnt_by_a_stolen_key_is_forgotten_by_hand_once_the_key_is_revoked() -> None:
    instance = good(policy(LENIENT, GRACE), SANDBOX_POLICY_KEYS=inline(ADA, GRACE))
    instance.ship(policy({"max_cpus": 64}, ADA, serial=2**53 - 1))
    assert instance.code() is None
    instance.variables["SANDBOX_POLICY_KEYS"] = inline(GRACE)
    instance.ship(policy(LENIENT, GRACE, serial=8))
    assert instance.refusal().code == "rollback"  # and what the stolen key signed does not hold in its place

    forget(instance, "acme-prod")
    assert instance.code() is None


def forget(instance: Instance, policy_id: str) -> None:
    """As `policy status --forget` does."""

    def without(known: Remembered) -> tuple[None, Remembered]:
        kept = {name: each for name, each in known.policies.items() if name != policy_id}
        return None, Remembered(
            policies=kept,
            newest_issued_at=known.newest_issued_at,
            first_refusal=known.first_refusal,
            last_good=known.last_good,
        )

    instance.memory.change(without)


def test_forgetting_an_id_restarts_no_time() -> None:
    instance = good(policy(LENIENT), policy(id="b"))
    instance.ship(BAD)
    assert holds_back(instance)
    instance.now += STALE
    forget(instance, "b")

    assert is_locked_down(instance)


def test_forgotten_id_may_be_gone() -> None:
    instance = good(policy(LENIENT), policy(id="b"))
    instance.ship(policy(LENIENT))
    assert instance.code() == "id-gone"
    forget(instance, "b")

    assert instance.code() is None


# When it must be judged again


def test_good_set_stands_until_its_first_file_expires() -> None:
    assert good(policy(LENIENT), policy(id="b", expires_at=NOW + HOUR)).standing().until == NOW + HOUR


def test_refused_set_is_judged_again_within_a_minute() -> None:
    instance = good()
    instance.ship(BAD)
    assert instance.standing().until == NOW + timedelta(minutes=1)
    assert Instance(BAD).standing().until == NOW + timedelta(minutes=1)


def test_refused_set_is_judged_again_when_the_lockdown_begins() -> None:
    instance = good()
    instance.ship(BAD)
    assert holds_back(instance)
    instance.now += STALE - SECOND

    assert instance.standing().until == NOW + STALE


def test_a_folder_writer_cannot_replay_a_policy_that_was_retired() -> None:
    old = policy({"network_private_allowed": True}, id="lab", serial=3)
    instance = good(policy(LENIENT), old)
    instance.ship(policy(LENIENT, serial=8, retires=["lab"]))
    assert instance.code() is None
    instance.ship(policy(LENIENT, serial=9))
    assert instance.code() is None

    instance.ship(policy(LENIENT, serial=9), old)

    assert instance.code() == "rollback"


def test_garbage_beside_a_file_for_others_hides_no_wrong_audience() -> None:
    instance = good(policy(LENIENT))
    instance.ship(policy(LENIENT, serial=8, audience=["prod-us"]), b"x = 1\n")

    standing = instance.standing()

    assert standing.refusal is not None
    assert standing.refusal.code == "wrong-audience"
    assert standing.stand_in is not None
    assert standing.stand_in.locked_down
