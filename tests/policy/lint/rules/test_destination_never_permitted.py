import pytest

from policy.lint.environments import environment_of_process
from policy.lint.subjects import Setup
from tests.policy.lint.linting import NOW, findings, linted_files, of_rule, places, written

OTHER = {"id": '"acme-other"'}
FIRM = 'network_allowlist = { ceiling = ["b.example", "d.example"], env_may_loosen = false }'


def limits(*lines: str, scope: str = "", **head: str) -> str:
    """A policy file that says this for everybody, and that in a scope."""
    more = f'[[scope]]\nmatch.roles = ["user"]\nlimits.{scope}\n' if scope else ""
    return written("[limits]\n" + "".join(f"{line}\n" for line in lines) + more, **head)


def messages(policy: str, *, other: str = "", environment: str = "") -> list[str]:
    return [found.message for found in of_rule("SBP119", findings(policy, other=other, environment=environment))]


def test_an_item_of_a_scope_is_found_where_it_stands_and_the_ceiling_named_beside_it() -> None:
    text = limits(
        'network_allowlist.ceiling = ["*.example:443"]',
        scope='network_allowlist.ceiling = ["other.example:80", "web.example:443"]',
    )

    (found,) = of_rule("SBP119", findings(text))

    assert found.message == ("other.example:80 can never be reached: the ceiling of acme.toml:10 permits none of it")
    assert found.remedy == "Remove it, or widen the other list"
    assert (found.location.line, found.location.column, found.location.end_column) == (13, 37, 55)
    assert found.location.key == "scope[0].limits.network_allowlist.ceiling[0]"
    assert [(place.file, place.line, place.key) for place in found.related] == [
        ("acme.toml", 10, "limits.network_allowlist.ceiling")
    ]


@pytest.mark.parametrize("verb", ["", ".ceiling", ".default"])
@pytest.mark.parametrize("bound", ["", ".ceiling"])
def test_lists_of_scopes_are_held_against_the_lock_or_ceiling_for_everybody(bound: str, verb: str) -> None:
    text = limits(f'network_allowlist{bound} = ["a.example:443"]', scope=f'network_allowlist{verb} = ["b.example:443"]')

    word = "ceiling" if bound else "lock"
    assert messages(text) == [f"b.example:443 can never be reached: the {word} of acme.toml:10 permits none of it"]


@pytest.mark.parametrize("verb", ["", ".ceiling", ".default"])
def test_lists_of_one_file_are_held_against_the_ceiling_of_another(verb: str) -> None:
    text = limits(f'network_allowlist{verb} = ["pypi.org", "api.example.com:443"]')
    other = limits("max_cpus = 1", 'network_allowlist.ceiling = ["pypi.org"]', **OTHER)

    (found,) = of_rule("SBP119", findings(text, other=other))

    assert found.message == "api.example.com:443 can never be reached: the ceiling of other.toml:11 permits none of it"
    assert (found.location.file, found.location.key) == ("acme.toml", f"limits.network_allowlist{verb}[1]")
    assert [(place.file, place.line) for place in found.related] == [("other.toml", 11)]


def test_two_ceilings_with_nothing_in_common_are_found_in_both_files() -> None:
    text = limits('network_allowlist.ceiling = ["a.example"]')
    other = limits('network_allowlist.ceiling = ["b.example"]', **OTHER)

    assert messages(text, other=other) == [
        "a.example can never be reached: the ceiling of other.toml:10 permits none of it",
        "b.example can never be reached: the ceiling of acme.toml:10 permits none of it",
    ]


@pytest.mark.parametrize(
    ("item", "bound"),
    [
        ("a.example:80", "a.example:443"),
        ("example.com", "*.example.com"),
        ("*.a.example", "*.b.example"),
        ("8.8.8.8", "9.0.0.0/8"),
        ("8.8.8.8", "dns.google"),
        ("::/0", "0.0.0.0/0"),
        ("public:80", "pypi.org:443"),
    ],
)
def test_an_item_that_has_nothing_in_common_with_the_bound_is_found(item: str, bound: str) -> None:
    text = limits(f"network_allowlist.ceiling = ['{bound}']", scope=f"network_allowlist.ceiling = ['{item}']")

    assert messages(text) == [f"{item} can never be reached: the ceiling of acme.toml:10 permits none of it"]


