"""Reading a policy file: what it says, and for each thing that is wrong with one its file, line and remedy."""

import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policy.document import PolicyDocument, parse_document
from policy.errors import DocumentError, Problem
from policy.limits import LIMITS, Limit
from policy.settings import MAX_DOCUMENT_BYTES
from policy.statements import Layer, Verb
from policy.values import UNLIMITED
from tests.policy.factories import HEADER, VERBS, destinations, document_of, source_of, text_of, values_of

VALID = """\
schema = 1
id = "acme-prod"
serial = 7
issued_at = 2026-11-01T00:00:00Z
expires_at = 2027-02-01T00:00:00+01:00
audience = ["prod-eu", "*"]

[limits]
networking_allowed = false
[limits.max_runtime_seconds]
default = 30
ceiling = 60
reason = "shared host"
env_may_loosen = false
"""


def problems_of(text: str | bytes) -> tuple[Problem, ...]:
    with pytest.raises(DocumentError) as refusal:
        parse_document(source_of(text))
    return refusal.value.problems


def read_or_refusal(data: bytes) -> PolicyDocument | DocumentError:
    try:
        return parse_document(source_of(data))
    except DocumentError as refusal:
        return refusal


def test_valid_file_is_read_with_its_lines() -> None:
    document = parse_document(source_of(VALID, origin="acme.toml", key_ids=("sha256:aa",)))
    assert (document.policy_id, document.serial, document.audience) == ("acme-prod", 7, ("prod-eu", "*"))
    assert document.issued_at == datetime(2026, 11, 1, tzinfo=UTC)
    assert document.expires_at == datetime(2027, 1, 31, 23, tzinfo=UTC)
    assert document.not_before is None
    assert [
        (stated.limit.name, stated.verb, stated.value, stated.origin.place, stated.environment_may_loosen)
        for stated in document.statements
    ] == [
        ("networking_allowed", Verb.LOCK, False, "acme.toml:9", True),
        ("max_runtime_seconds", Verb.CEILING, 60, "acme.toml:12", False),
        ("max_runtime_seconds", Verb.DEFAULT, 30, "acme.toml:11", False),
    ]
    ceiling = document.statements[1].origin
    assert (ceiling.layer, ceiling.reason, ceiling.policy_id, ceiling.serial) == (
        Layer.POLICY,
        "shared host",
        "acme-prod",
        7,
    )
    assert document.key_ids == ceiling.key_ids == ("sha256:aa",)


def test_optional_keys_are_taken() -> None:
    begins = datetime(2026, 12, 1, tzinfo=timezone(timedelta(hours=-5)))
    text = text_of({"debug": False}, not_before=begins, description="For production.", owner="platform@example.com")
    assert parse_document(source_of(text)).not_before == begins


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
@settings(max_examples=10)
@given(data=st.data())
def test_every_value_of_every_limit_is_read_as_it_was_written(limit: Limit[Any], data: st.DataObject) -> None:
    value = data.draw(values_of(limit.kind))
    native = limit.kind.native(value)
    for verb in VERBS:
        (stated,) = document_of({limit.name: {verb.value: native}}).statements
        assert (stated.limit, stated.verb, stated.value) == (limit, verb, value)
    (lock,) = document_of({limit.name: native}).statements
    assert (lock.verb, lock.value) == (Verb.LOCK, value)


@pytest.mark.parametrize(
    ("native", "value"),
    [("1", Decimal(1)), ("1.0", Decimal(1)), ("0.125", Decimal("0.125")), ('"unlimited"', UNLIMITED)],
)
def test_cpus_are_a_whole_number_or_a_decimal(native: str, value: object) -> None:
    (stated,) = parse_document(
        source_of(VALID.split("networking", maxsplit=1)[0] + f"max_cpus = {native}\n")
    ).statements
    assert stated.value == value


def test_empty_set_is_an_empty_array() -> None:
    (stated,) = document_of({"network_allowlist": []}).statements
    assert stated.value == destinations()


