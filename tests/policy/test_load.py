"""Loading a policy set: all of it or nothing, one stable code, every problem listed, and time given from outside.

Keys and signatures are real; files come from a reader of the protocol that holds them in memory.
"""

import itertools
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from policy.errors import ConfigurationError, DocumentError, KeyFileError, PolicyError, Problem, SetRefusedError
from policy.keys import public_pem
from policy.limits import MAX_CPUS, MAX_RUNTIME_SECONDS, NETWORKING_ALLOWED
from policy.load import PolicyReader, trusted_reader
from policy.refusals import RefusalCode
from policy.signatures import add_signature
from policy.situation import Situation
from tests.policy.factories import HEADER
from tests.policy.instances import ADA, GRACE, MALLORY, NOW, PATH, SECOND, Instance, inline, policy, reader_of, unsigned


def loaded(*files: bytes, now: datetime = NOW, reader: PolicyReader | None = None, **variables: str) -> Situation:
    """What holds at first contact with these files; an empty variable is left out."""
    return _instance(*files, now=now, reader=reader, **variables).situation()


def refusal(
    *files: bytes, now: datetime = NOW, reader: PolicyReader | None = None, **variables: str
) -> SetRefusedError:
    """Why the set that was found is refused, without the words about the last good one that does not exist."""
    error = _instance(*files, now=now, reader=reader, **variables).refusal()
    problems = tuple(problem for problem in error.problems if problem.key != "last good set")
    return SetRefusedError(error.code, problems)


def _instance(*files: bytes, now: datetime, reader: PolicyReader | None, **variables: str) -> Instance:
    instance = Instance(*files, reader=reader)
    instance.variables |= variables
    instance.now = now
    return instance


def keys_of(error: PolicyError) -> list[str]:
    return [problem.key for problem in error.problems]


def test_signed_file_holds_with_the_keys_that_signed_it() -> None:
    situation = loaded(policy({"max_cpus": 0.5}))

    (document,) = situation.documents
    limits = situation.limits()
    assert document.key_ids == (ADA.public.key_id,)
    assert limits.values["max_cpus"] == 0.5
    assert limits.origin_of(MAX_CPUS) == f"acme-prod serial 7 ({PATH}/1.toml:11)"


def test_situation_resolves_beside_the_valves_of_a_person_and_of_an_administrator() -> None:
    situation = loaded(policy({"max_cpus": {"ceiling": 0.5}}))

    limits = situation.limits(
        untrusted_person_valves={"MAX_CPUS": 4}, untrusted_admin_valves={"MAX_RUNTIME_SECONDS": 20}
    )

    assert limits.values["max_cpus"] == 0.5
    assert limits[MAX_RUNTIME_SECONDS] == 20


def test_several_files_make_one_set() -> None:
    situation = loaded(policy({"max_cpus": 0.5}), policy({"networking_allowed": False}, id="other"))

    assert situation.limits().values["max_cpus"] == 0.5
    assert situation.limits()[NETWORKING_ALLOWED] is False


def test_order_of_reading_never_matters() -> None:
    files = (
        policy({"max_cpus": {"ceiling": 0.5}}, id="a"),
        policy({"max_cpus": {"ceiling": 0.25, "default": 0.1}}, id="b"),
        policy({"networking_allowed": False, "max_cpus": {"default": 0.2}}, id="c"),
    )

    told = [loaded(*order).limits().as_json()["limits"]["max_cpus"]["value"] for order in itertools.permutations(files)]
    digests = {loaded(*order).limits().digest for order in itertools.permutations(files)}

    assert set(told) == {0.1}
    assert len(digests) == 1


def test_order_of_reading_does_not_change_a_refusal() -> None:
    files = (policy({}, MALLORY, id="a"), policy(id="b", expires_at=NOW), b"no TOML", policy(id="d"))

    problems = {
        frozenset(problem.reason for problem in refusal(*order).problems) for order in itertools.permutations(files)
    }
    codes = {refusal(*order).code for order in itertools.permutations(files)}

    assert codes == {"signature-invalid"}
    assert len(problems) == 1


def test_without_path_and_without_need_of_one_there_are_no_documents() -> None:
    situation = loaded(SANDBOX_POLICY_PATH="", SANDBOX_POLICY_KEYS="")

    assert situation.documents == ()


