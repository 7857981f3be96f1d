"""What one run reached and what it was refused, told in few words however often it tried."""

from dataclasses import asdict, dataclass, field
from typing import Any

_MOST_REACHED, _MOST_OTHERS = 256, 64
"""Decisions of each kind: no flood of refusals hides where code has been, and none fills the log."""
_MOST_TOLD = 10
_LONGEST_TEXT = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressDecision:
    """One destination, and what became of the attempts to reach it."""

    destination: str
    """`host:port`, as the code spelt it, with control characters replaced."""
    permitted: bool
    """Whether it was permitted."""
    reason: str
    """Why not, or why it was not reached although it was permitted; empty where it was reached. No full stop."""
    origin: str
    """Who decided that it is not permitted; empty where it is, or where that follows from the request alone."""
    times: int
    """How many attempts ended so."""

    @property
    def words(self) -> str:
        """The decision, for people."""
        if not self.reason:
            return f"{self.destination} reached"
        by = f", {self.origin}" if self.origin else ""
        return f"{self.destination} {'not reached' if self.permitted else 'refused'}: {self.reason}{by}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSummary:
    """Everything that is known of one run's connections."""

    decisions: tuple[EgressDecision, ...]
    """By destination and ending, in the order in which they were first tried."""
    untold: int
    """Attempts beyond the bound, of which only the number is kept."""
    sent_bytes: int
    """What the run sent."""
    received_bytes: int
    """What it received."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What people should know, in sentences: what was reached, and what was not and why."""
        reached = [one.destination for one in self.decisions if not one.reason]
        failed = [one.words for one in self.decisions if one.reason]
        told = [f"{words}." for words in failed[:_MOST_TOLD]]
        more = len(failed) - len(told) + self.untold
        return (
            *((f"Reached over the network: {_first_listed(reached)}.",) if reached else ()),
            *told,
            *((f"{more} more attempts to connect are in the run's record{self._but_untold}.",) if more else ()),
        )

    @property
    def _but_untold(self) -> str:
        return f", {self.untold} of them as a mere number" if self.untold else ""

    def record(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "decisions": [asdict(decision) for decision in self.decisions],
            "untold": self.untold,
            "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes,
        }


EMPTY_EGRESS = EgressSummary(decisions=(), untold=0, sent_bytes=0, received_bytes=0)
"""Of a run without network."""


@dataclass(slots=True)
class EgressAccount:
    """Grows while a run lasts, up to a bound: code cannot fill the record by trying ever new names."""

    times: dict[tuple[str, bool, str, str], int] = field(default_factory=dict)
    """How many attempts ended in each way."""
    untold: int = 0
    """Attempts beyond the bound, of which only the number is kept."""
    sent_bytes: int = 0
    """What the run sent."""
    received_bytes: int = 0
    """What it received."""

    def note(self, destination: str, *, permitted: bool, reason: str = "", origin: str = "") -> None:
        """Count one attempt."""
        key = (_printable(destination), permitted, _printable(reason), origin)
        if key in self.times:
            self.times[key] += 1
        elif sum(bool(known[2]) is bool(reason) for known in self.times) < (_MOST_OTHERS if reason else _MOST_REACHED):
            self.times[key] = 1
        else:
            self.untold += 1

    @property
    def summary(self) -> EgressSummary:
        """What is known by now."""
        return EgressSummary(
            decisions=tuple(
                EgressDecision(destination=destination, permitted=permitted, reason=reason, origin=origin, times=times)
                for (destination, permitted, reason, origin), times in self.times.items()
            ),
            untold=self.untold,
            sent_bytes=self.sent_bytes,
            received_bytes=self.received_bytes,
        )


def _first_listed(destinations: list[str]) -> str:
    more = len(destinations) - _MOST_TOLD
    return ", ".join(destinations[:_MOST_TOLD]) + (f" and {more} more" if more > 0 else "")


def _printable(untrusted_text: str) -> str:
    """What the code wrote, or what quotes it, as printable ASCII of bounded length."""
    return untrusted_text[:_LONGEST_TEXT].encode("unicode_escape").decode()[:_LONGEST_TEXT]
