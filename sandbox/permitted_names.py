"""Answers DNS questions of one run: names that its rules permit, with those of their addresses that it may reach.

No other name is asked for anywhere, since a question alone carries data out; it is said not to exist. What was answered
is remembered, so that a connection to one of these addresses is known for a connection to that name.
"""

import asyncio
import socket
import time
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from policy.addresses import IPAddress
from policy.egress_rules import EgressRefusedError, EgressRules, parse_host
from sandbox.egress_account import EgressAccount
from sandbox.egress_network import EgressNetwork, UnreachableError
from sandbox.name_messages import (
    ADDRESS_SECONDS,
    NameQuestion,
    NameVerdict,
    RecordKind,
    UnreadableQuestionError,
    name_question,
    name_reply,
)

_MOST_FINDINGS = 1_024
"""Names of which it is remembered what became of them."""
_MOST_ANSWERED = 32
"""Of one name; an answer has no room for more. Whoever answers for a name may have thousands."""
_MOST_NAMES = 64
"""Of one address, of which it is remembered that they have it."""
_MOST_REMEMBERED = 4_096
"""Addresses of which it is remembered whose they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameFinding:
    """What became of one name."""

    verdict: NameVerdict
    """What its asker is told."""
    addresses: tuple[IPAddress, ...] = ()
    """Those that may be reached, of both kinds, in the order to try."""


@dataclass(slots=True)
class _Sought:
    """A name that is being resolved, or was."""

    finding: asyncio.Task[NameFinding]
    since: float


class PermittedNames:
    """The only resolver that one box has."""

    def __init__(
        self, network: EgressNetwork, account: EgressAccount, *, lookups: int = 10_000, within_seconds: float = 10.0
    ) -> None:
        """Permit nothing yet.

        Args:
            network: where permitted names are resolved.
            account: where it is written down what was refused.
            lookups: how many names may be asked for in all.
            within_seconds: how long an asker waits.
        """
        self._network = network
        self._account = account
        self._lookups_left = lookups
        self._within_seconds = within_seconds
        self._rules: EgressRules | None = None
        self._sought: dict[str, _Sought] = {}
        self._resolving: set[asyncio.Task[NameFinding]] = set()
        self._names: dict[IPAddress, dict[str, tuple[IPAddress, ...]]] = {}

    def open(self, rules: EgressRules) -> None:
        """Answer for what these rules permit, from now on."""
        self._rules = rules

    def abandon(self) -> None:
        """Answer for nothing any more."""
        self._rules = None

    async def close(self) -> None:
        """Seek nothing any more."""
        self.abandon()
        resolving = tuple(self._resolving)
        for task in resolving:
            task.cancel()
        await asyncio.gather(*resolving, return_exceptions=True)

    async def reply(self, untrusted_message: bytes) -> bytes:
        """What a client is told; empty where that is nothing."""
        try:
            question = name_question(untrusted_message)
        except UnreadableQuestionError as error:
            return error.reply
        finding = await self._found(question)
        return name_reply(question, finding.verdict, finding.addresses)

    def names_of(self, address: IPAddress) -> tuple[tuple[str, tuple[IPAddress, ...]], ...]:
        """The names that an address was the answer to, the latest first, each with all that it was answered."""
        return tuple(reversed(self._names.get(address, {}).items()))

    async def _found(self, question: NameQuestion) -> NameFinding:
        rules = self._rules
        if rules is None:
            return NameFinding(verdict=NameVerdict.REFUSED)
        try:
            name = _checked_question_name(question, rules)
        except EgressRefusedError as refusal:
            self._refused(question.untrusted_name, refusal)
            return NameFinding(verdict=NameVerdict.NO_SUCH_NAME)
        if question.kind not in set(RecordKind):
            return NameFinding(verdict=NameVerdict.ANSWERED)
        try:
            async with asyncio.timeout(self._within_seconds):
                finding = await asyncio.shield(self._seeking(name, rules))
        except TimeoutError:
            self._account.note(name, permitted=True, reason="its name was not resolved in time")
            return NameFinding(verdict=NameVerdict.FAILED)
        self._remember(name, finding.addresses)
        return finding

    def _seeking(self, name: str, rules: EgressRules) -> asyncio.Task[NameFinding]:
        """The one search for a name: what has just been found holds for a while, and for both kinds of address."""
        now = time.monotonic()
        sought = self._sought.pop(name, None)
        if sought is None or (sought.finding.done() and now - sought.since > ADDRESS_SECONDS):
            sought = _Sought(finding=asyncio.create_task(self._resolved(name, rules)), since=now)
            self._resolving.add(sought.finding)
            sought.finding.add_done_callback(self._resolving.discard)
        self._sought[name] = sought
        _forget_oldest(self._sought, _MOST_FINDINGS)
        return sought.finding

    async def _resolved(self, name: str, rules: EgressRules) -> NameFinding:
        self._lookups_left -= 1
        if self._lookups_left < 0:
            self._account.note(name, permitted=False, reason="the run has asked for as many names as it may")
            return NameFinding(verdict=NameVerdict.REFUSED)
        try:
            found = _of_each_kind(await self._network.addresses(name))
            addresses = tuple(address for address in found if self._may_answer(name, address, rules))
        except UnreachableError as error:
            self._account.note(name, permitted=True, reason=str(error))
            return NameFinding(verdict=_verdict_of(error))
        closed = found and not addresses
        return NameFinding(
            verdict=NameVerdict.NO_SUCH_NAME if closed else NameVerdict.ANSWERED,
            addresses=addresses,
        )

    def _may_answer(self, name: str, address: IPAddress, rules: EgressRules) -> bool:
        try:
            rules.check_address(address, own=self._network.is_own(address))
        except EgressRefusedError as refusal:
            self._refused(name, refusal)
            return False
        except UnreachableError as error:
            self._account.note(name, permitted=True, reason=str(error))
            return False
        return True

    def _refused(self, untrusted_name: str, refusal: EgressRefusedError) -> None:
        self._account.note(untrusted_name, permitted=False, reason=refusal.reason, origin=refusal.origin)

    def _remember(self, name: str, addresses: tuple[IPAddress, ...]) -> None:
        """Whoever asked will most likely connect next: of an address's names the one just asked for is the latest."""
        for address in addresses:
            names = self._names.pop(address, {})
            names.pop(name, None)
            names[name] = addresses
            self._names[address] = names
            _forget_oldest(names, _MOST_NAMES)
            _forget_oldest(self._names, _MOST_REMEMBERED)


def _checked_question_name(question: NameQuestion, rules: EgressRules) -> str:
    """The name that a question is about.

    Raises:
        EgressRefusedError: it is none, or not permitted.
    """
    host = parse_host(question.untrusted_name)
    if not isinstance(host, str):
        raise EgressRefusedError("it is an address, which has no addresses")
    rules.check_name(host)
    return host


def _of_each_kind(found: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
    """As many of both kinds as an answer has room for."""
    left = dict.fromkeys((4, 6), _MOST_ANSWERED)
    kept = []
    for address in found:
        left[address.version] -= 1
        if left[address.version] >= 0:
            kept.append(address)
    return tuple(kept)


def _verdict_of(error: UnreachableError) -> NameVerdict:
    """Whether to ask again may help."""
    cause = error.__cause__
    again = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN
    return NameVerdict.FAILED if again else NameVerdict.NO_SUCH_NAME


def _forget_oldest(remembered: MutableMapping[Any, Any], most: int) -> None:
    while len(remembered) > most:
        del remembered[next(iter(remembered))]