def test_keys_without_path_are_checked_and_nothing_else() -> None:
    assert loaded(SANDBOX_POLICY_PATH="").documents == ()
    assert refusal(SANDBOX_POLICY_PATH="", SANDBOX_POLICY_KEYS="ed25519:short").code == "keys-invalid"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"SANDBOX_POLICY_REQUIRED": "true"}, "SANDBOX_POLICY_REQUIRED is true"),
        ({"SANDBOX_POLICY_IDS": "acme-prod"}, "SANDBOX_POLICY_IDS names acme-prod"),
        ({"SANDBOX_POLICY_MIN_SERIAL": "acme-prod=7"}, "SANDBOX_POLICY_MIN_SERIAL names acme-prod"),
    ],
    ids=["required", "required by id", "required by serial"],
)
def test_required_policy_without_path_is_missing(variables: dict[str, Any], named: str) -> None:
    error = refusal(SANDBOX_POLICY_PATH="", **variables)

    assert error.code == "policy-missing"
    assert str(error) == f"environment: SANDBOX_POLICY_PATH: {named}, and this is not set. Set it."


def test_everything_that_wants_a_policy_is_listed_where_no_path_is() -> None:
    error = refusal(SANDBOX_POLICY_PATH="", SANDBOX_POLICY_REQUIRED="true", SANDBOX_POLICY_IDS="b,a")

    assert [problem.reason.split(", ")[0] for problem in error.problems] == [
        "SANDBOX_POLICY_REQUIRED is true",
        "SANDBOX_POLICY_IDS names a",
        "SANDBOX_POLICY_IDS names b",
    ]


def test_path_without_keys_is_refused_since_no_signature_could_count() -> None:
    error = refusal(policy(), SANDBOX_POLICY_KEYS="")

    assert error.code == "keys-invalid"
    assert keys_of(error) == ["SANDBOX_POLICY_KEYS"]


def test_unsigned_allowed_beside_keys_contradicts_itself() -> None:
    with pytest.raises(
        ConfigurationError, match="SANDBOX_POLICY_UNSIGNED_ALLOWED: it is true, yet SANDBOX_POLICY_KEYS"
    ):
        loaded(policy(), SANDBOX_POLICY_UNSIGNED_ALLOWED="true")


def test_unsigned_file_holds_where_the_environment_allows_it() -> None:
    situation = loaded(unsigned({"max_cpus": 0.5}), SANDBOX_POLICY_KEYS="", SANDBOX_POLICY_UNSIGNED_ALLOWED="true")

    assert situation.documents[0].key_ids == ()
    assert situation.limits().origin_of(MAX_CPUS).endswith(", unverified)")


def test_signatures_of_a_file_count_for_nothing_where_no_key_is_trusted() -> None:
    situation = loaded(policy({}, MALLORY), SANDBOX_POLICY_KEYS="", SANDBOX_POLICY_UNSIGNED_ALLOWED="true")

    assert situation.documents[0].key_ids == ()


@pytest.mark.parametrize(
    ("keys", "allowed"), [("", "true"), (inline(ADA), "")], ids=["unsigned files allowed", "signed files only"]
)
def test_reader_is_told_whether_the_files_prove_themselves(keys: str, allowed: str) -> None:
    asked: list[tuple[Path, bool]] = []

    def policies(path: Path, unsigned_allowed: bool) -> Mapping[str, bytes]:  # noqa: FBT001 -- the protocol's shape
        asked.append((path, unsigned_allowed))
        return {"a.toml": policy()}

    reader = PolicyReader(policies=policies, keys=lambda _path: {})
    loaded(reader=reader, SANDBOX_POLICY_KEYS=keys, SANDBOX_POLICY_UNSIGNED_ALLOWED=allowed)

    assert asked == [(Path(PATH), allowed == "true")]


def test_malformed_keys_are_refused_each_by_its_place() -> None:
    error = refusal(policy(), SANDBOX_POLICY_KEYS=f"{inline(ADA)},nonsense,ed25519:AAAA")

    assert error.code == "keys-invalid"
    assert [problem.origin for problem in error.problems] == [
        "SANDBOX_POLICY_KEYS, item 2",
        "SANDBOX_POLICY_KEYS, item 3",
    ]


def test_keys_come_out_of_files_where_the_setting_is_a_path() -> None:
    files = {f"{PATH}/1.toml": policy({}, GRACE)}
    reader = reader_of(files, {"/etc/keys/grace.pub": public_pem(GRACE.public)})

    assert loaded(reader=reader, SANDBOX_POLICY_KEYS="/etc/keys").documents[0].key_ids == (GRACE.public.key_id,)


