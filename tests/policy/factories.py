"""Small factories that the tests of the policy core share: statements, policy files, and strategies for values."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from types import MappingProxyType
from typing import Any

import tomli_w
from hypothesis import strategies as st

from policy.destinations import Destination, parse_destination
from policy.document import DocumentSource, PolicyDocument, PolicyScope, parse_document
from policy.limits import LIMITS, Chooser, Limit
from policy.requester import SURFACES, Requester, ScopeConditions
from policy.resolve import Layers
from policy.statements import Layer, Origin, Stated, Verb
from policy.values import UNLIMITED, Destinations, Kind, Switch, Thousandths, Unlimited, Whole, Words

HEADER: dict[str, Any] = {
    "schema": 1,
    "id": "acme-prod",
    "serial": 7,
    "issued_at": datetime(2026, 11, 1, tzinfo=UTC),
    "expires_at": datetime(2027, 2, 1, tzinfo=UTC),
    "audience": ["prod-eu"],
}
PERSONS = tuple(limit for limit in LIMITS if limit.chosen_by is Chooser.PERSON)
ADMINISTRATORS = tuple(limit for limit in LIMITS if limit.chosen_by is Chooser.ADMINISTRATOR)
VERBS = (Verb.LOCK, Verb.CEILING, Verb.DEFAULT)
DESTINATION_TEXTS = (
    "public",
    "public:443",
    "public:80",
    "example.com",
    "example.com:443",
    "api.example.com",
    "a.b.example.com:80",
    "*.example.com",
    "*.example.com:443",
    "*.b.example.com",
    "*.com",
    "xn--bcher-kva.example",
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/8:443",
    "10.1.0.0/16",
    "10.1.2.3",
    "10.1.2.3:443",
    "192.0.2.0/24",
    "::/0",
    "2001:db8::/32",
    "[2001:db8::/32]:443",
    "2001:db8::1",
    "[2001:db8::1]:80",
    "::ffff:10.1.2.3",
)


def text_of(limits: dict[str, Any], **changes: Any) -> str:  # noqa: ANN401 -- anything that TOML can hold
    """Write a policy file; a change of `None` leaves that key out."""
    keys = {**HEADER, **changes}
    return tomli_w.dumps({**{key: value for key, value in keys.items() if value is not None}, "limits": limits})


def source_of(text: str | bytes, origin: str = "acme.toml", key_ids: tuple[str, ...] = ()) -> DocumentSource:
    data = text.encode() if isinstance(text, str) else text
    return DocumentSource(origin=origin, text=data, payload_sha256=hashlib.sha256(data).hexdigest(), key_ids=key_ids)


def document_of(limits: dict[str, Any], policy_id: str = "acme-prod") -> PolicyDocument:
    """Read a policy file that says this of limits."""
    return parse_document(source_of(text_of(limits, id=policy_id), origin=f"{policy_id}.toml"))


def said_by_environment(limit: Limit[Any], verb: Verb, native: object) -> Stated:
    suffix = {Verb.LOCK: "", Verb.CEILING: "__CEILING", Verb.DEFAULT: "__DEFAULT"}[verb]
    origin = Origin(layer=Layer.ENVIRONMENT, place=f"{limit.variable}{suffix}")
    return Stated(limit=limit, verb=verb, value=limit.kind.from_native(native), origin=origin)


def destinations(*texts: str) -> frozenset[Destination]:
    return frozenset(map(parse_destination, texts))


def values_of(kind: Kind[Any]) -> st.SearchStrategy[Any]:
    """Every value that a kind can have; for destinations, enough of them to meet each other in every way."""
    match kind:
        case Switch():
            return st.booleans()
        case Whole(minimum=minimum, maximum=maximum, may_be_unlimited=free):
            return _perhaps_unlimited(st.integers(minimum, maximum), free=free)
        case Thousandths(minimum=minimum, maximum=maximum, may_be_unlimited=free):
            thousandths = st.integers(int(minimum * 1000), int(maximum * 1000))
            return _perhaps_unlimited(thousandths.map(lambda count: Decimal(count) / 1000), free=free)
        case Words(choices=choices):
            return st.frozensets(st.sampled_from(choices))
        case Destinations():
            texts = st.lists(st.sampled_from(DESTINATION_TEXTS), max_size=4)
            return texts.map(kind.from_native)
    raise ValueError(f"{kind} has no strategy")


def _perhaps_unlimited(numbers: st.SearchStrategy[Any], *, free: bool) -> st.SearchStrategy[Any]:
    unlimited: st.SearchStrategy[Unlimited] = st.just(UNLIMITED)
    return numbers | unlimited if free else numbers


def document_saying(policy_id: str, *statements: Stated) -> PolicyDocument:
    """Make a policy file that says this, without a text."""
    return PolicyDocument(
        origin=f"{policy_id}.toml",
        policy_id=policy_id,
        serial=HEADER["serial"],
        issued_at=HEADER["issued_at"],
        not_before=None,
        expires_at=HEADER["expires_at"],
        audience=("*",),
        payload_sha256=hashlib.sha256(policy_id.encode()).hexdigest(),
        key_ids=(),
        statements=statements,
    )


# Strategies for whole situations: sets of policy files with scopes, environments, valves, and who asks.

ROLES, GROUPS, USERS, MODELS = ("admin", "user"), ("students", "staff", "g-1"), ("u-1", "u-2"), ("llama", "qwen")
NAMES = MappingProxyType({"roles": ROLES, "groups": GROUPS, "users": USERS, "models": MODELS, "surface": SURFACES})
"""For each attribute of a scope, the few values that scopes and requesters are drawn from, so that they meet."""
SAID_TOGETHER: st.SearchStrategy[tuple[Verb, ...]] = st.sampled_from(
    [(), (Verb.LOCK,), (Verb.CEILING,), (Verb.DEFAULT,), (Verb.CEILING, Verb.DEFAULT)]
)
"""What one block of statements may say of one limit."""
UNREADABLE_VALVES: tuple[Any, ...] = ("", "x", -1, 2.5, {}, [5])


@cache
def telling_values(limit: Limit[Any]) -> st.SearchStrategy[Any]:
    """Values of a limit, most of them about the built-in and the ends of its order, where rules differ."""
    telling = {limit.kind.strictest, limit.lockdown, limit.built_in, loosest(limit)}
    match limit.kind:
        case Whole(minimum=minimum):
            telling |= {value for value in range(limit.built_in - 2, limit.built_in + 4) if value >= minimum}
        case Thousandths():
            telling |= {limit.built_in * step for step in (Decimal("0.75"), Decimal("1.5"), Decimal(2))}
    return st.sampled_from(sorted(telling, key=limit.kind.text)) | values_of(limit.kind)


def loosest(limit: Limit[Any]) -> Any:  # noqa: ANN401 -- a value of the limit's kind
    """The top of a limit's order."""
    match limit.kind:
        case Switch(strict=strict):
            return not strict
        case Whole(maximum=maximum, may_be_unlimited=free) | Thousandths(maximum=maximum, may_be_unlimited=free):
            return UNLIMITED if free else maximum
        case Words(choices=choices):
            return frozenset(choices)
        case Destinations():
            return destinations("public")
    raise ValueError(f"{limit.kind} has no top")


