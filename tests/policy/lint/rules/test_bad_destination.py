import pytest

from tests.policy.lint.linting import findings, fixed, of_rule, places, written


def allowing(*items: str) -> str:
    return written(f"[limits]\nnetwork_allowlist = [{', '.join(items)}]\n")


def test_item_is_found_where_it_stands() -> None:
    assert places("SBP014", allowing('"pypi.org"', '"10.0.0.1/8"')) == [(10, 34, "limits.network_allowlist[1]")]


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("https://pypi.org/simple", "Write 'pypi.org:443'"),
        ("http://Pypi.org", "Write 'pypi.org:80'"),
        ("https://pypi.org:8443/", "Write 'pypi.org:8443'"),
        ("ftp://a@pypi.org", "Write 'pypi.org'"),
        ("https:///", "Write a host"),
    ],
)
def test_url_is_told_its_host_and_port(url: str, remedy: str) -> None:
    (found,) = of_rule("SBP014", findings(allowing(f'"{url}"')))

    assert found.remedy == remedy
    assert "is a URL" in found.message


def test_empty_item_is_told_once() -> None:
    text = allowing('""')

    assert not places("SBP014", text)
    assert [key for _, _, key in places("SBP012", text)] == ["limits.network_allowlist[0]"]


@pytest.mark.parametrize(
    ("bad", "good"),
    [('"Pypi.org"', '"pypi.org"'), ("'*.PYPI.org:443'", "'*.pypi.org:443'"), ('"X.Example"', '"x.example"')],
)
def test_host_name_is_written_in_lower_case(bad: str, good: str) -> None:
    assert fixed(allowing('"a.example"', bad)) == allowing('"a.example"', good)


@pytest.mark.parametrize(
    "item",
    [
        '"10.0.0.1/8"',
        '"PUBLIC"',
        '"Public:443"',
        '"Pypi.org:0"',
        '"\\u0050ypi.org"',
        '"B\u00dcCHER.example"',
        '"https://Pypi.org"',
    ],
)
def test_nothing_else_is_fixed(item: str) -> None:
    text = allowing(item)

    assert fixed(text) == text
    assert places("SBP014", text)


@pytest.mark.parametrize("item", ['"public"', '"xn--bcher-kva.example:443"', '"2001:DB8::/32"', '"10.0.0.0/8"'])
def test_every_kind_of_destination_is_one(item: str) -> None:
    assert not places("SBP014", allowing(item))
