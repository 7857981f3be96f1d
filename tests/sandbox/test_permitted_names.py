"""Which names a box gets an answer for, and which of them anybody else hears of."""

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from sandbox.egress_account import EgressAccount
from sandbox.permitted_names import PermittedNames
from tests.sandbox.dns_client import AAAA, TXT, A, addresses, question, verdict
from tests.sandbox.egress_client import rules_of
from tests.sandbox.egress_world import OTHER_PUBLIC, PUBLIC, PUBLIC_IPV6, World

ANSWERED, FAILED, NO_SUCH_NAME, REFUSED = 0, 2, 3, 5


class Resolver:
    """A resolver, and the world that it asks."""

    def __init__(self, *allowed: str, private: bool = False, lookups: int = 100, opened: bool = True) -> None:
        self.world = World()
        self.account = EgressAccount()
        self.names = PermittedNames(self.world, self.account, lookups=lookups, within_seconds=0.2)
        if opened:
            self.names.open(rules_of(*allowed, private=private))

    async def asked(self, name: str, kind: int = A) -> tuple[int, list[str]]:
        reply = await self.names.reply(question(name, kind))
        return verdict(reply), addresses(reply)

    @property
    def words(self) -> list[str]:
        return [decision.words for decision in self.account.summary.decisions]


async def test_permitted_name_is_resolved_once_for_both_kinds_of_address() -> None:
    resolver = Resolver("web.example")
    resolver.world.names["web.example"] = [(PUBLIC_IPV6, PUBLIC)]

    answers = await asyncio.gather(resolver.asked("web.example"), resolver.asked("WEB.example.", AAAA))

    assert tuple(answers) == ((ANSWERED, [PUBLIC]), (ANSWERED, [PUBLIC_IPV6]))
    assert resolver.world.asked == ["web.example"]


@pytest.mark.parametrize(
    "name",
    [
        "stolen-data.evil.example",
        "web.example.evil.example",
        "2130706433",
        "0x7f.1",
        "169.254.169.254",
        "a b.example",
        "-.example",
        "w\xe9b.example",
        "34.216.184.93.in-addr.arpa",
        "",
    ],
)
async def test_tunnel_over_names_reaches_no_resolver(name: str) -> None:
    resolver = Resolver("web.example", "*.apps.example")

    assert await resolver.asked(name) == (NO_SUCH_NAME, [])
    assert resolver.world.asked == []
    assert len(resolver.words) == 1


async def test_refused_name_is_told_with_who_decided() -> None:
    resolver = Resolver("web.example")

    await resolver.asked("evil.example")

    assert resolver.words == ["evil.example refused: not in the allow-list, test"]


async def test_name_permitted_at_one_port_is_resolved() -> None:
    resolver = Resolver("web.example:443")
    resolver.world.names["web.example"] = [(PUBLIC,)]

    assert await resolver.asked("web.example") == (ANSWERED, [PUBLIC])


async def test_rebinding_answer_holds_public_addresses_alone() -> None:
    resolver = Resolver("web.example")
    resolver.world.names["web.example"] = [("127.0.0.1", PUBLIC, "169.254.169.254", "::ffff:10.0.0.1")]

    assert await resolver.asked("web.example") == (ANSWERED, [PUBLIC])


async def test_name_with_private_addresses_alone_does_not_exist() -> None:
    resolver = Resolver("web.example")
    resolver.world.names["web.example"] = [("10.0.0.1",)]

    assert await resolver.asked("web.example") == (NO_SUCH_NAME, [])
    assert resolver.words == ["web.example refused: 10.0.0.1 is private, and private destinations are closed, test"]


async def test_private_address_is_answered_where_those_are_allowed() -> None:
    resolver = Resolver("lan.example", private=True)
    resolver.world.names["lan.example"] = [("10.0.0.1",)]

    assert await resolver.asked("lan.example") == (ANSWERED, ["10.0.0.1"])


async def test_nothing_is_asked_before_the_box_has_code() -> None:
    resolver = Resolver(opened=False)

    assert await resolver.asked("web.example") == (REFUSED, [])
    assert resolver.world.asked == []


async def test_other_records_of_a_permitted_name_are_none_and_never_asked_for() -> None:
    resolver = Resolver("web.example")

    assert await resolver.asked("web.example", TXT) == (ANSWERED, [])
    assert resolver.world.asked == []


async def test_missing_name_is_told_as_missing() -> None:
    resolver = Resolver("web.example")

    assert await resolver.asked("web.example") == (NO_SUCH_NAME, [])
    assert resolver.words == ["web.example not reached: its name cannot be resolved: Name or service not known"]


async def test_address_is_known_by_the_name_asked_for_last() -> None:
    resolver = Resolver("public")
    resolver.world.names |= {"one.example": [(PUBLIC, PUBLIC_IPV6)], "two.example": [(OTHER_PUBLIC, PUBLIC)]}

    for name in ("one.example", "two.example", "one.example"):
        await resolver.asked(name)

    known = resolver.names.names_of(ip_address(PUBLIC))
    assert [name for name, _ in known] == ["one.example", "two.example"]
    assert known[0][1] == (IPv4Address(PUBLIC), IPv6Address(PUBLIC_IPV6))
    assert resolver.names.names_of(IPv4Address("1.1.1.1")) == ()
    assert resolver.world.asked == ["one.example", "two.example"]


async def test_names_beyond_the_bound_are_asked_of_nobody() -> None:
    resolver = Resolver("public", lookups=3)

    verdicts = [(await resolver.asked(f"n{number}.example"))[0] for number in range(5)]

    assert verdicts == [NO_SUCH_NAME] * 3 + [REFUSED] * 2
    assert len(resolver.world.asked) == 3


async def test_slow_resolver_is_given_up_in_time_and_left_at_the_end() -> None:
    class Slow(World):
        async def addresses(self, name: str) -> tuple[IPv4Address | IPv6Address, ...]:
            await asyncio.sleep(60)
            return await super().addresses(name)

    account = EgressAccount()
    names = PermittedNames(Slow(), account, within_seconds=0.05)
    names.open(rules_of())
    before = asyncio.all_tasks()

    assert verdict(await names.reply(question("web.example"))) == FAILED
    await names.close()

    assert asyncio.all_tasks() == before
    assert [one.words for one in account.summary.decisions] == [
        "web.example not reached: its name was not resolved in time"
    ]