@pytest.mark.parametrize(
    ("item", "bound"),
    [
        ("a.example", "a.example:443"),
        ("a.example:443", "a.example"),
        ("*.example", "a.b.example:443"),
        ("a.example", "*.example"),
        ("public", "a.example:443"),
        ("a.example:443", "public"),
        ("8.0.0.0/7", "8.8.8.8"),
        ("::ffff:8.8.8.8", "8.8.8.8"),
    ],
)
def test_an_item_that_can_be_reached_in_part_is_not_found(item: str, bound: str) -> None:
    text = limits(f"network_allowlist.ceiling = ['{bound}']", scope=f"network_allowlist.ceiling = ['{item}']")

    assert not messages(text)


def test_of_a_long_list_only_what_is_never_permitted_is_found() -> None:
    items = [f"h{number}.{'example' if number % 3 else 'test'}" for number in range(30)]
    wide = [*items, "*.wide.example", "*.idle.example"]
    text = limits(
        'network_allowlist.ceiling = ["*.test:443", "a.wide.example", "b.wide.example"]',
        scope=f"network_allowlist.ceiling = {wide}",
    )

    found = {message.partition(" ")[0] for message in messages(text)}

    assert found == {item for item in items if item.endswith("example")} | {"*.idle.example"}


@pytest.mark.parametrize(
    "lines",
    [
        ('network_allowlist.default = ["a.example"]',),
        ("network_allowlist.ceiling = []",),
        ("network_allowlist = []",),
    ],
    ids=["a default", "a ceiling that permits nothing", "a lock that permits nothing"],
)
def test_defaults_bound_nothing_and_empty_lists_are_matters_of_other_rules(lines: tuple[str, ...]) -> None:
    assert not messages(limits(*lines, scope='network_allowlist.ceiling = ["b.example"]'))


def test_a_scope_bounds_nobody_else() -> None:
    scope = '[[scope]]\nmatch.roles = ["{}"]\nlimits.network_allowlist.ceiling = ["{}"]\n'

    assert not messages(written(scope.format("user", "a.example") + scope.format("admin", "b.example")))


def test_a_bound_for_other_instances_permits_what_it_does_not_name() -> None:
    text = limits('network_allowlist.ceiling = ["a.example"]', audience='["prod-eu", "prod-us"]')
    other = limits('network_allowlist.ceiling = ["b.example"]', audience='["prod-eu"]', **OTHER)

    assert messages(text, other=other) == [
        "b.example can never be reached: the ceiling of acme.toml:10 permits none of it"
    ]


def test_different_locks_of_two_files_are_left_to_the_rule_that_finds_them() -> None:
    text = limits('network_allowlist = ["a.example"]', scope='network_allowlist.ceiling = ["c.example"]')
    other = limits('network_allowlist = ["b.example"]', **OTHER)

    assert of_rule("SBP103", findings(text, other=other))
    assert not messages(text, other=other)


def test_what_is_covered_or_private_or_of_a_network_that_is_off_is_left_to_other_rules() -> None:
    ceiling = 'network_allowlist.ceiling = ["*.test"]'
    scope = 'network_allowlist.ceiling = ["*.example", "a.example", "10.1.2.3", "8.8.8.8", "::ffff:8.8.8.8"]'

    items = [found.partition(" ")[0] for found in messages(limits(ceiling, scope=scope))]
    opened = [
        found.partition(" ")[0] for found in messages(limits(ceiling, "network_private_allowed = true", scope=scope))
    ]

    assert items == ["*.example", "8.8.8.8"]
    assert opened == ["*.example", "10.1.2.3", "8.8.8.8"]
    assert not messages(limits(ceiling, "networking_allowed = false", scope=scope))