@cache
def requesters(*, known: bool = False) -> st.SearchStrategy[Requester]:
    """Who asks; each attribute may be undetermined unless all are known."""

    def perhaps(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return values if known else st.none() | values

    return st.builds(
        Requester,
        role=perhaps(st.sampled_from(ROLES)),
        groups=perhaps(st.frozensets(st.sampled_from(GROUPS))),
        user=perhaps(st.sampled_from(USERS)),
        model=perhaps(st.sampled_from(MODELS)),
        surface=perhaps(st.sampled_from(SURFACES)),
    )


@cache
def scope_conditions() -> st.SearchStrategy[ScopeConditions]:
    """Whom a scope is for, as the schema permits it: something under `match`, under `except`, or both."""
    names = {
        name: st.sampled_from(values).map(lambda value: frozenset({value}))
        if name == "surface"
        else st.frozensets(st.sampled_from(values), min_size=1)
        for name, values in NAMES.items()
    }
    some = st.lists(st.sampled_from(sorted(names)), min_size=1, max_size=2, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: names[name] for name in chosen})
    )
    return st.builds(ScopeConditions, match=some, excepted=st.just({})) | st.builds(
        ScopeConditions, match=st.just({}) | some, excepted=some
    )


@st.composite
def statements_of(
    draw: st.DrawFn, limits: Sequence[Limit[Any]], origin: Origin, *, locks: Mapping[str, Any] | None = None
) -> tuple[Stated, ...]:
    """What one layer or one scope says of these limits, without contradicting itself.

    Args:
        locks: by limit name, the value of every lock; drawn anew for each where it is not given.
    """
    found: list[Stated] = []
    for limit in limits:
        said: dict[Verb, Any] = {verb: draw(telling_values(limit)) for verb in draw(SAID_TOGETHER)}
        if Verb.LOCK in said and locks is not None:
            said[Verb.LOCK] = locks[limit.name]
        if Verb.CEILING in said and Verb.DEFAULT in said:
            said[Verb.DEFAULT] = limit.kind.meet(said[Verb.DEFAULT], said[Verb.CEILING])
        firm = bool(said) and origin.layer is Layer.POLICY and draw(st.booleans())
        for verb, value in said.items():
            place = f"{origin.place}-{limit.name}-{verb.value}"
            stated = Stated(limit=limit, verb=verb, value=value, origin=dataclasses.replace(origin, place=place))
            found.append(dataclasses.replace(stated, environment_may_loosen=not firm))
    return tuple(found)