# what is replaced, by what: line, key, a part of the reason, a part of the remedy
REFUSED: dict[str, tuple[str, str, int, str, str, str]] = {
    "no TOML": ("serial = 7", "serial = ", 3, "the file", "not TOML", "a value after the ="),
    "no TOML in the last line": (
        "env_may_loosen = false\n",
        "env_may_loosen",
        14,
        "the file",
        "not TOML",
        "Write key = value",
    ),
    "unclosed string": ('"acme-prod"', '"acme-prod', 2, "the file", "not TOML", "Close the quotes"),
    "unopened array": ('["prod-eu"', '"prod-eu"', 6, "the file", "not TOML", "syntax"),
    "key twice": ("serial = 7", "serial = 7\nserial = 8", 4, "serial", "twice, first in line 3", "Keep one"),
    "carriage return": ("serial = 7", "serial = 7\r", 3, "the file", "carriage return", "LF"),
    "NUL": ("serial = 7", "serial = 7 # \x00", 3, "the file", "NUL", "byte order mark"),
    "BOM": ("schema", "\ufeffschema", 1, "the file", "byte order mark", "without"),
    "BOM in a comment": ("serial = 7", "serial = 7 # \ufeff", 3, "the file", "byte order mark", "without"),
    "unknown key": ("serial = 7", "serial = 7\ncolour = 1", 4, "colour", "no such key", "Known here"),
    "typo'd key": ("audience", "audiense", 6, "audiense", "no such key", "audience"),
    "unknown limit": ("[limits]", "[limits]\nmax_cpu = 1", 9, "limits.max_cpu", "no such key", "max_cpus"),
    "limit in upper case": ("[limits]", "[limits]\nMAX_CPUS = 1", 9, "limits.MAX_CPUS", "no such key", "max_cpus"),
    "unknown word of a limit": ("ceiling", "cieling", 12, "limits.max_runtime_seconds.cieling", "no such", "ceiling"),
    "rollout": ("env_may_loosen = false", "[rollout]", 14, "rollout", "not supported by this version", "Remove"),
    "another schema": ("schema = 1", "schema = 2", 1, "schema", "2 is not 1", "Write 1"),
    "schema as a float": ("schema = 1", "schema = 1.0", 1, "schema", "1.0 is a number with a point", "Write 1"),
    "schema as a bool": ("schema = 1", "schema = true", 1, "schema", "not a whole number", "Write a whole number"),
    "id that is no id": ("acme-prod", "Acme", 2, "id", "'Acme' is no id", 'such as "acme"'),
    "id with a line feed": ("acme-prod", "acme\\n", 2, "id", "'acme\\n' is no id", 'such as "acme"'),
    "serial of nought": ("serial = 7", "serial = 0", 3, "serial", "below the least", "1 or more"),
    "serial past exactness": (
        "serial = 7",
        f"serial = {2**53}",
        3,
        "serial",
        "above the greatest",
        f"{2**53 - 1} or less",
    ),
    "serial past 64 bits": ("serial = 7", f"serial = {2**64}", 3, "serial", "64 bits", "in range"),
    "serial past printing": ("serial = 7", f"serial = 0x{'f' * 9000}", 3, "serial", "64 bits", "in range"),
    "number past printing": ("= 60", f"= 0x{'f' * 9000}", 12, "limits.max_runtime_seconds.ceiling", "64 bits", "range"),
    "date without offset": ("00Z", "00", 4, "issued_at", "no offset from UTC", "2026-11-01T00:00:00Z"),
    "date without time": ("T00:00:00Z", "", 4, "issued_at", "neither time nor offset", "2026-11-01T00:00:00Z"),
    "time alone": ("2026-11-01T00:00:00Z", "07:00:00", 4, "issued_at", "not a date with", "without quotes"),
    "date in quotes": (
        "2026-11-01T00:00:00Z",
        '"2026-11-01T00:00:00Z"',
        4,
        "issued_at",
        "a text, not a date",
        "Write 2026-11-01T00:00:00Z without quotes",
    ),
    "number for a date": ("2026-11-01T00:00:00Z", "20261101", 4, "issued_at", "not a date", "2026-11-01T00:00:00Z"),
    "impossible date": ("2026-11-01", "2026-11-31", 4, "the file", "not TOML", "a date that exists"),
    "no audience": ('["prod-eu", "*"]', "[]", 6, "audience", "names nothing", "Name at least one"),
    "date in the audience": (
        '"*"',
        "2026-11-01T00:00:00Z",
        6,
        "audience[1]",
        "is a date, not a text",
        "in quotes",
    ),
    "date as a reason": (
        '"shared host"',
        "2026-11-01T00:00:00Z",
        13,
        "limits.max_runtime_seconds.reason",
        "is a date, not a text",
        "in quotes",
    ),
    "quoted number": (
        "= 60",
        '= "60"',
        12,
        "limits.max_runtime_seconds.ceiling",
        "'60' is a text, not a number",
        "Write 60 without quotes",
    ),
    "float for a whole number": (
        "= 60",
        "= 60.0",
        12,
        "limits.max_runtime_seconds.ceiling",
        "60.0 is a number with a point, not a whole number",
        "Write 60",
    ),
    "bool for a number": ("= 60", "= true", 12, "limits.max_runtime_seconds.ceiling", "not a whole number", "Write a"),
    "number for a bool": ("= false", "= 0", 9, "limits.networking_allowed", "not true or false", "Write true or"),
    "number out of range": (
        "= 60",
        "= 90000",
        12,
        "limits.max_runtime_seconds.ceiling",
        "above the greatest",
        "or less",
    ),
    "infinity": (
        "networking_allowed = false",
        "max_cpus = inf",
        9,
        "limits.max_cpus",
        "inf is no number",
        "Write a number",
    ),
    "no number": (
        "networking_allowed = false",
        "max_cpus = nan",
        9,
        "limits.max_cpus",
        "nan is no number",
        "Write a number",
    ),
    "ten-thousandths": (
        "networking_allowed = false",
        "max_cpus = 0.1234",
        9,
        "limits.max_cpus",
        "three decimal",
        "Expected",
    ),
    "table that says nothing": (
        "networking_allowed = false",
        'networking_allowed = { reason = "because" }',
        9,
        "limits.networking_allowed",
        "says nothing",
        "State a lock, a ceiling or a default",
    ),
    "item twice": ('"*"', '"prod-eu"', 6, "audience[1]", "stands in the list already", "Remove it"),
    "unlimited output": (
        "networking_allowed = false",
        'max_output_kilobytes = "unlimited"',
        9,
        "limits.max_output_kilobytes",
        "cannot be unlimited",
        "Write a whole number",
    ),
    "word for a set": (
        "networking_allowed = false",
        'languages = "none"',
        9,
        "limits.languages",
        "'none' is a text, not a list",
        "Write [] for none",
    ),
    "unknown word": (
        "networking_allowed = false",
        'languages = ["perl"]',
        9,
        "limits.languages[0]",
        "'perl'",
        "Choose",
    ),
    "no destination": (
        "networking_allowed = false",
        'network_allowlist = ["a.example",\n"Example.com"]',
        10,
        "limits.network_allowlist[1]",
        "upper-case",
        "Correct",
    ),
    "number for a destination": (
        "networking_allowed = false",
        "network_allowlist = [5]",
        9,
        "limits.network_allowlist[0]",
        "5 is a whole number, not a text",
        'Write "5", in quotes',
    ),
    "lock beside a ceiling": ("default = 30", "lock = 30", 10, "limits.max_runtime_seconds", "beside a lock", "Remove"),
    "default past its ceiling": ("= 30", "= 61", 11, "limits.max_runtime_seconds.default", "looser", "Lower"),
    "expiry before issue": ("2027-02-01", "2026-10-01", 5, "expires_at", "not after issued_at", "after 2026-11-01"),
    "expiry at issue": (
        "2027-02-01T00:00:00+01:00",
        "2026-11-01T01:00:00+01:00",
        5,
        "expires_at",
        "not after",
        "after",
    ),
}