@pytest.mark.parametrize(
    ("line", "variables", "is_found"),
    [
        ('network_allowlist = ["a.example", "b.example"]', "SANDBOX_NETWORK_ALLOWLIST__CEILING=a.example\n", True),
        ('network_allowlist.ceiling = ["b.example"]', "SANDBOX_NETWORK_ALLOWLIST__CEILING=a.example\n", True),
        ('network_allowlist.default = ["b.example"]', "SANDBOX_NETWORK_ALLOWLIST__CEILING=a.example\n", True),
        (FIRM, "SANDBOX_NETWORK_ALLOWLIST=d.example,c.example\n", True),
        ('network_allowlist = ["b.example"]', "SANDBOX_NETWORK_ALLOWLIST=a.example\n", False),
        ('network_allowlist.ceiling = ["b.example"]', "SANDBOX_NETWORK_ALLOWLIST=a.example\n", False),
        ('network_allowlist.ceiling = ["b.example"]', "SANDBOX_NETWORK_ALLOWLIST__DEFAULT=a.example\n", False),
        ('network_allowlist.ceiling = ["b.example"]', "SANDBOX_NETWORK_ALLOWLIST__CEILING=none\n", False),
        ('network_allowlist.ceiling = ["b.example"]', "SANDBOX_NETWORK_ALLOWLIST__CEILING=*.example\n", False),
        ('network_allowlist.ceiling = ["b.example"]', "SANDBOX_MAX_CPUS=1\n", False),
    ],
)
def test_lists_are_held_against_variables_that_bound_them(line: str, variables: str, *, is_found: bool) -> None:
    expected = f"b.example can never be reached: {variables.partition('=')[0]} (prod.env:2) permits none of it"

    found = messages(limits(line), environment=f"SANDBOX_DEBUG=false\n{variables}")

    assert found == ([expected] if is_found else [])


def test_beside_a_lock_of_the_environment_only_what_it_may_not_loosen_bounds() -> None:
    lock = "SANDBOX_NETWORK_ALLOWLIST=b.example,c.example,d.example\n"
    loose = limits('network_allowlist.ceiling = ["c.example"]', **OTHER)
    firm = limits('network_allowlist = { ceiling = ["d.example"], env_may_loosen = false }', **OTHER)

    assert not messages(limits(FIRM), other=loose, environment=lock)
    assert messages(limits(FIRM), other=firm, environment=lock) == [
        "b.example can never be reached: the ceiling of other.toml:10 permits none of it"
    ]


def test_a_variable_of_the_process_has_no_line() -> None:
    environment = environment_of_process({"SANDBOX_NETWORK_ALLOWLIST__CEILING": "a.example"})
    text = limits('network_allowlist.ceiling = ["b.example"]')

    (found,) = of_rule("SBP119", findings(text, setup=Setup(now=NOW, environment=environment)))

    assert "SANDBOX_NETWORK_ALLOWLIST__CEILING (environment) permits" in found.message


def test_an_item_of_an_inline_table_is_found_where_it_stands() -> None:
    scope = 'network_allowlist = { ceiling = ["a.example", "b.example"] }'

    assert places("SBP119", limits('network_allowlist = ["a.example"]', scope=scope)) == [
        (13, 54, "scope[0].limits.network_allowlist.ceiling[1]")
    ]


def test_of_two_long_lists_every_item_is_told_apart() -> None:
    wide = [f"*.h{number}.example" for number in range(250)]
    some = [f"a.h{number}.example" for number in range(250) if number != 70]
    text = limits(f"network_allowlist.ceiling = {wide}")
    other = limits(f"network_allowlist.ceiling = {some}", **OTHER)

    assert messages(text, other=other) == [
        "*.h70.example can never be reached: the ceiling of other.toml:10 permits none of it"
    ]


def test_among_many_files_each_is_held_against_a_few_of_the_others() -> None:
    files = {
        f"{number}.toml": limits(f'network_allowlist.ceiling = ["h{number}.example"]', id=f'"p-{number}"')
        for number in range(100)
    }

    found = of_rule("SBP119", linted_files(files, Setup(now=NOW)))

    assert len({each.location.file for each in found}) == len(files)