def test_unreadable_key_file_is_a_matter_of_keys() -> None:
    def unreadable(path: Path) -> Mapping[str, bytes]:
        raise KeyFileError((Problem(key="key", origin=str(path), reason="it does not exist", remedy="Check the path"),))

    reader = PolicyReader(policies=lambda _path, _unsigned: {"a.toml": policy()}, keys=unreadable)

    assert refusal(reader=reader, SANDBOX_POLICY_KEYS="/etc/keys").code == "keys-invalid"


def test_threshold_beyond_the_keys_can_never_be_met() -> None:
    error = refusal(policy(), SANDBOX_POLICY_THRESHOLD="2")

    assert error.code == "keys-invalid"
    assert "it asks for 2 keys, and SANDBOX_POLICY_KEYS holds 1 distinct ones" in str(error)


def test_one_key_named_twice_counts_once_towards_the_threshold() -> None:
    error = refusal(policy(), SANDBOX_POLICY_KEYS=inline(ADA, ADA), SANDBOX_POLICY_THRESHOLD="2")

    assert error.code == "keys-invalid"


def test_threshold_without_keys_is_not_passed_over() -> None:
    error = refusal(
        unsigned(), SANDBOX_POLICY_KEYS="", SANDBOX_POLICY_UNSIGNED_ALLOWED="true", SANDBOX_POLICY_THRESHOLD="2"
    )

    assert error.code == "keys-invalid"
    assert keys_of(error) == ["SANDBOX_POLICY_THRESHOLD"]


def test_threshold_of_two_is_met_by_two_keys() -> None:
    situation = loaded(policy({}, ADA, GRACE), SANDBOX_POLICY_KEYS=inline(ADA, GRACE), SANDBOX_POLICY_THRESHOLD="2")

    assert set(situation.documents[0].key_ids) == {ADA.public.key_id, GRACE.public.key_id}


def test_threshold_of_two_is_not_met_by_one_key_and_a_stranger() -> None:
    error = refusal(policy({}, ADA, MALLORY), SANDBOX_POLICY_KEYS=inline(ADA, GRACE), SANDBOX_POLICY_THRESHOLD="2")

    assert error.code == "signature-invalid"
    assert MALLORY.public.key_id in str(error)


def test_unreadable_files_are_refused_with_all_their_problems() -> None:
    problems = tuple(
        Problem(key="policy file", origin=f"{PATH}/{name}", reason="it is a folder", remedy="Name a file")
        for name in ("a.toml", "b.toml")
    )

    def unreadable(_path: Path, _unsigned: bool) -> Mapping[str, bytes]:  # noqa: FBT001 -- the protocol's shape
        raise DocumentError(problems)

    error = refusal(reader=PolicyReader(policies=unreadable, keys=lambda _path: {}))

    assert error.code == "unreadable"
    assert error.problems == problems


@pytest.mark.parametrize(
    "document",
    [
        unsigned(),
        policy({}, MALLORY),
        policy().replace(b"serial = 7", b"serial = 8"),
        policy({}, ADA, GRACE).replace(b"serial = 7", b"serial = 8"),
        policy().replace(b"# -----END", b"# ----- END"),
        policy() + b"max_cpus = 4\n",
    ],
    ids=["unsigned", "signed by a stranger", "edited", "edited, signed by two", "broken block", "text after the block"],
)
def test_file_without_a_good_signature_is_refused(document: bytes) -> None:
    assert refusal(document).code == "signature-invalid"


def test_good_signature_of_a_known_key_does_not_outweigh_its_bad_neighbour() -> None:
    signed = policy({}, ADA, GRACE)
    own = next(line for line in signed.splitlines() if GRACE.public.key_id.encode() in line)
    forged = own[:-88] + b64encode(bytes(64))

    error = refusal(signed.replace(own, forged), SANDBOX_POLICY_KEYS=inline(ADA, GRACE))

    assert error.code == "signature-invalid"
    assert keys_of(error) == [GRACE.public.key_id]


@pytest.mark.parametrize(
    "document",
    [
        policy({"max_cpu": 1}),
        policy({"max_cpus": True}),
        policy({"max_cpus": {"ceiling": 0.5, "default": 1}}),
        policy(scope=[{}]),
        policy(requires=["acme-prod"]),
        policy(retires=["b"], requires=["b"]),
        policy(rollback_of=7),
        policy(rollout={"percent": 10}),
        policy(schema=2),
        policy(issued_at=datetime(2027, 3, 1, tzinfo=UTC)),
        b"\xef\xbb\xbf" + policy(),
        policy().replace(b"\n", b"\r\n"),
        add_signature(b"[limits\n", ADA, origin="a.toml"),
    ],
    ids=[
        "unknown limit",
        "wrong type",
        "default outside its ceiling",
        "scope without limits",
        "requires itself",
        "retires what it requires",
        "takes back itself",
        "rollout, not supported yet",
        "another schema",
        "issued after it expires",
        "byte order mark",
        "carriage returns",
        "no TOML",
    ],
)
def test_file_that_is_no_policy_is_refused(document: bytes) -> None:
    assert refusal(document).code == "document-invalid"