@pytest.mark.parametrize(("old", "new", "line", "key", "reason", "remedy"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_refused_with_file_line_and_remedy(
    old: str, new: str, line: int, key: str, reason: str, remedy: str
) -> None:
    assert old in VALID
    problems = [
        problem for problem in problems_of(VALID.replace(old, new, 1)) if not problem.reason.startswith("it lacks")
    ]
    problem = problems[0]
    assert {each.key for each in problems} == {key}
    assert problem.origin == f"acme.toml:{line}"
    assert reason in problem.reason
    assert remedy in problem.remedy
    assert len(str(problem)) < 500
    assert str(problem).isprintable()
    assert not problem.remedy.endswith((".", "?"))


SCOPED = (
    VALID.replace("serial = 7", 'serial = 7\nrequires = ["base"]\nretires = ["old"]\nrollback_of = 5')
    + """
[[scope]]
description = "Students share one small host."
match.groups = ["students", "pupils"]
limits.max_runtime_seconds.ceiling = 10

[[scope]]
except.groups = ["staff"]
match.surface = "tool"
[scope.limits]
networking_allowed = { ceiling = false, reason = "no need", env_may_loosen = false }
max_cpus.default = 0.5
max_cpus.ceiling = 1
"""
)


def test_scopes_are_read_with_whom_they_are_for_and_their_lines() -> None:
    document = parse_document(source_of(SCOPED, key_ids=("sha256:aa",)))
    students, others = document.scopes
    assert (dict(students.conditions.match), dict(students.conditions.excepted)) == (
        {"groups": frozenset({"students", "pupils"})},
        {},
    )
    assert (dict(others.conditions.match), dict(others.conditions.excepted)) == (
        {"surface": frozenset({"tool"})},
        {"groups": frozenset({"staff"})},
    )
    found = [
        (said.limit.name, said.verb.value, said.value, said.origin.place, said.environment_may_loosen, said.scoped)
        for scope in document.scopes
        for said in scope.statements
    ]
    assert found == [
        ("max_runtime_seconds", "ceiling", 10, "acme.toml:22", False, True),
        ("networking_allowed", "ceiling", False, "acme.toml:28", False, True),
        ("max_cpus", "ceiling", Decimal(1), "acme.toml:30", True, True),
        ("max_cpus", "default", Decimal("0.5"), "acme.toml:29", True, True),
    ]
    origin = others.statements[0].origin
    assert (origin.reason, origin.policy_id, origin.serial, origin.key_ids) == (
        "no need",
        "acme-prod",
        7,
        ("sha256:aa",),
    )
    assert str(origin) == "acme-prod serial 7 (acme.toml:28, for surface tool except groups staff)"
    assert not any(said.scoped for said in document.statements)


def test_relations_to_other_files_and_to_its_past_are_read() -> None:
    document = parse_document(source_of(SCOPED))
    assert (document.requires, document.retires, document.rollback_of) == (("base",), ("old",), 5)
    plain = parse_document(source_of(VALID))
    assert (plain.requires, plain.retires, plain.rollback_of, plain.scopes) == ((), (), None, ())


SPELLINGS = {
    "dotted": '[[scope]]\nmatch.roles = ["user"]\nlimits.max_cpus.ceiling = 1',
    "headers": '[[scope]]\n[scope.match]\nroles = ["user"]\n[scope.limits.max_cpus]\nceiling = 1',
    "inline tables": '[[scope]]\nmatch = { roles = ["user"] }\nlimits = { max_cpus = { ceiling = 1 } }',
    "inline dotted": '[[scope]]\nmatch = { "roles" = ["user"] }\nlimits = { max_cpus.ceiling = 1 }',
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_scope_means_the_same_however_it_is_spelt(spelling: str) -> None:
    (scope,) = parse_document(source_of(f"{VALID}{spelling}\n")).scopes
    (said,) = scope.statements
    assert dict(scope.conditions.match) == {"roles": frozenset({"user"})}
    assert (said.limit.name, said.verb, said.value) == ("max_cpus", Verb.CEILING, Decimal(1))
    assert said.origin.place in {"acme.toml:16", "acme.toml:17", "acme.toml:19"}


def test_array_of_scopes_before_any_table_is_read_too() -> None:
    scopes = (
        'scope = [{ match.users = ["u-1"], limits.debug = false }, { except.roles = ["admin"], limits.debug = false }]'
    )
    document = parse_document(source_of(f"{scopes}\n{VALID}"))
    assert [str(scope.conditions) for scope in document.scopes] == ["for 1 user", "for everybody except roles admin"]


def test_file_may_speak_in_scopes_alone() -> None:
    text = VALID.partition("[limits]")[0] + '[[scope]]\nmatch.groups = ["students"]\nlimits.debug = false\n'
    document = parse_document(source_of(text))
    assert (document.statements, len(document.scopes)) == ((), 1)


def test_default_of_a_scope_may_be_past_a_ceiling_that_stands_elsewhere() -> None:
    text = VALID + '[[scope]]\nmatch.groups = ["students"]\nlimits.max_runtime_seconds.default = 90\n'
    (scope,) = parse_document(source_of(text)).scopes
    assert scope.statements[0].value == 90


# what is replaced in the scopes, by what: line, key, a part of the reason, a part of the remedy
REFUSED_SCOPES: dict[str, tuple[str, str, int, str, str, str]] = {
    "unknown key": ("description", "descripton", 20, "scope[0].descripton", "no such key", "description"),
    "reason beside the limits": ("description", "reason", 20, "scope[0].reason", "no such key", "Known here"),
    "unknown attribute": ("match.groups", "match.group", 21, "scope[0].match.group", "no such key", "groups"),
    "unknown exception": ("except.groups", "except.role", 25, "scope[1].except.role", "no such key", "roles"),
    "attribute outside match": ("match.groups", "groups", 21, "scope[0].groups", "no such key", "Known here"),
    "nobody": ('["students", "pupils"]', "[]", 21, "scope[0].match.groups", "names nothing", "leave the key out"),
    "empty name": ('"pupils"', '""', 21, "scope[0].match.groups[1]", "an empty text", "leave it out"),
    "name twice": ('"pupils"', '"students"', 21, "scope[0].match.groups[1]", "stands in the list already", "Remove it"),
    "name without a list": (
        '["staff"]',
        '"staff"',
        25,
        "scope[1].except.groups",
        "a text, not a list",
        'Write ["staff"]',
    ),
    "number for a name": ('"pupils"', "5", 21, "scope[0].match.groups[1]", "not a text", 'Write "5"'),
    "match without keys": (
        'match.groups = ["students", "pupils"]',
        "match = {}",
        21,
        "scope[0].match",
        "not say whom it is for",
        "roles, groups, users, models, surface",
    ),
    "neither match nor except": (
        'match.groups = ["students", "pupils"]\n',
        "",
        19,
        "scope[0]",
        "not say whom it is for",
        "Write match or except",
    ),
    "match that is no table": (
        'match.groups = ["students", "pupils"]',
        'match = ["students"]',
        21,
        "scope[0].match",
        "it is a list, not a table",
        "Write a table",
    ),
    "unknown surface": ('"tool"', '"tools"', 26, "scope[1].match.surface", "not one of tool, function", 'meant "tool"'),
    "list of surfaces": (
        '"tool"',
        '["tool"]',
        26,
        "scope[1].match.surface",
        "not one of tool, function",
        'meant "tool"',
    ),
    "no limits": ("limits.max_runtime_seconds.ceiling = 10\n", "", 19, "scope[0]", "lacks limits", "Add it"),
    "empty limits": (
        "limits.max_runtime_seconds.ceiling = 10",
        "limits = {}",
        22,
        "scope[0].limits",
        "says nothing",
        "State a limit",
    ),
    "unknown limit": (
        "limits.max_runtime_seconds.ceiling = 10",
        "limits.max_runtime_second.ceiling = 10",
        22,
        "scope[0].limits.max_runtime_second",
        "no such key",
        "max_runtime_seconds",
    ),
    "value out of range": (
        "ceiling = 10",
        "ceiling = 0",
        22,
        "scope[0].limits.max_runtime_seconds.ceiling",
        "below the least permitted value, 1; it does not mean unlimited",
        "1 or more",
    ),
    "lock beside a ceiling": (
        "max_cpus.default",
        "max_cpus.lock",
        29,
        "scope[1].limits.max_cpus",
        "beside a lock",
        "Remove",
    ),
    "default past its own ceiling": (
        "default = 0.5",
        "default = 1.5",
        29,
        "scope[1].limits.max_cpus.default",
        "its default 1.5 is looser than its ceiling 1",
        "Lower it",
    ),
    "no number": (
        "default = 0.5",
        "default = nan",
        29,
        "scope[1].limits.max_cpus.default",
        "nan is no number",
        "Write a number",
    ),
    "requires nothing": ('["base"]', "[]", 4, "requires", "names nothing", "leave the key out"),
    "requires no id": ('["base"]', '["../base"]', 4, "requires[0]", "'../base' is no id", "Write one"),
    "requires without a list": ('["base"]', '"base"', 4, "requires", "a text, not a list", 'Write ["base"]'),
    "requires itself": ('["base"]', '["acme-prod"]', 4, "requires", "the file's own id", "other policies"),
    "retires itself": ('["old"]', '["acme-prod"]', 5, "retires", "the file's own id", "other policies"),
    "retires nothing": ('["old"]', "[]", 5, "retires", "names nothing", "leave the key out"),
    "retires what it requires": ('["old"]', '["base"]', 5, "retires", "base is retired here and required too", "one"),
    "takes back itself": ("rollback_of = 5", "rollback_of = 7", 6, "rollback_of", "serial 7 is no earlier", "Raise"),
    "takes back the future": ("rollback_of = 5", "rollback_of = 8", 6, "rollback_of", "no earlier one", "Raise"),
    "takes back nought": ("rollback_of = 5", "rollback_of = 0", 6, "rollback_of", "below the least", "1 or more"),
    "takes back a word": (
        "rollback_of = 5",
        'rollback_of = "5"',
        6,
        "rollback_of",
        "not a whole number",
        "Write 5 without",
    ),
}


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "reason", "remedy"), REFUSED_SCOPES.values(), ids=REFUSED_SCOPES.keys()
)
def test_bad_scope_or_relation_is_refused_with_file_line_and_remedy(
    old: str, new: str, line: int, key: str, reason: str, remedy: str
) -> None:
    assert SCOPED.count(old) == 1
    found = [problem for problem in problems_of(SCOPED.replace(old, new)) if not said_of_a_misspelling(problem, new)]
    assert {(each.key, each.origin) for each in found} == {(key, f"acme.toml:{line}")}
    assert reason in found[0].reason
    assert remedy in found[0].remedy
    assert all(str(each).isprintable() and len(str(each)) < 500 for each in found)


def said_of_a_misspelling(problem: Problem, new: str) -> bool:
    """Whether a problem only follows from a misspelt key, whose meaning is missing then."""
    return new == "groups" and problem.reason == "it does not say whom it is for"


def test_scope_that_is_no_array_is_refused() -> None:
    (problem,) = problems_of(VALID + '[scope]\nmatch.groups = ["a"]\nlimits.debug = false\n')
    assert (problem.key, problem.origin) == ("scope", "acme.toml:15")
    assert (problem.reason, problem.remedy) == ("it is a table, not a list", "Write [[scope]], with two brackets")


def test_everything_that_is_wrong_with_scopes_is_listed_at_once() -> None:
    bad = '[[scope]]\nmatch.group = ["a"]\n[[scope]]\nlimits.debug = 0\nexcept.surface = "x"\n[[scope]]\n'
    found = {(problem.key, problem.reason[:24]) for problem in problems_of(VALID + bad)}
    assert found == {
        ("scope[0]", "it lacks limits"),
        ("scope[0].match.group", "there is no such key"),
        ("scope[1].limits.debug", "0 is a whole number, not"),
        ("scope[1].except.surface", "'x' is not one of tool, "),
        ("scope[2]", "it lacks limits"),
        ("scope[2]", "it does not say whom it "),
    }


@pytest.mark.parametrize("key", [*HEADER, "limits"])
def test_required_key_that_is_missing_is_named(key: str) -> None:
    text = text_of({"debug": False}, **{key: None}) if key in HEADER else text_of({}).replace("[limits]", "")
    (problem,) = problems_of(text)
    assert problem.reason == f"it lacks {key}"
    assert problem.remedy == "Add it"


@pytest.mark.parametrize("data", [b"", b"\n", b"# nothing but a comment\n"], ids=["empty", "blank", "comment"])
def test_file_that_says_nothing_lacks_everything(data: bytes) -> None:
    (problem,) = problems_of(data)
    assert all(key in problem.reason for key in (*HEADER, "limits"))


def test_not_before_must_come_before_expiry() -> None:
    (problem,) = problems_of(text_of({"debug": False}, not_before=HEADER["expires_at"]))
    assert problem.key == "expires_at"
    assert "not_before" in problem.reason


@pytest.mark.parametrize(
    ("data", "line"),
    [(b"\xff\xfea", 1), (b"\n\n\xc3\x28\n", 3), (b"# a\n# \xed\xa0\x80", 2)],
    ids=["UTF-16", "cut short", "surrogate"],
)
def test_bytes_that_are_no_utf8_are_refused_at_their_line(data: bytes, line: int) -> None:
    (problem,) = problems_of(data)
    assert problem.origin == f"acme.toml:{line}"
    assert "UTF-8" in problem.reason


def test_everything_that_is_wrong_with_the_shape_is_listed_at_once() -> None:
    text = VALID.replace("serial = 7", "serial = 0\ncolour = 1").replace("= 60", "= 0").replace("= false", "= 0", 1)
    found = {(problem.key, problem.origin) for problem in problems_of(f"{text}[[scope]]\n")}
    assert found == {
        ("serial", "acme.toml:3"),
        ("colour", "acme.toml:4"),
        ("limits.networking_allowed", "acme.toml:10"),
        ("limits.max_runtime_seconds.ceiling", "acme.toml:13"),
        ("scope[0]", "acme.toml:16"),
    }


def test_everything_that_is_wrong_with_values_dates_and_defaults_is_listed_at_once() -> None:
    limits = {
        "max_cpus": {"ceiling": 0.1234, "default": 0.12345},
        "max_processes": {"ceiling": 4, "default": 5},
        "languages": {"ceiling": ["python"], "default": ["bash"]},
    }
    found = {problem.key for problem in problems_of(text_of(limits, expires_at=HEADER["issued_at"]))}
    assert found == {
        "limits.max_cpus.ceiling",
        "limits.max_cpus.default",
        "limits.max_processes.default",
        "limits.languages.default",
        "expires_at",
    }


def padded(size: int) -> str:
    return VALID + "#" * (size - len(VALID) - 1) + "\n"


def test_largest_file_is_read_and_one_byte_more_is_refused() -> None:
    assert parse_document(source_of(padded(MAX_DOCUMENT_BYTES))).serial == 7
    (problem,) = problems_of(padded(MAX_DOCUMENT_BYTES + 1))
    assert str(MAX_DOCUMENT_BYTES) in problem.reason
    assert MAX_DOCUMENT_BYTES == 65_536


def test_size_is_counted_in_bytes() -> None:
    (problem,) = problems_of(VALID + "#" + "\u00fc" * (MAX_DOCUMENT_BYTES // 2))
    assert "bytes" in problem.reason


@pytest.mark.parametrize(
    ("nested", "too_deep"),
    [
        (f"x = {'[' * 16}{']' * 16}\n", False),
        (f"x = {'[' * 17}{']' * 17}\n", True),
        (f"[{'.'.join('a' * 16)}]\n", False),
        (f"[{'.'.join('a' * 17)}]\n", True),
        (f"{'.'.join('a' * 17)} = 1\n", True),
        (f"x = {'{a=' * 17}1{'}' * 17}\n", True),
        (f"x = {'[' * 30_000}{']' * 30_000}\n", True),
        (f"x = {'[' * 60_000}\n", True),
        (f"{'a.' * 30_000}a = 1\n", True),
        (f"x = {'{a=' * 15_000}1{'}' * 15_000}\n", True),
    ],
    ids=["arrays", "deep arrays", "header", "deep header", "dotted", "inline", "hostile", "unclosed", "long", "tables"],
)
def test_nesting_past_sixteen_is_refused(nested: str, too_deep: bool) -> None:  # noqa: FBT001 -- a table of bools
    reasons = [problem.reason for problem in problems_of(nested)]
    assert any("nests deeper than 16" in reason or "not TOML" in reason for reason in reasons) == too_deep


@pytest.mark.parametrize(("count", "too_many"), [(2_000, False), (2_001, True), (7_000, True)])
def test_keys_past_two_thousand_are_refused(count: int, too_many: bool) -> None:  # noqa: FBT001 -- a table of bools
    reasons = [problem.reason for problem in problems_of("".join(f"k{number}=1\n" for number in range(count)))]
    assert any("more than 2000 keys" in reason for reason in reasons) == too_many


@pytest.mark.parametrize(
    "hostile",
    [
        "a." * 32_000,
        '"' * 65_000,
        "[[a]]\n" * 10_000,
        "a=[" + "{}," * 20_000 + "]",
        "a = '''" + "'" * 60_000,
        "\n" * 65_000,
        "x = " + "9" * 60_000,
        "x = 1e" + "9" * 60_000,
        f'description = "{"x" * 60_000}"',
        "[limits]\nnetwork_allowlist = [" + '"a.b:1",' * 1_900 + "]",
    ],
    ids=["dots", "quotes", "tables", "items", "string", "lines", "digits", "exponent", "description", "destinations"],
)
def test_hostile_text_is_refused_in_little_time_and_few_words(hostile: str) -> None:
    start = time.monotonic()
    problems = problems_of(hostile)
    assert time.monotonic() - start < 5
    assert all(len(str(problem)) < 1_000 for problem in problems)


TOML_VALUES = st.sampled_from(
    ["1", "1.0", "true", "-1", "inf", "nan", "0xffffffffffffffffffff", "''", "'unlimited'", "'\U0001f600'", "[]", "{}"]
) | st.sampled_from(
    ["[1]", "[[]]", "['public']", "{lock=1}", "{ceiling=1,default=2}", "1979-05-27", "07:32:00", "\\", '"']
)
LINES = SCOPED.splitlines()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 4)):
            case 0 if len(lines) > 1:
                del lines[at]
            case 1:
                lines.insert(draw(st.integers(0, len(lines))), lines[at])
            case 2:
                lines[at] = f"{lines[at].partition('=')[0]}= {draw(TOML_VALUES)}"
            case 3:
                lines[at] = f"{draw(st.sampled_from(['[limits.', '[[', '', '#', '[limits.max_cpus]']))}{lines[at]}"
            case _:
                cut = draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:cut] + draw(st.text(max_size=3)) + lines[at][cut:]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@settings(max_examples=200)
