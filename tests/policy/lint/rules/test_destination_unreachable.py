import pytest

from tests.policy.lint.linting import findings, of_rule, places, written


def listed(*items: str, more: str = "") -> str:
    return written(f"[limits]\nnetwork_allowlist = [{', '.join(map(repr, items))}]\n{more}")


@pytest.mark.parametrize(
    ("item", "what"),
    [
        ("10.0.0.0/8", "private"),
        ("10.1.2.3:443", "private"),
        ("172.16.0.0/12", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.0/24", "private"),
        ("127.0.0.1:8080", "loopback"),
        ("100.64.0.0/10", "shared address space (carrier-grade NAT)"),
        ("169.254.169.254", "link-local, where clouds keep their metadata"),
        ("192.0.0.192", "reserved for protocols"),
        ("198.51.100.7", "reserved for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255", "reserved"),
        ("0.0.0.0", "an address of no host"),
        ("::ffff:10.1.2.3", "private"),
        ("[::ffff:a9fe:a9fe]:80", "link-local, where clouds keep their metadata"),
        ("64:ff9b::10.0.0.1", "private"),
        ("64:ff9b::a00:0/104", "private"),
        ("2002:7f00:1::/48", "loopback"),
        ("::1", "loopback"),
        ("fd00:ec2::254", "private"),
        ("[fe80::1]:443", "link-local"),
        ("ff02::/16", "multicast"),
        ("168.63.129.16:80", "a cloud's own service"),
        ("2001::/32", "a tunnel that hides where it ends"),
        ("fe00::/7", "assigned to nobody"),
        ("4000::/2", "assigned to nobody"),
        ("localhost", "loopback"),
        ("*.localhost", "loopback"),
        ("db.localhost:5432", "loopback"),
        ("metadata.google.internal", "a cloud's metadata service"),
    ],
)
def test_what_is_not_public_is_found_where_it_stands(item: str, what: str) -> None:
    (found,) = of_rule("SBP114", findings(listed("pypi.org", item)))

    assert found.message.startswith(f"{item} is {what}, which no code reaches: ")
    assert (found.location.line, found.location.column) == (10, 34)
    assert found.location.key == "limits.network_allowlist[1]"


@pytest.mark.parametrize(
    "item",
    [
        "public",
        "0.0.0.0/0",
        "8.0.0.0/6",
        "172.16.0.0/11",
        "11.0.0.1",
        "100.128.0.0",
        "192.0.0.9",
        "192.0.0.0/24",
        "192.0.1.0",
        "::/0",
        "64:ff9b::8.8.8.8",
        "64:ff9b::/96",
        "2002::/16",
        "2606:4700::1111",
        "intranet",
        "*.internal",
        "localhost.example.com",
        "notlocalhost",
        "*.google.internal",
    ],
)
def test_what_may_be_public_in_part_is_not_found(item: str) -> None:
    assert not places("SBP114", listed(item))


@pytest.mark.parametrize("more", ["network_private_allowed = false\n", "network_private_allowed.ceiling = false\n"])
def test_what_closes_private_destinations_is_named_beside_it(more: str) -> None:
    (found,) = of_rule("SBP114", findings(listed("10.1.2.3", more=more)))

    verb = "ceiling" if "ceiling" in more else "lock"
    assert found.message.endswith(f"the {verb} of network_private_allowed in line 11 is false")
    assert [place.line for place in found.related] == [11]


@pytest.mark.parametrize(
    "more",
    [
        "network_private_allowed = true\n",
        "network_private_allowed.ceiling = true\n",
        "network_private_allowed.default = true\n",
        "network_private_allowed = { ceiling = true, default = false }\n",
    ],
)
def test_where_the_file_lets_private_destinations_in_nothing_is_found(more: str) -> None:
    assert not places("SBP114", listed("10.1.2.3", more=more))


@pytest.mark.parametrize(
    ("variables", "more", "is_found"),
    [
        ("SANDBOX_NETWORK_PRIVATE_ALLOWED=true\n", "", False),
        ("SANDBOX_NETWORK_PRIVATE_ALLOWED__DEFAULT=true\n", "", False),
        ("SANDBOX_NETWORK_PRIVATE_ALLOWED=true\n", "network_private_allowed = false\n", False),
        ("SANDBOX_NETWORK_PRIVATE_ALLOWED__CEILING=true\n", "network_private_allowed = false\n", True),
        ("SANDBOX_NETWORK_PRIVATE_ALLOWED=false\n", "", True),
        ("SANDBOX_MAX_CPUS=1\n", "", True),
    ],
)
def test_variables_that_let_private_destinations_in_are_seen(variables: str, more: str, *, is_found: bool) -> None:
    assert bool(places("SBP114", listed("10.1.2.3", more=more), environment=variables)) is is_found


def test_items_of_scopes_and_ceilings_are_found_too() -> None:
    scope = '[[scope]]\nmatch.roles = ["user"]\nlimits.network_allowlist.ceiling = ["10.0.0.1", "pypi.org"]\n'

    assert places("SBP114", written(scope)) == [(11, 37, "scope[0].limits.network_allowlist.ceiling[0]")]