def test_one_bad_file_refuses_the_whole_set() -> None:
    assert refusal(policy(), policy(id="other"), policy({}, MALLORY, id="third")).code == "signature-invalid"


def test_all_problems_of_all_files_are_listed_under_the_first_code() -> None:
    error = refusal(policy({"max_cpu": 1, "max_rams": 2}), unsigned(id="b"), policy({}, MALLORY, id="c"))

    assert error.code == "signature-invalid"
    assert [problem.origin for problem in error.problems] == [
        f"{PATH}/1.toml:11",
        f"{PATH}/1.toml:12",
        f"{PATH}/2.toml",
        f"{PATH}/3.toml",
    ]


def test_all_refusals_of_a_good_reading_set_are_listed_together() -> None:
    error = refusal(
        policy({"max_cpus": 1}, audience=["prod-us"], expires_at=NOW),
        policy({"max_cpus": 2}, issued_at=NOW + SECOND, not_before=NOW + 2 * SECOND, serial=1),
        SANDBOX_POLICY_IDS="wanted",
        SANDBOX_POLICY_MIN_SERIAL="acme-prod=3",
    )

    assert error.code == "wrong-audience"
    assert keys_of(error) == [
        "id",
        "limits.max_cpus",
        "SANDBOX_POLICY_IDS",
        "audience",
        "expires_at",
        "not_before",
        "issued_at",
        "serial",
    ]


def test_two_files_of_one_id_contradict_each_other() -> None:
    error = refusal(policy(), policy(serial=8), policy(id="other"))

    assert error.code == "set-invalid"
    assert [(problem.origin, problem.reason) for problem in error.problems] == [
        (f"{PATH}/2.toml", f"{PATH}/1.toml has the id acme-prod too")
    ]


def test_different_locks_of_one_limit_contradict_each_other() -> None:
    error = refusal(policy({"max_cpus": 1}), policy({"max_cpus": 2}, id="other"))

    assert error.code == "set-invalid"
    assert str(error) == (
        f"{PATH}/2.toml:11: limits.max_cpus: it locks 2 CPUs, and {PATH}/1.toml:11 locks another value. "
        "Keep one of the two locks."
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"max_cpus": 1}, {"max_cpus": 1.0}),
        ({"max_cpus": 1}, {"max_cpus": {"ceiling": 2}}),
        ({"max_cpus": {"ceiling": 1}}, {"max_cpus": {"ceiling": 2}}),
        ({"max_cpus": {"default": 1}}, {"max_cpus": {"default": 2}}),
        ({"languages": ["python", "bash"]}, {"languages": ["bash", "python"]}),
    ],
    ids=["same lock", "lock and ceiling", "two ceilings", "two defaults", "same set in another order"],
)
def test_statements_that_can_hold_together_do(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert len(loaded(policy(one), policy(other, id="other")).documents) == 2


@pytest.mark.parametrize(
    ("audience", "instance"),
    [(["prod-eu"], "prod-eu"), (["prod-us", "prod-eu"], "prod-eu"), (["*"], "prod-eu"), (["*"], "")],
)
def test_file_for_this_instance_holds(audience: list[str], instance: str) -> None:
    assert loaded(policy(audience=audience), SANDBOX_INSTANCE=instance).documents


@pytest.mark.parametrize(
    ("audience", "instance", "here"),
    [
        (["prod-us"], "prod-eu", "this instance is prod-eu"),
        (["prod-eu"], "prod-eu-2", "this instance is prod-eu-2"),
        (["PROD-EU"], "prod-eu", "this instance is prod-eu"),
        (["prod-eu"], "", "SANDBOX_INSTANCE is not set"),
        (["prod-eu"], "*", "this instance is *"),
    ],
    ids=["another", "only alike", "another case", "unset", "an instance that calls itself any"],
)
def test_file_for_other_instances_is_refused(audience: list[str], instance: str, here: str) -> None:
    error = refusal(policy(audience=audience), SANDBOX_INSTANCE=instance)

    assert error.code == "wrong-audience"
    assert here in str(error)


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (HEADER["issued_at"] - SECOND, RefusalCode.CLOCK_BEHIND),
        (HEADER["issued_at"], None),
        (HEADER["expires_at"] - SECOND, None),
        (HEADER["expires_at"], RefusalCode.EXPIRED),
        (HEADER["expires_at"] + timedelta(days=365), RefusalCode.EXPIRED),
    ],
    ids=["clock before its issue", "at its issue", "last second", "at its end", "long after"],
)
def test_file_holds_from_its_issue_until_it_expires(now: datetime, code: RefusalCode | None) -> None:
    if code is None:
        assert loaded(policy(), now=now).documents
    else:
        assert refusal(policy(), now=now).code == code.code