@given(data=mutated() | st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(data=b"serial = 0x" + b"f" * 9000)
@example(data=b"a = 0001-01-01T00:00:00+23:59")
def test_arbitrary_bytes_are_a_policy_or_a_document_error(data: bytes) -> None:
    found = read_or_refusal(data)
    if isinstance(found, DocumentError):
        assert all(problem.origin.startswith("acme.toml") for problem in found.problems)
        assert all(problem.reason for problem in found.problems)
        return
    assert all(
        stated.limit.kind.from_native(stated.limit.kind.native(stated.value)) == stated.value
        for stated in found.statements
    )
    assert all(isinstance(stated.origin.reason, str) for stated in found.statements)
    assert all(isinstance(name, str) for name in found.audience)
    assert found.issued_at < found.expires_at


@pytest.mark.parametrize("offset", ["Z", "+23:59", "-23:59"])
@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"])
def test_dates_at_the_ends_of_the_calendar_can_be_compared(moment: str, offset: str) -> None:
    early, late = f"issued_at = {moment}{offset}", f"expires_at = {moment}{offset}"
    text = VALID.replace("issued_at = 2026-11-01T00:00:00Z", early)
    assert isinstance(read_or_refusal(text.encode()), PolicyDocument) == moment.startswith("0")
    text = VALID.replace("expires_at = 2027-02-01T00:00:00+01:00", late)
    assert isinstance(read_or_refusal(text.encode()), PolicyDocument) == moment.startswith("9")
