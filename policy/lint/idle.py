"""Which statements change nothing, by the rules of `policy.resolve`, whatever else a set, valves or variables hold.

Each answer is a yes only where taking the statement out leaves every limit of every request as it is; a no may also
mean that this cannot be told from so little. What does not let the environment loosen it has a use of its own beside
what does. `tests/policy/lint/test_dead_statements.py` holds the answers against the resolver.
"""

from typing import Any, Protocol

from policy.limits import Chooser, Limit
from policy.requester import SURFACES, ScopeConditions
from policy.statements import Verb

_LONGEST_SHOWN = 80


class Saying(Protocol):
    """What a statement says of a limit that is known."""

    @property
    def verb(self) -> Verb:
        """What is said."""

    @property
    def value(self) -> Any:  # noqa: ANN401 -- of the limit's kind
        """The value."""

    @property
    def environment_may_loosen(self) -> bool:
        """Whether an environment lock may be looser."""


def is_idle_alone(limit: Limit[Any], said: Saying) -> bool:
    """Whether a statement of a scope changes nothing, since it is as loose as can be and scopes only tighten."""
    from policy.rule_tables import loosest  # noqa: PLC0415 -- loads the resolver, which files without scopes never need

    if said.value != loosest(limit.kind):
        return False
    by_administrators = limit.chosen_by is Chooser.ADMINISTRATOR
    match said.verb:
        case Verb.CEILING:
            return True
        case Verb.DEFAULT:  # of what people choose, it can lift a built-in as far as somebody's ceiling
            return by_administrators or said.value == limit.built_in
        case _:  # a lock takes people's choice away
            return by_administrators


def is_idle_beside(limit: Limit[Any], said: Saying, other: Saying, *, scoped: bool) -> bool:
    """Whether a statement changes nothing beside another one that holds whenever it does.

    Args:
        limit: of which both speak.
        said: the statement.
        other: the other one; for everybody, if that one is.
        scoped: whether the statement stands in a scope.
    """
    by_administrators = limit.chosen_by is Chooser.ADMINISTRATOR
    if said.verb is Verb.DEFAULT and other.verb is Verb.LOCK and not (scoped and by_administrators):
        return True  # nobody looks at defaults
    if not limit.kind.within(other.value, said.value) or (other.environment_may_loosen and _is_firm(said)):
        return False
    held_to_others = scoped and by_administrators  # a scope's lock and default are ceilings on what holds without them
    match said.verb, other.verb:
        case (Verb.DEFAULT, Verb.CEILING):  # then the built-in comes out as that ceiling too
            return held_to_others or limit.kind.within(other.value, limit.built_in)
        case (Verb.LOCK, Verb.CEILING):  # else the lock takes people's choice away
            return held_to_others or bool(other.value == limit.kind.strictest)
        case (_, Verb.DEFAULT):
            return said.verb is Verb.DEFAULT
        case _:
            return True


def _is_firm(said: Saying) -> bool:
    """Whether it bounds what the environment locks."""
    return said.verb is not Verb.DEFAULT and not said.environment_may_loosen


def excluded_attribute(conditions: ScopeConditions) -> str | None:
    """The attribute of which a scope excepts every value that it matches, if there is one."""
    for attribute, values in conditions.match.items():
        if values <= conditions.excepted.get(attribute, frozenset()):
            return attribute
    return None


def holds_wherever(wide: ScopeConditions, narrow: ScopeConditions) -> bool:
    """Whether one scope is for everybody for whom the other one is, also where something cannot be determined."""
    return all(_is_met(name, values, narrow) for name, values in wide.match.items()) and all(
        _is_spared(name, values, narrow) for name, values in wide.excepted.items()
    )


def _is_met(attribute: str, values: frozenset[str], narrow: ScopeConditions) -> bool:
    """Whether all for whom a scope is have one of these values."""
    possible = _possible(attribute, narrow)
    return possible is not None and possible <= values


def _is_spared(attribute: str, values: frozenset[str], narrow: ScopeConditions) -> bool:
    """Whether none for whom a scope is has any of these values."""
    if values <= narrow.excepted.get(attribute, frozenset()):
        return True
    possible = _possible(attribute, narrow)  # of groups, one may have others beside those
    return attribute != "groups" and possible is not None and possible.isdisjoint(values)


def _possible(attribute: str, narrow: ScopeConditions) -> frozenset[str] | None:
    """Values of which all have one for whom a scope is, if they can be determined; `None` where it may be any."""
    everything = frozenset(SURFACES) if attribute == "surface" else None
    matched = narrow.match.get(attribute, everything)
    return None if matched is None else matched - narrow.excepted.get(attribute, frozenset())


def said_words(limit: Limit[Any], said: Saying) -> str:
    """A statement for people, of bounded length: `the ceiling 60 seconds`."""
    words = limit.words(said.value)
    return f"the {said.verb.value} {words if len(words) <= _LONGEST_SHOWN else f'{words[:_LONGEST_SHOWN]}…'}"