def test_file_is_not_yet_valid_before_its_beginning() -> None:
    document = policy(not_before=NOW)

    assert refusal(document, now=NOW - SECOND).code == "not-yet-valid"
    assert loaded(document, now=NOW).documents


def test_dates_with_other_offsets_are_the_same_moments() -> None:
    east = NOW.astimezone(UTC).replace(tzinfo=None).isoformat()
    document = unsigned().replace(b"2027-02-01 00:00:00+00:00", f"{east}+02:00".encode())
    document = document.replace(b"2027-02-01T00:00:00Z", f"{east}+02:00".encode())
    signed = add_signature(document, ADA, origin="a.toml")

    assert refusal(signed, now=NOW - timedelta(hours=2)).code == "expired"
    assert loaded(signed, now=NOW - timedelta(hours=2) - SECOND).documents


def test_required_id_that_is_gone_is_refused_by_its_variable() -> None:
    error = refusal(policy(), SANDBOX_POLICY_IDS="acme-prod,baseline")

    assert error.code == "id-missing"
    assert str(error) == (
        "environment: SANDBOX_POLICY_IDS: no policy file has the id baseline. Ship that file, or correct the id."
    )


def test_id_of_a_minimum_serial_that_is_gone_is_refused_by_its_variable() -> None:
    error = refusal(policy(), SANDBOX_POLICY_MIN_SERIAL="acme-prod=7,baseline=2")

    assert error.code == "id-missing"
    assert keys_of(error) == ["SANDBOX_POLICY_MIN_SERIAL"]


def test_id_that_both_variables_name_is_listed_once() -> None:
    error = refusal(policy(), SANDBOX_POLICY_IDS="baseline", SANDBOX_POLICY_MIN_SERIAL="baseline=2")

    assert keys_of(error) == ["SANDBOX_POLICY_IDS"]


def test_older_serial_is_rollback() -> None:
    error = refusal(policy(serial=7), SANDBOX_POLICY_MIN_SERIAL="acme-prod=8")

    assert error.code == "serial-too-low"
    assert "this may be a rollback" in str(error)


@pytest.mark.parametrize("serial", [8, 9])
def test_serial_that_reaches_the_minimum_holds(serial: int) -> None:
    assert loaded(policy(serial=serial), SANDBOX_POLICY_MIN_SERIAL="acme-prod=8").documents


def test_folder_of_this_host_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/ada.pub").write_bytes(public_pem(ADA.public))
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/b.toml").write_bytes(policy({"max_cpus": 0.5}))
    (tmp_path / "policies/a.toml").write_bytes(policy(id="other"))
    (tmp_path / "policies/README.md").write_text("not a policy")

    situation = loaded(
        reader=trusted_reader(),
        SANDBOX_POLICY_PATH=str(tmp_path / "policies"),
        SANDBOX_POLICY_KEYS=str(tmp_path / "keys"),
    )

    assert {document.policy_id for document in situation.documents} == {"acme-prod", "other"}


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_path_of_this_host_without_files_is_unreadable(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()

    error = refusal(reader=trusted_reader(), SANDBOX_POLICY_PATH=str(tmp_path / name))

    assert error.code == "unreadable"
    assert str(tmp_path / name) in str(error)


def test_unsigned_file_that_others_could_write_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(unsigned())
    path.chmod(0o666)

    error = refusal(
        reader=trusted_reader(),
        SANDBOX_POLICY_PATH=str(path),
        SANDBOX_POLICY_KEYS="",
        SANDBOX_POLICY_UNSIGNED_ALLOWED="true",
    )

    assert error.code == "unreadable"
    assert "chmod go-w" in str(error)


def test_signed_file_that_others_could_write_is_proved_by_its_signature(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(policy())
    path.chmod(0o666)

    assert loaded(reader=trusted_reader(), SANDBOX_POLICY_PATH=str(path)).documents
