"""Finding somebody for whom some scopes hold and others do not, held against trying everybody."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.errors import PolicyError
from policy.requester import Requester, ScopeConditions
from policy.scope_search import bits_of, requester_words, scope_search

NAMES = {"groups": "abc", "roles": "xy", "surface": ("tool", "function")}
EVERYBODY = tuple(
    Requester(groups=groups, role=role, surface=surface)
    for groups, role, surface in product(
        (
            None,
            *(frozenset(group for group in "abc" if group in text) for text in ("", *"abc", "ab", "ac", "bc", "abc")),
        ),
        ("x", "y", "z", None),
        ("tool", "function", None),
    )
)


def scope(match: dict[str, str] | None = None, excepted: dict[str, str] | None = None) -> ScopeConditions:
    """Make a scope of names of one letter."""
    return ScopeConditions(
        match={key: frozenset(names) for key, names in (match or {}).items()},
        excepted={key: frozenset(names) for key, names in (excepted or {}).items()},
    )


CONDITIONS = st.dictionaries(st.sampled_from(sorted(NAMES)), st.none(), max_size=2).flatmap(
    lambda keys: st.fixed_dictionaries(
        {key: st.frozensets(st.sampled_from(list(NAMES[key])), min_size=1, max_size=2) for key in keys}
    )
)
SCOPES = st.lists(st.builds(ScopeConditions, match=CONDITIONS, excepted=CONDITIONS), max_size=6)


@settings(max_examples=300)
@given(scopes=SCOPES, holding=st.integers(0, 63), avoided=st.integers(0, 63), fewest=st.booleans())
def test_somebody_is_found_if_and_only_if_there_is_anybody(
    scopes: list[ScopeConditions],
    holding: int,
    avoided: int,
    fewest: bool,  # noqa: FBT001 -- drawn
) -> None:
    everything = (1 << len(scopes)) - 1
    holding, avoided = holding & everything, avoided & everything

    def fits(requester: Requester) -> bool:
        holds = [scope.hold_for(requester) for scope in scopes]
        return all(holds[each] for each in bits_of(holding)) and not any(holds[each] for each in bits_of(avoided))

    found = scope_search(scopes).somebody(holding, avoided, fewest_groups=fewest)

    assert (found is not None) == any(map(fits, EVERYBODY))
    assert found is None or fits(found)


def test_groups_that_make_no_difference_are_left_out_where_asked() -> None:
    scopes = [scope({"groups": "abc"}), scope({"groups": "a"}, {"groups": "d"}), scope({"groups": "efgh"})]
    found = scope_search(scopes).somebody(0b001, 0b010, fewest_groups=True)
    assert found is not None
    assert found.groups is not None
    assert len(found.groups) == 1


def test_thousands_of_groups_take_no_time() -> None:
    chain = [
        ScopeConditions(match={"groups": frozenset({f"g{link}"})}, excepted={"groups": frozenset({f"g{link + 1}"})})
        for link in range(2_000)
    ]
    first = ScopeConditions(match={"groups": frozenset({"g0"})}, excepted={})

    found = scope_search([*chain, first]).somebody(1 << 2_000, (1 << 2_000) - 1)

    assert found is not None
    assert found.groups == frozenset(f"g{link}" for link in range(2_001))


def test_combinations_past_the_bound_are_refused() -> None:
    scopes = [scope(excepted={key: chr(200 + number)}) for key in ("users", "models") for number in range(65)]
    with pytest.raises(PolicyError, match="more than 4096 combinations"):
        scope_search(scopes).somebody(0, (1 << len(scopes)) - 1)


@pytest.mark.parametrize(
    ("requester", "words"),
    [
        (Requester(), "unknown groups, unknown surface, unknown role"),
        (Requester(groups=frozenset(), surface="tool", role="x"), "no group, surface tool, role x"),
        (Requester(groups=frozenset("a"), surface="function", role="q"), "group a, surface function, another role"),
        (Requester(groups=frozenset("abcdefgh")), "groups a, b, c, d, e, f and 2 more, unknown surface, unknown role"),
    ],
    ids=["undetermined", "in none", "named nowhere", "in many"],
)
def test_requester_in_words_is_what_the_scopes_ask_for(requester: Requester, words: str) -> None:
    scopes = [scope({"groups": "a"}), scope({"roles": "x"}, {"surface": "s"})]
    assert requester_words(requester, scopes) == words


def test_requester_of_whom_no_scope_asks_anything_is_anybody() -> None:
    assert requester_words(Requester(role="x"), []) == "anybody"