def environments(limits: Sequence[Limit[Any]]) -> st.SearchStrategy[tuple[Stated, ...]]:
    """What an environment says of these limits, nothing in many cases."""
    return st.just(()) | statements_of(limits, Origin(layer=Layer.ENVIRONMENT, place="variable"))


@st.composite
def scopes_of(draw: st.DrawFn, limits: Sequence[Limit[Any]], policy_id: str, number: int = 0) -> PolicyScope:
    """One scope of a policy file."""
    conditions = draw(scope_conditions())
    place = f"{policy_id}.toml:scope-{number}"
    origin = Origin(
        layer=Layer.POLICY, place=place, policy_id=policy_id, serial=HEADER["serial"], scope=str(conditions)
    )
    return PolicyScope(conditions=conditions, statements=draw(statements_of(limits, origin)))


@st.composite
def policy_sets(
    draw: st.DrawFn, limits: Sequence[Limit[Any]], *, most_files: int = 3, most_scopes: int = 3
) -> tuple[PolicyDocument, ...]:
    """Policy files with scopes that an instance would accept as one set: unscoped locks of one limit agree."""
    locks = {limit.name: draw(telling_values(limit)) for limit in limits}
    documents = []
    for number in range(draw(st.integers(0, most_files))):
        policy_id = f"p{number}"
        origin = Origin(layer=Layer.POLICY, place=f"{policy_id}.toml:0", policy_id=policy_id, serial=HEADER["serial"])
        statements = draw(statements_of(limits, origin, locks=locks))
        scopes = tuple(draw(scopes_of(limits, policy_id, each)) for each in range(draw(st.integers(0, most_scopes))))
        documents.append(dataclasses.replace(document_saying(policy_id, *statements), scopes=scopes))
    return tuple(documents)


def stored_valves(limits: Sequence[Limit[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Valves of these limits as Open WebUI may hold them: unset, as text, as a native value, or unreadable."""
    return st.fixed_dictionaries(
        {
            limit.valve: st.none()
            | telling_values(limit).map(limit.kind.native)
            | telling_values(limit).map(limit.kind.text)
            | st.sampled_from(UNREADABLE_VALVES)
            for limit in limits
        }
    )


@st.composite
def situations(draw: st.DrawFn, limits: Sequence[Limit[Any]], *, lockdown: bool = False) -> Layers:
    """Everything that may be said of these limits at once."""
    return Layers(
        environment=draw(environments(limits)),
        documents=draw(policy_sets(limits)),
        untrusted_person_valves=draw(stored_valves(limits)),
        untrusted_admin_valves=draw(stored_valves(limits)),
        requester=draw(requesters()),
        lockdown=draw(st.none() | st.just("the set has been refused for too long")) if lockdown else None,
    )


def written(document: PolicyDocument) -> str:
    """A policy file that says what this document says of limits, which must be something; reasons are left out."""
    scopes = [
        {
            key: tables
            for key, tables in {
                "match": _named_lists(scope.conditions.match),
                "except": _named_lists(scope.conditions.excepted),
                "limits": _limit_tables(scope.statements),
            }.items()
            if tables
        }
        for scope in document.scopes
        if scope.statements  # a scope that says nothing cannot be written
    ]
    keys = {
        **HEADER,
        "id": document.policy_id,
        "serial": document.serial,
        "audience": list(document.audience),
        "requires": list(document.requires),
        "retires": list(document.retires),
        "limits": _limit_tables(document.statements),
        "scope": scopes,
    }
    return tomli_w.dumps({key: said for key, said in keys.items() if said})


def _named_lists(conditions: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    return {name: min(said) if name == "surface" else sorted(said) for name, said in conditions.items()}


def _limit_tables(statements: Sequence[Stated]) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for stated in statements:
        table = tables.setdefault(stated.limit.name, {})
        if stated.verb is not Verb.DEFAULT:  # which is no bound
            table["env_may_loosen"] = stated.environment_may_loosen
        table[stated.verb.value] = stated.limit.kind.native(stated.value)
    return tables
