"""SBP119: an item of an allow-list of which another list, one that bounds everybody, permits nothing.

Only what holds for everybody bounds here, since a scope may not be for those for whom the item is. What other rules say
of items is left to them: covered ones, private ones, those of a network that is off, and lists that permit nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from policy.destinations import Destination, meet_of_sets, parse_destination
from policy.limits import NETWORK_ALLOWLIST, NETWORK_PRIVATE_ALLOWED, NETWORKING_ALLOWED
from policy.lint.findings import Found, Location, Severity
from policy.lint.reaches import private_is_closed, variables_turn_networking_on, what_else_than_public
from policy.lint.rule import Example, Family, SetRule
from policy.lint.subjects import EnvironmentSubject, FactList, FileFacts, Place, PolicySet, Setup
from policy.statements import Verb

_MOST_TRIED = 20
"""Different lists of a set that each file is held against; past that, the time would grow with their square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """A list that no code gets past."""

    value: frozenset[Destination]
    """What it permits: something."""
    words: str
    """What it is, for people: `the ceiling of acme.toml:12`."""
    location: Location
    """Where it stands."""
    file: FileFacts | None
    """The file that says it; `None` for a variable."""


def _check(policy_set: PolicySet, setup: Setup) -> Iterator[Found]:
    environment = setup.environment
    locked = environment is not None and environment.stated(NETWORK_ALLOWLIST, Verb.LOCK) is not None
    lists = {file.name: [each for each in file.lists if not locked or _is_firm(each)] for file in policy_set.files}
    speaking = [file for file in policy_set.files if lists[file.name]]
    if not speaking:
        return
    binding = _binding_verbs(policy_set)
    of_files = {
        file.name: [_bound(file, each) for each in lists[file.name] if _binds(each, binding)] for file in speaking
    }
    of_set = _different([bound for file in speaking for bound in of_files[file.name]])
    of_variables = list(_bounds_of_variables(environment)) if environment else []
    for file in speaking:
        if not _networking_is_off(file, environment):
            others = [bound for bound in of_set if bound.file is not file and _holds_with(bound, file)]
            for listed in lists[file.name]:
                yield from _of_list(file, listed, [*of_files[file.name], *of_variables, *others], environment)


def _is_firm(listed: FactList) -> bool:
    """Whether it bounds what the environment locks."""
    return listed.verb is not Verb.DEFAULT and not listed.environment_may_loosen


def _binding_verbs(policy_set: PolicySet) -> frozenset[Verb]:
    """What bounds everybody; locks only where they agree, since a set with different ones is refused."""
    locks = {
        each.value for file in policy_set.files for each in file.lists if each.verb is Verb.LOCK and not each.scoped
    }
    return frozenset({Verb.CEILING} if len(locks) > 1 else {Verb.CEILING, Verb.LOCK})


def _binds(listed: FactList, binding: frozenset[Verb]) -> bool:
    """Whether it bounds everybody; beside a list that permits nothing, others are pointless as a whole."""
    return not listed.scoped and listed.verb in binding and bool(listed.value)


def _bound(file: FileFacts, listed: FactList) -> _Bound:
    there = Place(file.name, listed.path, listed.offset, file.line_starts).location
    words = f"the {listed.verb.value} of {there.file}:{there.line}"
    return _Bound(value=listed.value, words=words, location=there, file=file)


def _bounds_of_variables(environment: EnvironmentSubject) -> Iterator[_Bound]:
    """The environment's lock, else its ceiling."""
    said = environment.stated(NETWORK_ALLOWLIST, Verb.LOCK) or environment.stated(NETWORK_ALLOWLIST, Verb.CEILING)
    if said is not None and said.value:
        name = said.origin.place
        there = environment.location(name)
        where = f"{there.file}:{there.line}" if environment.text else there.file
        yield _Bound(value=said.value, words=f"{name} ({where})", location=there, file=None)


