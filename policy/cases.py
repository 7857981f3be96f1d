"""Cases that a policy is tested with: who asks, with which valves and environment, and what must come out.

A file of cases is TOML and read as strictly as a policy: a misspelt key in a test would otherwise test nothing. A case
is judged by the real reading and resolving, so what passes here is what an instance does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policy.document import PolicyDocument
from policy.effective import EffectiveLimits
from policy.environment import read_environment
from policy.errors import ConfigurationError, DocumentError, Flaw, Problem
from policy.limits import LIMITS, VARIABLE_PREFIX, Limit, limit_named
from policy.requester import SURFACES, Requester
from policy.schema import plain_text_schema
from policy.shape import compiled_shape
from policy.situation import Situation
from policy.toml_text import TomlPlaces, read_toml

MOST_CASES = 500
"""Cases in one file: a policy file may have 2,000 keys, and so may this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCase:
    """One case."""

    name: str
    """What must be so, in a sentence."""
    place: str
    """`FILE:LINE` of its name."""
    requester: Requester
    """Who asks; what the case leaves out cannot be determined."""
    person_valves: Mapping[str, object]
    """By valve name, as Open WebUI would store them."""
    admin_valves: Mapping[str, object]
    """By valve name, as Open WebUI would store them."""
    environment: Mapping[str, str]
    """The variables of the server; empty where the case names none."""
    expected: Mapping[str, Any]
    """By limit name, a value of the limit's kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFile:
    """A file of cases."""

    policies: tuple[str, ...]
    """Policy files and folders, relative to the file itself; empty where none is named."""
    cases: tuple[PolicyCase, ...]
    """In the file's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseVerdict:
    """How one case went."""

    case: PolicyCase
    """Which one."""
    failures: tuple[str, ...]
    """What was not as expected, one sentence each; empty where all was."""


def parse_cases(text: bytes, origin: str) -> CaseFile:
    """Read a file of cases.

    Raises:
        DocumentError: it is no TOML, not of the right shape, or holds a value that its limit cannot have.
    """
    toml = read_toml(origin, text, compiled_shape(cases_schema()))
    found = tuple(_cases(toml.untrusted["case"], toml.places))
    problems = tuple(item for item in found if isinstance(item, Problem))
    if problems:
        raise DocumentError(problems)
    cases = tuple(item for item in found if isinstance(item, PolicyCase))
    return CaseFile(policies=tuple(toml.untrusted.get("policies", ())), cases=cases)


def judged(case: PolicyCase, documents: tuple[PolicyDocument, ...]) -> CaseVerdict:
    """Hold one case against these policies."""
    try:
        environment = read_environment(case.environment)
    except ConfigurationError as error:
        return CaseVerdict(case=case, failures=tuple(f"its environment is refused: {each}" for each in error.problems))
    limits = Situation(environment=environment, documents=documents).limits(
        requester=case.requester,
        untrusted_person_valves=case.person_valves,
        untrusted_admin_valves=case.admin_valves,
    )
    return CaseVerdict(case=case, failures=tuple(_failures(case, limits)))


def cases_schema() -> dict[str, Any]:
    """The JSON Schema of a file of cases."""
    text = plain_text_schema()
    texts = {"type": "array", "items": text, "uniqueItems": True}
    valves = {"type": "object", "additionalProperties": False, "properties": {limit.name: {} for limit in LIMITS}}
    who = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "role": text,
            "groups": texts,
            "user": text,
            "model": text,
            "surface": {"enum": list(SURFACES)},
        },
    }
    values = {limit.name: limit.kind.schema() for limit in LIMITS}
    expect = {"type": "object", "minProperties": 1, "additionalProperties": False, "properties": values}
    variables = {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "propertyNames": {"pattern": f"^{VARIABLE_PREFIX}[A-Z0-9_]+$"},
    }
    case = {
        "type": "object",
        "required": ["name", "expect"],
        "additionalProperties": False,
        "properties": {
            "name": text,
            "who": who,
            "valves": valves,
            "admin_valves": valves,
            "environment": variables,
            "expect": expect,
        },
    }
    return {
        "type": "object",
        "required": ["case"],
        "additionalProperties": False,
        "properties": {
            "policies": texts,
            "case": {"type": "array", "minItems": 1, "maxItems": MOST_CASES, "items": case},
        },
    }


def _cases(untrusted_cases: list[Any], places: TomlPlaces) -> Iterator[PolicyCase | Problem]:
    for number, untrusted in enumerate(untrusted_cases):
        expected: dict[str, Any] = {}
        for name, value in untrusted["expect"].items():
            limit = _known(name)
            try:
                expected[name] = limit.kind.from_native(value)
            except ValueError as error:
                path = ("case", number, "expect", name)
                remedy = f"Expected {limit.kind.grammar}"
                yield places.problem(path, Flaw.BAD_VALUE, reason=str(error), remedy=remedy)
        who = dict(untrusted.get("who", {}))
        groups = who.pop("groups", None)
        yield PolicyCase(
            name=untrusted["name"],
            place=places.line(("case", number, "name")),
            requester=Requester(**who, groups=None if groups is None else frozenset(groups)),
            person_valves=_valves(untrusted.get("valves", {})),
            admin_valves=_valves(untrusted.get("admin_valves", {})),
            environment=untrusted.get("environment", {}),
            expected=expected,
        )


def _valves(untrusted: Mapping[str, object]) -> dict[str, object]:
    return {_known(name).valve: value for name, value in untrusted.items()}


def _known(name: str) -> Limit[Any]:
    limit = limit_named(name)
    if limit is None:
        raise ValueError(f"{name} passed the schema and is no limit")
    return limit


def _failures(case: PolicyCase, limits: EffectiveLimits) -> Iterator[str]:
    for name, expected in case.expected.items():
        limit = _known(name)
        if limits[limit] != expected:
            got, wanted = limit.words(limits[limit]), limit.words(expected)
            yield f"{name} is {got}, by {limits.origin_of(limit)}; expected {wanted}"
