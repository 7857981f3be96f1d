"""What is remembered, as JSON: it comes back as it was, and nothing else is read as a memory."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.remembered import FIRST_CONTACT, FirstRefusal, Remembered, RememberedPolicy, parse_state, state_text
from policy.settings import MAX_SERIAL

MOMENT = datetime(2026, 11, 1, tzinfo=UTC)
SAMPLE = Remembered(
    policies={
        "acme-prod": RememberedPolicy(serial=7, payload_sha256="a" * 64),
        "old": RememberedPolicy(serial=3, payload_sha256="b" * 64, retired_by="acme-prod"),
    },
    newest_issued_at=MOMENT,
    first_refusal=FirstRefusal(at=MOMENT + timedelta(days=1, microseconds=5), code="expired"),
    last_good={"/etc/policies/b.toml": b"schema = 1\n\xff\0", "/etc/policies/a.toml": b""},
)

moments = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001 -- hypothesis adds the offset itself
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001 -- likewise
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
ids = st.from_regex(r"[a-z0-9-]{1,64}", fullmatch=True)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
names = st.text(st.characters(), max_size=20)  # half surrogate pairs too: names of files that are no UTF-8
memories = st.builds(
    Remembered,
    policies=st.dictionaries(
        ids,
        st.builds(
            RememberedPolicy,
            serial=st.integers(1, MAX_SERIAL),
            payload_sha256=digests,
            retired_by=st.none() | ids,
        ),
        max_size=4,
    ),
    newest_issued_at=st.none() | moments,
    first_refusal=st.none() | st.builds(FirstRefusal, at=moments, code=ids),
    last_good=st.dictionaries(names, st.binary(max_size=50), max_size=3),
)


@given(remembered=memories)
def test_what_is_written_is_read_back_as_it_was(remembered: Remembered) -> None:
    assert parse_state(state_text(remembered)) == remembered
    assert list(parse_state(state_text(remembered)).last_good) == list(remembered.last_good)


def test_state_can_be_read_by_people() -> None:
    told = json.loads(state_text(SAMPLE))

    assert list(told) == ["version", "policies", "newest_issued_at", "first_refusal", "last_good", "sha256"]
    assert told["policies"]["old"] == {"serial": 3, "payload_sha256": "b" * 64, "retired_by": "acme-prod"}
    assert told["newest_issued_at"] == "2026-11-01T00:00:00+00:00"
    assert told["first_refusal"] == {"at": "2026-11-02T00:00:00.000005+00:00", "code": "expired"}


def test_what_is_remembered_does_not_change_under_anybodys_hands() -> None:
    given_policies = {"a": RememberedPolicy(serial=1, payload_sha256="a" * 64)}
    remembered = Remembered(policies=given_policies)
    given_policies.clear()

    assert set(remembered.policies) == {"a"}
    with pytest.raises(TypeError):
        remembered.last_good["x"] = b""  # type: ignore[index]  # that it cannot be written is what is tested


@pytest.mark.parametrize("remembered", [SAMPLE, FIRST_CONTACT], ids=["sample", "first contact"])
def test_state_cut_off_anywhere_is_refused(remembered: Remembered) -> None:
    whole = state_text(remembered)
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"it is|Expecting|Unterminated"):
            parse_state(whole[:length])


@given(data=st.data())
def test_state_with_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    whole = bytearray(state_text(SAMPLE))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises(ValueError):  # noqa: PT011 -- of many texts
        parse_state(bytes(whole))


def test_state_with_any_flipped_byte_is_refused() -> None:
    whole = state_text(SAMPLE)
    for place in range(len(whole)):
        with pytest.raises(ValueError):  # noqa: PT011 -- of many texts
            parse_state(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])


@given(noise=st.binary(max_size=300))
def test_noise_is_refused_and_crashes_nothing(noise: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- of many texts
        parse_state(noise)


def rewritten(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The sample with a change by somebody who knows how a state is written, its digest too."""
    told = json.loads(state_text(SAMPLE))
    del told["sha256"]
    change(told)
    told["sha256"] = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return json.dumps(told, indent=1).encode() + b"\n"


def test_rewriting_without_a_change_is_what_was_written() -> None:
    assert rewritten(lambda told: told) == state_text(SAMPLE)


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(version=2),
        lambda told: told.update(version=True),
        lambda told: told.update(version=1.0),
        lambda told: told.pop("version"),
        lambda told: told.pop("policies"),
        lambda told: told.update(policies=[]),
        lambda told: told.update(policies=None),
        lambda told: told.update(unknown=1),
        lambda told: told["policies"].update({"../x": told["policies"]["old"]}),
        lambda told: told["policies"].update({"A": told["policies"]["old"]}),
        lambda told: told["policies"]["old"].update(serial=0),
        lambda told: told["policies"]["old"].update(serial=-1),
        lambda told: told["policies"]["old"].update(serial=True),
        lambda told: told["policies"]["old"].update(serial=3.0),
        lambda told: told["policies"]["old"].update(serial="3"),
        lambda told: told["policies"]["old"].update(serial=2**53),
        lambda told: told["policies"]["old"].update(payload_sha256="B" * 64),
        lambda told: told["policies"]["old"].update(payload_sha256="b" * 63),
        lambda told: told["policies"]["old"].update(payload_sha256=None),
        lambda told: told["policies"]["old"].update(retired_by="not an id"),
        lambda told: told["policies"]["old"].update(extra=1),
        lambda told: told["policies"]["old"].pop("retired_by"),
        lambda told: told.update(newest_issued_at="2026-11-01T00:00:00"),
        lambda told: told.update(newest_issued_at="2026-11-01T00:00:00Z"),
        lambda told: told.update(newest_issued_at="2026-11-01"),
        lambda told: told.update(newest_issued_at=1793491200),
        lambda told: told["first_refusal"].update(code=5),
        lambda told: told["first_refusal"].pop("at"),
        lambda told: told.update(first_refusal="expired"),
        lambda told: told["last_good"].update({"/etc/policies/a.toml": "YQ"}),
        lambda told: told["last_good"].update({"/etc/policies/a.toml": "YR=="}),
        lambda told: told["last_good"].update({"/etc/policies/a.toml": "Y Q=="}),
        lambda told: told["last_good"].update({"/etc/policies/a.toml": None}),
        lambda told: told.update(last_good=[["a", "YQ=="]]),
    ],
)
def test_what_no_state_says_is_refused_though_its_digest_is_right(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- of many texts
        parse_state(rewritten(change))


@pytest.mark.parametrize(
    "spelling",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text + b"\n",
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.decode().encode("utf-16"),
        lambda text: json.dumps(json.loads(text)).encode() + b"\n",
        lambda text: text.replace(b' "version": 1,', b' "version": 1,\n "version": 1,'),
        lambda text: text.replace(b' "version": 1,', b' "version": 2,\n "version": 1,'),
        lambda text: text.replace(b'"serial": 7', b'"serial": 8'),
        lambda _text: b"[" * 100_000,
        lambda _text: b'{"version": ' + b"9" * 10_000 + b"}",
        lambda _text: b"null",
        lambda _text: b"NaN",
        lambda _text: b"",
    ],
    ids=[
        "carriage returns",
        "one more line",
        "byte order mark",
        "another encoding",
        "one line",
        "a key twice",
        "a key twice, differing",
        "another serial",
        "deeply nested",
        "a huge number",
        "null",
        "no number",
        "nothing",
    ],
)
def test_other_spelling_is_refused(spelling: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- of many texts
        parse_state(spelling(state_text(SAMPLE)))
