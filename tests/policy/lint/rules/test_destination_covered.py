import tomllib

import pytest

from tests.policy.lint.linting import findings, fixed, of_rule, places, written


def listed(*items: str) -> str:
    return written(f"[limits]\nnetwork_allowlist = [{', '.join(map(repr, items))}]\n")


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("public", "example.com"),
        ("example.com", "example.com:443"),
        ("*.example.com", "a.b.example.com"),
        ("*.example.com", "*.b.example.com:443"),
        ("*.example.com:443", "a.example.com:443"),
        ("10.0.0.0/8", "10.1.0.0/16"),
        ("10.0.0.0/8", "::ffff:10.1.2.3"),
        ("2001:db8::/32", "[2001:db8::1]:443"),
    ],
)
def test_the_narrower_of_two_is_found_in_either_order(wide: str, narrow: str) -> None:
    for order in ((wide, narrow), (narrow, wide)):
        (found,) = of_rule("SBP113", findings(listed(*order)))

        assert found.message == f"{narrow} is covered by {wide} of the same list"
        assert found.location.key == f"limits.network_allowlist[{order.index(narrow)}]"
        assert [place.key for place in found.related] == [f"limits.network_allowlist[{order.index(wide)}]"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("10.1.2.3", "::ffff:10.1.2.3"), ("2001:db8::1", "2001:0db8::0:1"), ("example.com:443", "example.com:0443")],
)
def test_of_two_spellings_of_one_destination_the_later_is_found(first: str, second: str) -> None:
    (found,) = of_rule("SBP113", findings(listed(first, second)))

    assert found.message == f"{second} is the same as {first} of the same list"
    assert found.location.key == "limits.network_allowlist[1]"


@pytest.mark.parametrize(
    "items",
    [
        ("*.example.com", "example.com"),
        ("*.example.com:443", "a.example.com"),
        ("*.example.com", "a.notexample.com"),
        ("10.0.0.0/9", "10.128.0.0/9"),
        ("0.0.0.0/0", "::1"),
        (),
    ],
)
def test_items_that_overlap_at_most_are_not_found(items: tuple[str, ...]) -> None:
    assert not places("SBP113", listed(*items))


def test_items_of_two_lists_do_not_cover_each_other() -> None:
    scope = '[[scope]]\nmatch.roles = ["user"]\nlimits.network_allowlist = ["a.example.com"]\n'

    assert not places("SBP113", written(f'[limits]\nnetwork_allowlist = ["*.example.com"]\n{scope}'))


def test_an_item_in_a_ceiling_of_an_inline_table_is_found_where_it_stands() -> None:
    scope = '[[scope]]\nmatch.roles = ["user"]\nlimits = { network_allowlist = { ceiling = ["public", "a.b"] } }\n'

    assert places("SBP113", written(scope)) == [(11, 55, "scope[0].limits.network_allowlist.ceiling[1]")]


def test_the_fix_removes_covered_items_and_nothing_else() -> None:
    text = written(
        """[limits]
network_allowlist = [
  "a.example.com:443",  # the API
  # all of ours
  "*.example.com",
  "b.example.com", "pypi.org", "c.example.com",
  "pypi.org:443"  # packages
]
"""
    )

    after = fixed(text)

    assert tomllib.loads(after)["limits"]["network_allowlist"] == ["*.example.com", "pypi.org"]
    assert "# all of ours\n" in after
    assert "the API" not in after
    assert not places("SBP113", after)
