"""What is told of a run's connections: in the issue's words, within a bound, and with nothing that a terminal obeys."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.egress_account import EMPTY_EGRESS, EgressAccount, EgressSummary

ORIGIN = "policy acme-prod, line 12"
PRINTABLE = frozenset(string.ascii_letters + string.digits + string.punctuation + " ")


def refused(*destinations: str) -> EgressSummary:
    account = EgressAccount()
    for destination in destinations:
        account.note(destination, permitted=False, reason="not in the allow-list", origin=ORIGIN)
    return account.summary


def test_refusal_is_told_in_the_words_of_the_issue() -> None:
    assert refused("api.example.com:443").notices == (
        "api.example.com:443 refused: not in the allow-list, policy acme-prod, line 12.",
    )


def test_refusal_that_follows_from_the_request_alone_names_nobody() -> None:
    account = EgressAccount()
    account.note("0xa9fea9fe:80", permitted=False, reason="it is an address in an unusual spelling")

    assert account.summary.notices == ("0xa9fea9fe:80 refused: it is an address in an unusual spelling.",)


def test_what_is_permitted_but_fails_is_not_called_refused() -> None:
    account = EgressAccount()
    account.note("example.com:443", permitted=True, reason="it did not answer in time")

    assert account.summary.notices == ("example.com:443 not reached: it did not answer in time.",)


def test_what_was_reached_is_told_in_one_sentence_before_what_was_not() -> None:
    account = EgressAccount()
    account.note("evil.example:443", permitted=False, reason="not in the allow-list", origin=ORIGIN)
    account.note("a.example:443", permitted=True)
    account.note("b.example:80", permitted=True)
    account.note("a.example:443", permitted=True)

    assert account.summary.notices == (
        "Reached over the network: a.example:443, b.example:80.",
        "evil.example:443 refused: not in the allow-list, policy acme-prod, line 12.",
    )
    assert [decision.words for decision in account.summary.decisions[1:]] == [
        "a.example:443 reached",
        "b.example:80 reached",
    ]


def test_attempts_that_end_alike_are_one_decision() -> None:
    (decision,) = refused(*["api.example.com:443"] * 1000).decisions

    assert decision.times == 1000


def test_attempts_that_end_differently_are_told_apart() -> None:
    account = EgressAccount()
    account.note("a.example:443", permitted=True)
    account.note("a.example:443", permitted=True, reason="it did not answer in time")
    account.note("a.example:443", permitted=False, reason="too many", origin=ORIGIN)

    assert len(account.summary.decisions) == 3
    assert len(account.summary.notices) == 3


def test_run_without_connections_is_told_nothing() -> None:
    assert EgressAccount().summary == EMPTY_EGRESS
    assert EMPTY_EGRESS.notices == ()


def test_flooded_record_stays_within_its_bound_and_counts_the_rest() -> None:
    summary = refused(*(f"{number}.example:443" for number in range(10_000)))

    assert len(summary.decisions) == 64
    assert summary.untold == 10_000 - 64
    assert summary.decisions[0].destination == "0.example:443"
    assert len(summary.notices) == 11
    assert summary.notices[-1].startswith(f"{10_000 - 10} more attempts")


def test_flooded_record_still_counts_what_it_knows() -> None:
    account = EgressAccount()
    for number in range(300):
        account.note(f"{number}.example:443", permitted=True)
    account.note("5.example:443", permitted=True)

    assert account.summary.decisions[5].times == 2
    assert account.summary.untold == 44


def test_reached_destinations_beyond_ten_are_counted() -> None:
    account = EgressAccount()
    for number in range(12):
        account.note(f"{number}.example:443", permitted=True)

    (told,) = account.summary.notices
    assert told.endswith("9.example:443 and 2 more.")
    assert "10.example" not in told


HOSTILE = {
    "escape sequence": "\x1b]0;title\x07\x1b[2J:80",
    "line feed": "a\nFAKE NOTICE: everything is fine:80",
    "carriage return": "a\rb:80",
    "NUL": "a\x00b:80",
    "delete": "a\x7fb:80",
    "C1 control": "a\x9bb:80",
    "right-to-left override": "a\u202eb:80",
    "zero-width space": "a\u200bb:80",
    "line separator": "a\u2028b:80",
    "lone surrogate": "a\ud800b:80",
    "beyond the basic plane": "\U000e0041:80",
    "backslash": "a\\x1b:80",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_terminal_injection_destination_and_reason_are_printable(text: str) -> None:
    account = EgressAccount()
    account.note(text, permitted=False, reason=f"a request that cannot be read: {text}")

    assert all(set(notice) <= PRINTABLE for notice in account.summary.notices)


def test_cleaned_destinations_stay_apart() -> None:
    assert len(refused("a\nb:80", "a\\nb:80", "ab:80").decisions) == 3


@given(st.lists(st.tuples(st.text(max_size=3000), st.booleans(), st.text(max_size=3000)), max_size=200))
def test_unbounded_text_never_reaches_people_or_the_record(attempts: list[tuple[str, bool, str]]) -> None:
    account = EgressAccount()
    for destination, permitted, reason in attempts:
        account.note(destination, permitted=permitted, reason=reason, origin=ORIGIN)

    summary = account.summary
    assert all(set(notice) <= PRINTABLE for notice in summary.notices)
    assert all(len(notice) <= 10 * 302 + 100 for notice in summary.notices)
    assert len(json.dumps(summary.record())) < 64 * 1600
    assert sum(decision.times for decision in summary.decisions) + summary.untold == len(attempts)


def test_megabytes_of_text_are_cut() -> None:
    account = EgressAccount()
    account.note("\n" * 5_000_000, permitted=False, reason="\u202e" * 5_000_000)

    (decision,) = account.summary.decisions
    assert len(decision.destination) == len(decision.reason) == 300


def test_record_is_json_that_holds_every_decision_and_all_bytes() -> None:
    account = EgressAccount(sent_bytes=7, received_bytes=9)
    account.note("a.example:443", permitted=True)
    account.note("b.example:443", permitted=False, reason="not in the allow-list", origin=ORIGIN)

    assert json.loads(json.dumps(account.summary.record())) == {
        "decisions": [
            {"destination": "a.example:443", "permitted": True, "reason": "", "origin": "", "times": 1},
            {
                "destination": "b.example:443",
                "permitted": False,
                "reason": "not in the allow-list",
                "origin": ORIGIN,
                "times": 1,
            },
        ],
        "untold": 0,
        "sent_bytes": 7,
        "received_bytes": 9,
    }


def test_summary_does_not_change_while_the_run_goes_on() -> None:
    account = EgressAccount()
    account.note("a.example:443", permitted=True)
    before = account.summary
    account.note("b.example:443", permitted=True)
    account.sent_bytes += 1

    assert len(before.decisions) == 1
    assert before.sent_bytes == 0
