"""Compares two sets of policy files by what they let somebody have: exact over values, scopes, people and valves.

NEW is looser in a limit if and only if some request's effective value under NEW permits something that its value under
OLD does not; tighter if so the other way round. A request is any requester with any valves. Every difference is shown
by a witness: a request that the resolver itself answers differently.

Where no environment is given, an empty one is looked at first, and then those that can show what it does not: a lock
leaves of policy files only the bounds that it may not loosen; ceilings and defaults shift what scopes alone are held
to. The loosest of each shows all that any environment could. So two sets that come out equal or tighter let no request
have more in any environment.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from policy.document import PolicyDocument
from policy.effective import Decision
from policy.limits import LIMITS, Chooser, Limit
from policy.request_search import FoundRequest, LimitContrast, limit_contrast
from policy.requester import Requester, ScopeConditions
from policy.resolve import Layers, resolve
from policy.rule_tables import RuleTables, loosest
from policy.scope_search import bits_of, requester_words
from policy.statements import Layer, Origin, Stated, Verb

_OLD, _NEW = 0, 1


class Verdict(Enum):
    """What a new set of policy files is, beside an old one."""

    EQUAL = "equal"
    """Every request has the same value."""
    TIGHTER = "tighter"
    """Some have less, and none has more."""
    LOOSER = "looser"
    """Some have more, and none has less."""
    MIXED = "mixed"
    """Some have more, and some have less."""

    @property
    def loosens(self) -> bool:
        """Whether some request has more."""
        return self in {Verdict.LOOSER, Verdict.MIXED}

    @property
    def tightens(self) -> bool:
        """Whether some request has less."""
        return self in {Verdict.TIGHTER, Verdict.MIXED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A request to which one of two sets permits something that the other does not."""

    requester: Requester
    """Who asks; what no scope asks for is left undetermined."""
    who: str
    """The same in words."""
    environment: tuple[Stated, ...]
    """What the environment says of the limit."""
    person: Any
    """The person's valve, of the limit's kind; `None` where it is not set."""
    admin: Any
    """The administrator's valve, of the limit's kind; `None` where it is not set."""
    old: Decision
    """The limit under the old set."""
    new: Decision
    """The limit under the new set."""
    scopes: tuple[ScopeConditions, ...]
    """Of the scopes that speak of the limit, those for some of whose requesters it differs so."""
    places: tuple[str, ...]
    """Where each of those scopes stands: in the new set, or in the old one where the new one lacks it."""
    beyond_scopes: bool
    """Whether it differs so too for somebody for whom none of them holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How one limit differs."""

    looser: Witness | None = None
    """A request that has more under the new set."""
    tighter: Witness | None = None
    """A request that has less under the new set."""

    @property
    def verdict(self) -> Verdict:
        """The two in one word."""
        return _verdict(loosens=self.looser is not None, tightens=self.tighter is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitComparison:
    """How one limit differs, in the environment given or in any."""

    limit: Limit[Any]
    """Which limit."""
    plain: Difference
    """In the environment given, or in an empty one."""
    under_lock: Difference = Difference()
    """Where the environment locks the limit; not looked at where an environment was given."""
    under_default: Difference = Difference()
    """What shows only where the environment states a ceiling or a default; as above."""

    @property
    def verdict(self) -> Verdict:
        """All of it in one word."""
        return joint_verdict(each.verdict for each in (self.plain, self.under_lock, self.under_default))


def joint_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """What several differences come to together."""
    every = tuple(verdicts)
    return _verdict(loosens=any(each.loosens for each in every), tightens=any(each.tightens for each in every))


def _verdict(*, loosens: bool, tightens: bool) -> Verdict:
    if loosens:
        return Verdict.MIXED if tightens else Verdict.LOOSER
    return Verdict.TIGHTER if tightens else Verdict.EQUAL


def compared_limits(
    old: Sequence[PolicyDocument], new: Sequence[PolicyDocument], environment: tuple[Stated, ...] | None
) -> Iterator[LimitComparison]:
    """Each limit, one after another, since some take time.

    Args:
        old: one set of policy files that do not contradict each other.
        new: another one.
        environment: what holds on both sides; `None` for an empty environment, and then for any other one too.

    Raises:
        PolicyError: the scopes are too entangled to be compared in good time.
    """
    tables = RuleTables()
    for limit in LIMITS:
        pair = _Pair(limit=limit, old=tuple(old), new=tuple(new), tables=tables)
        if environment is None:
            plain = pair.difference([()])
            yield LimitComparison(
                limit=limit,
                plain=plain,
                under_lock=pair.difference([_loosest_lock(limit)]),
                under_default=pair.difference_under_default(plain),
            )
        else:
            here = tuple(stated for stated in environment if stated.limit is limit)
            yield LimitComparison(limit=limit, plain=pair.difference([here]))


def _loosest_lock(limit: Limit[Any]) -> tuple[Stated, ...]:
    return (_by_environment(limit, Verb.LOCK, loosest(limit.kind)),)


def _soft_environments(limit: Limit[Any]) -> list[tuple[Stated, ...]]:
    """Environments without a lock that show what valves cannot: what scopes alone lock or preset, held to less or more.

    Of a limit that only an administrator chooses, their valve shows all of it.
    """
    if limit.chosen_by is not Chooser.PERSON:
        return []
    return [(_by_environment(limit, verb, loosest(limit.kind)),) for verb in (Verb.CEILING, Verb.DEFAULT)]


def _by_environment(limit: Limit[Any], verb: Verb, value: Any) -> Stated:  # noqa: ANN401 -- of the limit's kind
    suffix = {Verb.LOCK: "", Verb.CEILING: "__CEILING", Verb.DEFAULT: "__DEFAULT"}[verb]
    origin = Origin(layer=Layer.ENVIRONMENT, place=f"{limit.variable}{suffix}")
    return Stated(limit=limit, verb=verb, value=value, origin=origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """Two sets, and the limit that is compared."""

    limit: Limit[Any]
    old: tuple[PolicyDocument, ...]
    new: tuple[PolicyDocument, ...]
    tables: RuleTables

    def difference_under_default(self, known: Difference) -> Difference:
        """How the limit differs beside a ceiling or default of the environment, in a direction not known yet."""
        return self.difference(_soft_environments(self.limit) if self._scopes_choose() else [], known)

    def difference(self, environments: list[tuple[Stated, ...]], known: Difference = Difference()) -> Difference:
        """How the limit differs in any of these environments, in a direction that is not known yet."""
        if not environments or known.verdict is Verdict.MIXED:
            return Difference()
        contrast = limit_contrast(
            self.limit,
            self.old,
            self.new,
            tuple(stated for environment in environments for stated in environment),
            firm_only=any(stated.verb is Verb.LOCK for stated in environments[0]),
            tables=self.tables,
        )
        if contrast is None:
            return Difference()

        def witness(wider: int) -> Witness | None:
            return next(filter(None, (self._witness(contrast, each, wider=wider) for each in environments)), None)

        return Difference(
            looser=None if known.looser else witness(_NEW), tighter=None if known.tighter else witness(_OLD)
        )

    def _scopes_choose(self) -> bool:
        """Whether scopes lock or preset the limit: where they do not, an environment shows what valves show too."""
        return any(
            stated.limit is self.limit and stated.verb is not Verb.CEILING
            for document in (*self.old, *self.new)
            for scope in document.scopes
            for stated in scope.statements
        )

    def _witness(self, contrast: LimitContrast, environment: tuple[Stated, ...], *, wider: int) -> Witness | None:
        """A request that one side permits more, with all scopes for whose requesters it does."""
        search = contrast.search_in(environment, wider=wider)
        found = search.request()
        if found is None:
            return None
        fewest = contrast.search.somebody(found.holding, found.avoided, fewest_groups=True)
        requester = fewest or found.requester
        person, admin = self._plain_valves(requester, environment, found, wider=wider)
        old, new = self._decisions(requester, environment, person, admin)
        scopes = tuple(contrast.scopes[number] for number in bits_of(search.concerned_scopes()))
        places = {who: stated.origin.place for side in contrast.sides for who, stated in side}
        return Witness(
            requester=requester,
            who=requester_words(requester, contrast.scopes),
            environment=environment,
            person=person,
            admin=admin,
            old=old,
            new=new,
            scopes=scopes,
            places=tuple(places[scope] for scope in scopes),
            beyond_scopes=search.goes_beyond_scopes(),
        )

    def _plain_valves(
        self, requester: Requester, environment: tuple[Stated, ...], found: FoundRequest, *, wider: int
    ) -> tuple[Any, Any]:
        """Valves for people to read: they ask for all there is if that shows it too, and none makes no difference."""
        kind = self.limit.kind

        def values(person: Any, admin: Any) -> tuple[Any, Any]:  # noqa: ANN401 -- wider and narrower, of the kind
            decisions = self._decisions(requester, environment, person, admin)
            return decisions[wider].value, decisions[1 - wider].value

        for open_value in (loosest(kind), found.point):
            said = {None: None, True: open_value, False: kind.strictest}
            person, admin = (said[permits] for permits in found.valves)
            outcome = values(person, admin)
            if not kind.within(*outcome):
                break
        plainer = ((None, None), (None, admin), (person, None))
        return next((each for each in plainer if values(*each) == outcome), (person, admin))

    def _decisions(
        self,
        requester: Requester,
        environment: tuple[Stated, ...],
        person: Any,  # noqa: ANN401 -- of the limit's kind, or not set
        admin: Any,  # noqa: ANN401
    ) -> tuple[Decision, Decision]:
        """What the resolver says of one request, under either set."""
        name, valve, native = self.limit.name, self.limit.valve, self.limit.kind.native
        old, new = (
            resolve(
                Layers(
                    environment=environment,
                    documents=documents,
                    requester=requester,
                    untrusted_person_valves={} if person is None else {valve: native(person)},
                    untrusted_admin_valves={} if admin is None else {valve: native(admin)},
                )
            ).decisions[name]
            for documents in (self.old, self.new)
        )
        return old, new
