"""Small factories that the tests of the policy core share: statements, policy files, and strategies for values."""

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import tomli_w
from hypothesis import strategies as st

from policy.destinations import Destination, parse_destination
from policy.document import DocumentSource, PolicyDocument, parse_document
from policy.limits import LIMITS, Chooser, Limit
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
