"""What rules call without effect can be taken out: no limit of any request changes, with any valves and variables."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from policy.compare import Verdict, compared_limits
from policy.destinations import meet_of_destinations, meet_of_sets, parse_destination
from policy.document import PolicyDocument, PolicyScope
from policy.environment import EnvironmentLayer
from policy.limits import LIMITS, NETWORK_ALLOWLIST, NETWORK_PRIVATE_ALLOWED, NETWORKING_ALLOWED, Limit
from policy.lint.files import judged, policy_file
from policy.lint.fixing import with_fixes
from policy.lint.registry import rules_by_word
from policy.lint.rule import DocumentRule, SetRule
from policy.lint.run import policy_sets
from policy.lint.subjects import EnvironmentSubject, PlacedStatement, PolicyFile, Setup
from policy.positions import path_text
from policy.requester import Requester
from policy.resolve import Layers, resolve
from policy.settings import SettingValues
from policy.statements import Stated
from tests.policy import factories
from tests.policy.factories import DESTINATION_TEXTS, environments, requesters, situations, text_of, written
from tests.policy.lint.linting import NOW

PLAIN = Setup(now=NOW)
MOST_ALONE = 4
"""Dead statements from which on not each is taken out alone: comparing takes time."""
ABOUT_NETWORK = (NETWORKING_ALLOWED, NETWORK_ALLOWLIST, NETWORK_PRIVATE_ALLOWED)
FEW_LIMITS = st.lists(st.sampled_from(LIMITS), min_size=1, max_size=2, unique=True)
SETS = FEW_LIMITS.flatmap(lambda limits: factories.policy_sets(limits, most_files=2))


@st.composite
def sets_beside_variables(draw: st.DrawFn) -> tuple[tuple[PolicyDocument, ...], tuple[Stated, ...]]:
    limits: list[Limit[Any]] = draw(FEW_LIMITS)
    return draw(factories.policy_sets(limits, most_files=2)), draw(environments(limits))


def files_of(documents: Iterable[PolicyDocument]) -> list[PolicyFile]:
    """The documents that say anything, as files of one folder."""
    speaking = [each for each in documents if each.statements or any(scope.statements for scope in each.scopes)]
    names = [f"{document.policy_id}.toml" for document in speaking]
    texts = [written(document).encode() for document in speaking]
    return [policy_file(name, Path("policies") / name, text) for name, text in zip(names, texts, strict=True)]


def set_up(environment: tuple[Stated, ...]) -> Setup:
    layer = EnvironmentLayer(statements=environment, settings=SettingValues({}), warnings=())
    subject = EnvironmentSubject(name="prod.env", variables={}, text="", problems=(), layer=layer)
    return Setup(now=NOW, environment=subject)


def dead_in_file(file: PolicyFile, setup: Setup, *rules: str) -> Iterator[PlacedStatement]:
    for word in rules:
        rule = rules_by_word()[word]
        assert isinstance(rule, DocumentRule)
        paths = {found.path for found in rule.check(file, setup)}
        for placed in file.statements:
            if placed.path in paths:
                event(f"{word} {placed.verb.value} {'in a scope' if placed.scope is not None else 'for everybody'}")
                yield placed


def dead_in_set(files: Sequence[PolicyFile]) -> Iterator[PlacedStatement]:
    rule = rules_by_word()["SBP118"]
    assert isinstance(rule, SetRule)
    for policy_set in policy_sets([judged(file, PLAIN) for file in files]):
        places = [found.location for found in rule.check(policy_set, PLAIN)]
        keys = {(place.file, place.key) for place in places if place}
        for file in files:
            for placed in file.everywhere:
                if (file.name, path_text(placed.path)) in keys:
                    event(f"SBP118 {placed.verb.value}")
                    yield placed


def without(document: PolicyDocument, dead: Sequence[PlacedStatement]) -> PolicyDocument:
    """The document without those statements."""

    def kept(statements: Iterable[Stated]) -> tuple[Stated, ...]:
        return tuple(stated for stated in statements if not any(stated is each.stated for each in dead))

    scopes = tuple(
        PolicyScope(conditions=scope.conditions, statements=kept(scope.statements)) for scope in document.scopes
    )
    return replace(document, statements=kept(document.statements), scopes=scopes)


def assert_idle(
    files: Sequence[PolicyFile], dead: Sequence[PlacedStatement], environment: tuple[Stated, ...] | None = None
) -> None:
    """Some of them alone can go, and all of them together."""
    documents = [file.document for file in files]
    alone = dead if len(dead) < MOST_ALONE else [dead[0], dead[len(dead) // 2], dead[-1]]
    for gone in [*([each] for each in alone), dead] if dead else ():
        rest = [without(document, gone) for document in documents]
        verdicts = {each.limit.name: each.verdict for each in compared_limits(documents, rest, environment)}
        assert {*verdicts.values()} == {Verdict.EQUAL}, [each.path for each in gone]


@given(SETS)
def test_a_statement_that_never_bites_changes_nothing(documents: tuple[PolicyDocument, ...]) -> None:
    files = files_of(documents)

    assert_idle(files, [each for file in files for each in dead_in_file(file, PLAIN, "SBP111", "SBP116")])


@given(SETS)
def test_a_statement_that_another_file_overrides_changes_nothing(documents: tuple[PolicyDocument, ...]) -> None:
    files = files_of(documents)
    by_itself = [each for file in files for each in dead_in_file(file, PLAIN, "SBP111", "SBP116")]
    in_set = list(dead_in_set(files))

    assert_idle(files, [*in_set, *by_itself] if in_set else [])


@given(sets_beside_variables())
def test_a_statement_that_a_variable_overrides_changes_nothing(
    beside: tuple[tuple[PolicyDocument, ...], tuple[Stated, ...]],
) -> None:
    documents, environment = beside
    files = files_of(documents)
    rules = ("SBP111", "SBP116", "SBP117")

    assert_idle(
        files, [each for file in files for each in dead_in_file(file, set_up(environment), *rules)], environment
    )


@given(SETS, requesters(known=True))
def test_a_scope_that_never_matches_is_for_nobody_who_is_known(
    documents: tuple[PolicyDocument, ...], requester: Requester
) -> None:
    rule = rules_by_word()["SBP110"]
    assert isinstance(rule, DocumentRule)

    for file in files_of(documents):
        for found in rule.check(file, PLAIN):
            event("SBP110")
            assert not file.document.scopes[int(found.path[1])].conditions.hold_for(requester)


@given(st.lists(st.sampled_from(DESTINATION_TEXTS), min_size=1, max_size=6, unique=True))
def test_a_destination_that_is_covered_can_go(texts: list[str]) -> None:
    file = policy_file("acme.toml", None, text_of({NETWORK_ALLOWLIST.name: texts}).encode())
    rule = rules_by_word()["SBP113"]
    assert isinstance(rule, DocumentRule)
    found = list(rule.check(file, PLAIN))

    kept = [text for number, text in enumerate(texts) if all(each.path[-1] != number for each in found)]
    assert len(kept) == len(file.everywhere[0].value)
    for rest in (kept, *([text for text in texts if text != texts[int(each.path[-1])]] for each in found)):
        assert NETWORK_ALLOWLIST.kind.from_native(rest) == file.everywhere[0].value
    for each in found:
        event("SBP113")
        after, _ = with_fixes(file.text, [each.fix] if each.fix else [])
        mended = policy_file("acme.toml", None, after.encode())
        assert mended.untrusted_at(each.path[:-1]) == [text for text in texts if text != texts[int(each.path[-1])]]


@given(situations(ABOUT_NETWORK))
def test_destinations_found_beside_networking_that_is_off_are_never_reached(layers: Layers) -> None:
    setup = set_up(layers.environment)

    for file in files_of(layers.documents):
        dead = list(dead_in_file(file, setup, "SBP115"))
        if dead:
            documents = (
                file.document,
                *(each for each in layers.documents if each.policy_id != file.document.policy_id),
            )
            limits = resolve(replace(layers, documents=documents)).decisions
            assert limits[NETWORKING_ALLOWED.name].value is False


@given(situations([NETWORK_ALLOWLIST]))
def test_a_destination_that_is_never_permitted_is_in_no_list_that_holds(layers: Layers) -> None:
    setup = set_up(layers.environment)
    rule = rules_by_word()["SBP119"]
    assert isinstance(rule, SetRule)
    holding = resolve(layers).decisions[NETWORK_ALLOWLIST.name].value

    for policy_set in policy_sets([judged(file, PLAIN) for file in files_of(layers.documents)]):
        for found in rule.check(policy_set, setup):
            event("SBP119")
            item = frozenset({parse_destination(found.message.partition(" ")[0])})
            assert not meet_of_sets(item, holding)


@given(*[st.lists(st.sampled_from(DESTINATION_TEXTS), min_size=1, max_size=6, unique=True)] * 2)
def test_a_destination_is_never_permitted_where_it_meets_nothing_of_the_ceiling(
    wide: list[str], narrow: list[str]
) -> None:
    private = {NETWORK_PRIVATE_ALLOWED.name: True}
    one, other = (
        policy_file(
            f"{name}.toml", Path(name), text_of({NETWORK_ALLOWLIST.name: {"ceiling": texts}, **private}).encode()
        )
        for name, texts in (("wide", wide), ("narrow", narrow))
    )
    rule = rules_by_word()["SBP119"]
    assert isinstance(rule, SetRule)
    (policy_set,) = policy_sets([judged(file, PLAIN) for file in (one, other)])

    found = {
        each.message.partition(" ")[0]
        for each in rule.check(policy_set, PLAIN)
        if each.location and each.location.file == "narrow.toml"
    }

    bound, items = ([*file.bounds[NETWORK_ALLOWLIST.name].value] for file in (one, other))
    dead = {item for item in items if all(meet_of_destinations(item, each) is None for each in bound)}
    assert {parse_destination(text) for text in found} == dead