def _different(bounds: Sequence[_Bound]) -> Sequence[_Bound]:
    """The first few that say different things."""
    first: dict[object, _Bound] = {}
    for bound in bounds:
        first.setdefault((bound.value, frozenset(bound.file.audience) if bound.file else None), bound)
    return tuple(first.values())[:_MOST_TRIED]


def _holds_with(bound: _Bound, file: FileFacts) -> bool:
    """Whether a bound's file is for every instance that this one is for."""
    return bound.file is None or frozenset(file.audience) <= frozenset(bound.file.audience)


def _networking_is_off(file: FileFacts, environment: EnvironmentSubject | None) -> bool:
    """Whether the file's whole lists lead nowhere, since nobody has a network."""
    on = variables_turn_networking_on(environment)
    return any(
        said.limit == NETWORKING_ALLOWED.name
        and said.verb is not Verb.DEFAULT
        and not said.value
        and not (on and said.environment_may_loosen)
        for said in file.statements
    )


def _of_list(
    file: FileFacts, listed: FactList, bounds: Sequence[_Bound], environment: EnvironmentSubject | None
) -> Iterator[Found]:
    left, why = listed.value, dict[Destination, _Bound]()
    for bound in bounds:
        if bound.value != listed.value:
            unmet = _unmet(left, bound.value)
            why.update(dict.fromkeys(unmet, bound))
            left -= unmet
    if not why:
        return
    said = [each.value for each in file.statements if each.limit == NETWORK_PRIVATE_ALLOWED.name]
    closed = private_is_closed(said, environment)
    for number, item in enumerate(listed.untrusted_items):
        destination = parse_destination(item)
        beyond = why.pop(destination, None)  # a second spelling is found as such
        if beyond and not (closed and what_else_than_public(destination.reach)):
            yield _found(file, listed, number, beyond)


def _unmet(items: frozenset[Destination], bound: frozenset[Destination]) -> frozenset[Destination]:
    """The items that have nothing in common with a bound.

    By halves, each against no more than it has in common with the bound: so two long lists cost about their lengths,
    not the product.
    """
    common = meet_of_sets(items, bound)
    if not common or common == items:
        return frozenset() if common else items
    if len(items) == 1:
        return frozenset()
    ordered = tuple(items)
    middle = len(ordered) // 2
    return _unmet(frozenset(ordered[:middle]), common) | _unmet(frozenset(ordered[middle:]), common)


def _found(file: FileFacts, listed: FactList, number: int, bound: _Bound) -> Found:
    offset, length = listed.spans[number]
    location = Place(file.name, (*listed.path, number), offset, file.line_starts).location
    return Found(
        message=f"{listed.untrusted_items[number]} can never be reached: {bound.words} permits none of it",
        remedy="Remove it, or widen the other list",
        location=replace(location, end_column=location.column + length),
        related=(bound.location,),
    )


RULE = SetRule(
    id="SBP119",
    name="destination-never-permitted",
    family=Family.CONTRADICTION,
    severity=Severity.WARNING,
    summary="An allow-list names a destination of which a lock or ceiling for everybody permits nothing.",
    rationale=(
        "What code may reach is what all lists permit that hold for it: those of one file, of the other files of its "
        "folder, and of the variables. Scopes only tighten. So whoever put the item there expects what will not work; "
        "and it begins to work, noticed by nobody, on the day that the other list is widened."
    ),
    bad=Example(
        policy="""[limits.network_allowlist]
ceiling = ["*.example.com:443"]
[[scope]]
match.groups = ["students"]
limits.network_allowlist.ceiling = ["pypi.org:443", "api.example.com:443"]
"""
    ),
    good=Example(
        policy="""[limits.network_allowlist]
ceiling = ["*.example.com:443", "pypi.org:443"]
[[scope]]
match.groups = ["students"]
limits.network_allowlist.ceiling = ["pypi.org:443", "api.example.com:443"]
"""
    ),
    check=_check,
)
