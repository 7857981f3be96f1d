"""DSSE envelopes: the way there and back loses nothing, other tools agree, and nothing hostile gets through."""

import base64
import copy
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import example, given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined] # it has no __all__

from policy.dsse import (
    ENVELOPE_KEY_ID,
    MAX_ENVELOPE_BYTES,
    POLICY_OR_ENVELOPE_FILE,
    as_policy_file,
    document_of_envelope,
    dsse_envelope,
    looks_like_envelope,
)
from policy.errors import DocumentError, PolicyError, SignatureError
from policy.keys import PrivateKey, PublicKey, private_pem, public_pem
from policy.settings import MAX_DOCUMENT_BYTES
from policy.signature_block import (
    BEGIN_LINE,
    BEGIN_MARKER,
    END_LINE,
    END_MARKER,
    MAX_SIGNATURES,
    PolicySignature,
    format_signature_block,
    split_signatures,
)
from policy.signatures import (
    PAYLOAD_TYPE,
    VerifiedDocument,
    add_signature,
    pre_authentication_encoding,
    verify_signatures,
)
from policy.trusted_files import SIGNED_POLICY_FILE, read_trusted

TEXT = b'schema = 1\nid = "acme"\n[limits]\nnetworking_allowed = false # \xc3\xa4?>~\n'
NEEDS_OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed")
SECONDS_AT_MOST = 1


def seeded_key(seed: int) -> PrivateKey:
    return PrivateKey(secret=Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big")))


KEYS = tuple(sorted((seeded_key(seed) for seed in range(1, 18)), key=lambda key: key.public.key_id))
PUBLIC = tuple(key.public for key in KEYS)


def signed_by(*keys: PrivateKey, text: bytes = TEXT) -> bytes:
    document = text
    for key in keys:
        document = add_signature(document, key, origin="a.toml")
    return document


def enveloped(*keys: PrivateKey, text: bytes = TEXT) -> dict[str, Any]:
    """The envelope of a text signed by these keys, to be changed at will."""
    envelope: dict[str, Any] = json.loads(dsse_envelope(signed_by(*(keys or KEYS[:1]), text=text), origin="a.toml"))
    return envelope


def written(envelope: object) -> bytes:
    return json.dumps(envelope).encode()


def rebuilt(envelope: object) -> bytes:
    return document_of_envelope(written(envelope), origin="a.json")


def verified(envelope: object, *keys: PublicKey, threshold: int = 1) -> VerifiedDocument:
    return verify_signatures(rebuilt(envelope), keys or PUBLIC[:1], threshold=threshold, origin="a.json")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def their_key(key: PrivateKey) -> SSlibKey:
    """The public key as securesystemslib holds it, under our id."""
    return SSlibKey.from_crypto(key.secret.public_key(), keyid=key.public.key_id)


def is_signable(text: bytes) -> bool:
    return not any(word in text for word in (b"\r", b"\0", b"\xef\xbb\xbf", BEGIN_MARKER, END_MARKER))


SIGNABLE_TEXTS = st.binary(max_size=80).map(lambda text: text + b"\n").filter(is_signable)
SIGNATURE_VALUES = st.dictionaries(
    st.integers(0, MAX_SIGNATURES), st.binary(min_size=64, max_size=64), min_size=1, max_size=MAX_SIGNATURES
)

TWICE_SIGNED = dsse_envelope(signed_by(*KEYS[:2]), origin="a.toml")

# There and back


@given(text=SIGNABLE_TEXTS, values=SIGNATURE_VALUES)
@example(text=b"{\n", values={0: bytes(64)})
def test_document_to_envelope_and_back_is_the_identity(text: bytes, values: dict[int, bytes]) -> None:
    signatures = [PolicySignature(key_id=PUBLIC[at].key_id, value=value) for at, value in values.items()]
    document = text + format_signature_block(signatures)

    envelope = dsse_envelope(document, origin="a.toml")

    assert document_of_envelope(envelope, origin="a.json") == document
    assert looks_like_envelope(envelope)


@given(order=st.permutations(range(4)), alphabet=st.sampled_from([b64, b64url]), indent=st.none() | st.integers(0, 4))
def test_envelope_of_any_order_alphabet_and_layout_is_the_same_document(
    order: list[int], alphabet: Callable[[bytes], str], indent: int | None
) -> None:
    envelope = enveloped(*KEYS[:4])
    envelope["payload"] = alphabet(TEXT)
    entries = [envelope["signatures"][at] for at in order]
    envelope["signatures"] = [entry | {"sig": alphabet(base64.b64decode(entry["sig"]))} for entry in entries]
    untrusted = b" \r\n\t" + json.dumps(envelope, indent=indent).encode() + b"\r\n"

    assert looks_like_envelope(untrusted)
    assert document_of_envelope(untrusted, origin="a.json") == signed_by(*KEYS[:4])


def test_both_alphabets_are_told_apart_by_these_tests() -> None:
    assert b64(TEXT) != b64url(TEXT)
    assert any(b64(value) != b64url(value) for value in (KEYS[0].sign(TEXT), KEYS[1].sign(TEXT), KEYS[2].sign(TEXT)))


def test_envelope_reads_as_dsse_v1() -> None:
    envelope = dsse_envelope(signed_by(*KEYS[:2]), origin="a.toml")

    assert envelope.endswith(b"}\n")
    assert json.loads(envelope) == {
        "payloadType": "application/vnd.sandbox-policy.v1+toml",
        "payload": b64(TEXT),
        "signatures": [
            {"keyid": key.public.key_id, "sig": b64(key.sign(pre_authentication_encoding(PAYLOAD_TYPE, TEXT)))}
            for key in KEYS[:2]
        ],
    }


def test_envelope_verifies_as_the_file_does() -> None:
    document = signed_by(*KEYS[:3])

    result = verified(enveloped(*KEYS[:3]), *PUBLIC[:2], threshold=2)

    assert result == verify_signatures(document, PUBLIC[:2], threshold=2, origin="a.toml")
    assert (result.text, result.unknown) == (TEXT, (PUBLIC[2].key_id,))


def test_escaped_letters_and_slashes_are_the_letters() -> None:
    untrusted = written(enveloped()).replace(b'"keyid"', b'"\\u006beyid"').replace(b"/", b"\\/")

    assert document_of_envelope(untrusted, origin="a.json") == signed_by(KEYS[0])


def test_largest_file_with_most_signatures_goes_there_and_back_quickly(tmp_path: Path) -> None:
    block = len(signed_by(*KEYS[:16])) - len(TEXT)
    document = signed_by(*KEYS[:16], text=b"#" * (MAX_DOCUMENT_BYTES - block - 1) + b"\n")
    assert len(document) == MAX_DOCUMENT_BYTES
    started = time.process_time()

    (tmp_path / "a.json").write_bytes(dsse_envelope(document, origin="a.toml"))
    untrusted = read_trusted(tmp_path / "a.json", POLICY_OR_ENVELOPE_FILE)

    assert as_policy_file(untrusted, origin="a.json") == document
    assert time.process_time() - started < SECONDS_AT_MOST


def test_largest_text_and_its_signatures_leave_room_within_the_cap() -> None:
    payload = b64(bytes(MAX_DOCUMENT_BYTES))
    entry = {"keyid": PUBLIC[0].key_id, "sig": b64(bytes(64))}
    envelope = {"payload": payload, "payloadType": PAYLOAD_TYPE, "signatures": [entry] * MAX_SIGNATURES}

    assert len(json.dumps(envelope, indent=8)) < 0.75 * MAX_ENVELOPE_BYTES


def test_policy_file_passes_as_it_is() -> None:
    for document in (signed_by(KEYS[0]), TEXT, b"", b"[limits]\n"):
        assert as_policy_file(document, origin="a.toml") == document


def test_file_rule_of_either_is_that_of_signed_policies_but_for_size() -> None:
    rule = POLICY_OR_ENVELOPE_FILE

    assert (rule.owner_checked, rule.secret, rule.error) == (False, False, SIGNED_POLICY_FILE.error)
    assert rule.max_bytes == MAX_ENVELOPE_BYTES


@pytest.mark.parametrize(
    "document",
    [b"", b"\n", b"# {\n", b'"{" = 1\n', b"a = {}\n", b"\xef\xbb\xbf{}", b"\0{", b"\x0b{", b"[{", b"\xc2\xa0{"],
)
def test_what_does_not_begin_with_a_brace_is_no_envelope(document: bytes) -> None:
    assert not looks_like_envelope(document)


# What is not exported


def test_unsigned_file_is_not_exported() -> None:
    with pytest.raises(SignatureError, match="it has no signature") as caught:
        dsse_envelope(TEXT, origin="a.toml")

    assert "policy sign" in caught.value.problems[0].remedy


def test_envelope_is_not_exported_again() -> None:
    with pytest.raises(SignatureError, match="it is one already"):
        dsse_envelope(written(enveloped()), origin="a.json")


@pytest.mark.parametrize(
    "broken",
    [signed_by(KEYS[0])[:-1], signed_by(KEYS[0]) + b"a = 1\n", TEXT + BEGIN_LINE + END_LINE],
    ids=["cut", "text after END", "empty block"],
)
def test_broken_block_is_not_exported(broken: bytes) -> None:
    with pytest.raises(SignatureError):
        dsse_envelope(broken, origin="a.toml")


# Attacks on an envelope's content


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.sandbox-policy.v2+toml",
        f"{PAYLOAD_TYPE} ",
        PAYLOAD_TYPE.upper(),
        "",
        None,
        True,
        [PAYLOAD_TYPE],
    ],
)
def test_envelope_of_another_payload_type_is_refused(kind: object) -> None:
    with pytest.raises(SignatureError, match="for another purpose"):
        rebuilt(enveloped() | {"payloadType": kind})


def test_signature_of_another_purpose_under_our_payload_type_is_refused() -> None:
    envelope = enveloped()
    envelope["signatures"][0]["sig"] = b64(KEYS[0].sign(pre_authentication_encoding("application/vnd.other", TEXT)))

    with pytest.raises(SignatureError, match="does not verify"):
        verified(envelope)


def test_signature_of_the_bare_text_is_refused() -> None:
    envelope = enveloped()
    envelope["signatures"][0]["sig"] = b64(KEYS[0].sign(TEXT))

    with pytest.raises(SignatureError, match="does not verify"):
        verified(envelope)


def test_payload_swapped_under_signatures_is_refused() -> None:
    envelope = enveloped() | {"payload": b64(TEXT.replace(b"false", b"true "))}

    with pytest.raises(SignatureError, match="does not verify"):
        verified(envelope)


def test_one_key_under_two_ids_counts_once() -> None:
    envelope = enveloped()
    envelope["signatures"].append(envelope["signatures"][0] | {"keyid": PUBLIC[1].key_id})

    with pytest.raises(SignatureError, match="does not verify"):
        verified(envelope, *PUBLIC[:2], threshold=2)
    with pytest.raises(SignatureError, match="1 of the trusted keys signed it, and 2 must"):
        verified(envelope, PUBLIC[0], PUBLIC[2], threshold=2)


def test_one_key_twice_under_its_id_is_refused() -> None:
    envelope = enveloped()
    envelope["signatures"] *= 2

    with pytest.raises(SignatureError, match=f"{PUBLIC[0].key_id} signed twice") as caught:
        rebuilt(envelope)

    assert [problem.key for problem in caught.value.problems] == ["signatures[1]"]


def test_signature_of_an_unknown_key_is_reported_and_not_counted() -> None:
    with pytest.raises(SignatureError, match=f"keys not trusted here: {PUBLIC[1].key_id}"):
        verified(enveloped(KEYS[1]), PUBLIC[0])


@pytest.mark.parametrize("key_id", [None, "", [], {}], ids=["null", "empty", "list", "object"])
def test_signature_whose_key_id_is_unset_is_refused_with_a_remedy(key_id: object) -> None:
    envelope, without = enveloped(), enveloped()
    envelope["signatures"][0]["keyid"] = key_id
    del without["signatures"][0]["keyid"]

    for each in (envelope, without):
        with pytest.raises(SignatureError, match="it does not say whose it is") as caught:
            rebuilt(each)
        assert caught.value.problems[0].key == "signatures[0].keyid"
        assert "policy keygen" in caught.value.problems[0].remedy


@pytest.mark.parametrize(
    "key_id",
    [
        PUBLIC[0].key_id.removeprefix("sha256:"),
        PUBLIC[0].key_id.upper(),
        f"{PUBLIC[0].key_id}\n",
        f" {PUBLIC[0].key_id}",
        f"{PUBLIC[0].key_id}\n# ed25519 {PUBLIC[1].key_id}",
        PUBLIC[0].key_id.replace("sha256", "sha512"),
        PUBLIC[0].key_id[:-1] + "\u0661",
        "SHA256:vhZ+\x1b[2J\u202e\ud800",
        "x" * 90_000,
        True,
        [PUBLIC[0].key_id],
    ],
)
def test_foreign_key_id_is_refused_and_shown_harmlessly(key_id: object) -> None:
    envelope = enveloped()
    envelope["signatures"][0]["keyid"] = key_id

    with pytest.raises(SignatureError, match="is not a key id of ours") as caught:
        rebuilt(envelope)

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("add_to", "named"),
    [
        pytest.param(lambda envelope: envelope.update(payloadUtf8="x"), "payloadUtf8", id="second payload"),
        pytest.param(lambda envelope: envelope.update(Payload="x"), "Payload", id="other case"),
        pytest.param(
            lambda envelope: envelope["signatures"][0].update(alg="none"), "alg", id="algorithm of the signer"
        ),
        pytest.param(lambda envelope: envelope["signatures"][0].update(cert="x"), "cert", id="certificate"),
    ],
)
def test_unknown_field_is_refused(add_to: Callable[[dict[str, Any]], None], named: str) -> None:
    envelope = enveloped()
    add_to(envelope)

    with pytest.raises(PolicyError, match=f"fields that are not known: '{named}'"):
        rebuilt(envelope)


@pytest.mark.parametrize("field", ["payload", "payloadType", "signatures"])
def test_missing_field_is_refused(field: str) -> None:
    envelope = enveloped()
    del envelope[field]

    with pytest.raises(DocumentError, match=f"it lacks {field}\\."):
        rebuilt(envelope)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b64(TEXT).rstrip("="), id="no padding"),
        pytest.param(f"{b64(TEXT)}=", id="more padding"),
        pytest.param(f"{b64(TEXT)}\n", id="line feed"),
        pytest.param(f"{b64(TEXT)[:8]} {b64(TEXT)[8:]}", id="space"),
        pytest.param(f"-{b64(b'?>?>?>')[1:]}/", id="both alphabets"),
        pytest.param(b64(b"a\n")[:-2] + "p=", id="spare bits"),
        pytest.param("====", id="padding alone"),
        pytest.param("YQo\u0663", id="digit that is not ASCII"),
        pytest.param("\ud800AAA", id="half a surrogate pair"),
        pytest.param(None, id="null"),
        pytest.param([b64(TEXT)], id="list"),
    ],
)
def test_payload_that_is_not_canonical_base64_is_refused(payload: object) -> None:
    with pytest.raises(DocumentError, match="payload: it is not base64"):
        rebuilt(enveloped() | {"payload": payload})


@pytest.mark.parametrize(
    "value",
    ["", b64(bytes(63)), b64(bytes(65)), bytes(64).hex(), b64(bytes(64))[:-3] + "B==", b64(bytes(64))[:-2], None, {}],
    ids=["empty", "short", "long", "hexadecimal", "spare bits", "no padding", "null", "object"],
)
def test_malformed_signature_is_refused(value: object) -> None:
    envelope = enveloped()
    envelope["signatures"][0]["sig"] = value

    with pytest.raises(SignatureError, match="not the base64 of the 64 bytes") as caught:
        rebuilt(envelope)

    assert caught.value.problems[0].key == "signatures[0].sig"


@pytest.mark.parametrize("entry", [None, [], "x", True, {}, {"keyid": PUBLIC[0].key_id}])
def test_entry_that_is_no_signature_is_refused(entry: object) -> None:
    with pytest.raises(SignatureError, match=r"signatures\[0\]: it"):
        rebuilt(enveloped() | {"signatures": [entry]})


@pytest.mark.parametrize("signatures", [[], {}, None, "x", [{}] * 17], ids=["none", "object", "null", "text", "17"])
def test_too_few_or_too_many_signatures_are_refused(signatures: object) -> None:
    with pytest.raises(SignatureError, match="not a list of 1 to 16 signatures"):
        rebuilt(enveloped() | {"signatures": signatures})


def test_all_bad_signatures_are_named_at_once() -> None:
    envelope = enveloped(*KEYS[:3])
    envelope["signatures"][0]["sig"] = ""
    envelope["signatures"][2]["keyid"] = ""

    with pytest.raises(SignatureError) as caught:
        rebuilt(envelope)

    assert [problem.key for problem in caught.value.problems] == ["signatures[0].sig", "signatures[2].keyid"]
    assert all(problem.origin == "a.json" and problem.remedy for problem in caught.value.problems)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(signed_by(KEYS[1]), id="a signed file"),
        pytest.param(TEXT + BEGIN_LINE, id="BEGIN"),
        pytest.param(TEXT + END_LINE, id="END"),
        pytest.param(b'a = "' + BEGIN_MARKER + b'"\n', id="BEGIN in a string"),
    ],
)
def test_block_smuggled_in_by_the_payload_is_refused(text: bytes) -> None:
    envelope = enveloped()
    envelope["payload"] = b64(text)
    envelope["signatures"][0]["sig"] = b64(KEYS[0].sign(pre_authentication_encoding(PAYLOAD_TYPE, text)))

    with pytest.raises(SignatureError, match="stands 2 times, not once") as caught:
        verified(envelope)

    assert "policy export" in caught.value.problems[0].remedy


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "it is empty"),
        (b"a = 1", "does not end in a line feed"),
        (b"a = 1\r\n", "carriage return"),
        (b"a = '\0'\n", "NUL"),
        (b"\xef\xbb\xbfa = 1\n", "byte order mark"),
        (b"#" * (MAX_DOCUMENT_BYTES - 100) + b"\n", "more than 65536"),
        (b"#" * MAX_DOCUMENT_BYTES + b"\n", "more than 65536"),
    ],
    ids=["empty", "no line feed", "CR", "NUL", "BOM", "too large with its block", "too large"],
)
def test_payload_that_no_policy_file_can_be_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        rebuilt(enveloped() | {"payload": b64(text)})


@given(st.integers(min_value=0, max_value=8 * len(TWICE_SIGNED) - 1))
def test_flipped_bit_in_an_envelope_that_just_reaches_the_threshold_is_refused(bit: int) -> None:
    changed = bytearray(TWICE_SIGNED)
    changed[bit // 8] ^= 1 << bit % 8

    with pytest.raises((DocumentError, SignatureError)):
        verify_signatures(
            document_of_envelope(bytes(changed), origin="a.json"), PUBLIC[:2], threshold=2, origin="a.json"
        )


# Hostile JSON


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        pytest.param(b"{" * 60_000, "not JSON", id="braces"),
        pytest.param(b'{"a":' * 20_000, "nested too deeply", id="deep objects"),
        pytest.param(b'{"a":' + b"[" * 100_000, "nested too deeply", id="deep lists"),
        pytest.param(b'{"a":' + b"[" * 60_000 + b"]" * 60_000 + b"}", "nested too deeply", id="deep and closed"),
        pytest.param(b"{" + b" " * 20_000_000 + b"}", "more than 131072", id="megabytes of space"),
        pytest.param(b'{"payload":"' + b"A" * 20_000_000 + b'"}', "more than 131072", id="megabytes of text"),
        pytest.param(b'{"payload":"\xff"}', "not UTF-8", id="invalid UTF-8"),
        pytest.param(b'{"payload":"\xed\xa0\x80"}', "not UTF-8", id="surrogate in UTF-8"),
        pytest.param('{"payload":1}'.encode("utf-16-le"), "not JSON", id="UTF-16"),
        pytest.param(b'{"payload":NaN}', "number", id="NaN"),
        pytest.param(b'{"payload":-Infinity}', "number", id="Infinity"),
        pytest.param(b'{"payload":1.5}', "number", id="float"),
        pytest.param(b'{"payload":1e999999999}', "number", id="huge float"),
        pytest.param(b'{"payload":' + b"9" * 100_000 + b"}", "number", id="integer of 100,000 digits"),
        pytest.param(b'{"a":"b","a":"b"}', "'a' stands twice", id="duplicate field"),
        pytest.param(b'{"a":"b","\\u0061":"b"}', "'a' stands twice", id="duplicate field, escaped"),
        pytest.param(b'{"a":[{"b":"","b":""}]}', "'b' stands twice", id="duplicate field inside"),
        pytest.param(b'{"' + b"a" * 50_000 + b'":0}', "number", id="long name"),
        pytest.param(b'{"' + b"a" * 50_000 + b'":"","payload":""}', "it lacks payloadType", id="long unknown name"),
        pytest.param(b"{" + b",".join(b'"%d":""' % at for at in range(9_000)) + b"}", "lacks", id="many fields"),
        pytest.param(b'{"a":"b"} x', "not JSON", id="text after it"),
        pytest.param(b'{"a":"b"}{"a":"b"}', "not JSON", id="two envelopes"),
        pytest.param(b'{"a":"b",}', "not JSON", id="trailing comma"),
        pytest.param(b"{'a':'b'}", "not JSON", id="single quotes"),
        pytest.param(b'{"a":"\n"}', "not JSON", id="raw line feed in a text"),
        pytest.param(b"{} // note", "not JSON", id="comment"),
        pytest.param(b"{", "not JSON", id="cut"),
        pytest.param(b"", "not JSON", id="nothing"),
        pytest.param(b"[]", "not a JSON object", id="list"),
        pytest.param(b"null", "not a JSON object", id="null"),
        pytest.param(b"\xef\xbb\xbf{}", "not JSON", id="byte order mark"),
    ],
)
def test_hostile_json_ends_quickly_in_one_short_error(untrusted: bytes, reason: str) -> None:
    started = time.process_time()

    with pytest.raises(DocumentError, match=reason) as caught:
        document_of_envelope(untrusted, origin="a.json")

    assert time.process_time() - started < SECONDS_AT_MOST
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("field", ["payload", "payloadType", "signatures"])
def test_field_given_twice_is_refused_whichever_would_win(field: str) -> None:
    envelope = enveloped()
    other = copy.deepcopy(envelope)[field]
    untrusted = written(envelope)
    twice = b"{" + json.dumps({field: other}).encode()[1:-1] + b"," + untrusted[1:]

    with pytest.raises(DocumentError, match=f"'{field}' stands twice"):
        document_of_envelope(twice, origin="a.json")


def test_many_unknown_fields_make_one_short_message() -> None:
    unknown = {f"{at:04}{'x' * 50}": "" for at in range(1_000)}

    with pytest.raises(DocumentError, match="fields that are not known") as caught:
        rebuilt(enveloped() | unknown)

    assert len(caught.value.problems) == 1
    assert len(str(caught.value)) < 500


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: f"{{{text}}}".encode()))
def test_any_bytes_end_in_an_error_of_ours(untrusted: bytes) -> None:
    with pytest.raises((DocumentError, SignatureError)):
        document_of_envelope(untrusted, origin="a.json")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8) | st.sampled_from([b64(TEXT), PAYLOAD_TYPE, PUBLIC[0].key_id]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["keyid", "sig", "x"]), inner),
    max_leaves=8,
)


@given(kind=st.just(PAYLOAD_TYPE) | JSON_VALUES, payload=st.just(b64(TEXT)) | JSON_VALUES, signatures=JSON_VALUES)
def test_any_json_in_the_fields_ends_in_an_error_of_ours(kind: object, payload: object, signatures: object) -> None:
    with pytest.raises((DocumentError, SignatureError)):
        rebuilt({"payloadType": kind, "payload": payload, "signatures": signatures})


# Other tools


def test_securesystemslib_verifies_ours() -> None:
    theirs = Envelope.from_dict(enveloped(*KEYS[:3]))

    accepted = theirs.verify([their_key(key) for key in KEYS[:3]], 3)

    assert set(accepted) == {key.key_id for key in PUBLIC[:3]}
    assert theirs.payload == TEXT
    assert theirs.pae() == pre_authentication_encoding(PAYLOAD_TYPE, TEXT)


def test_securesystemslib_signs_what_we_verify() -> None:
    theirs = Envelope(TEXT, PAYLOAD_TYPE, {})
    for key in KEYS[:2]:
        secret = load_pem_private_key(private_pem(key), password=None)
        assert isinstance(secret, Ed25519PrivateKey)
        theirs.sign(CryptoSigner(secret, their_key(key)))

    envelope = theirs.to_dict()

    assert rebuilt(envelope) == signed_by(*KEYS[:2])
    assert verified(envelope, *PUBLIC[:2], threshold=2).trusted == tuple(key.key_id for key in PUBLIC[:2])


def test_key_id_of_securesystemslibs_own_is_refused() -> None:
    theirs = Envelope(TEXT, PAYLOAD_TYPE, {})
    theirs.sign(CryptoSigner(KEYS[0].secret))

    with pytest.raises(SignatureError, match="is not a key id of ours"):
        rebuilt(theirs.to_dict())


def test_securesystemslib_and_we_refuse_the_same_swapped_payload() -> None:
    envelope = enveloped() | {"payload": b64(TEXT.replace(b"acme", b"evil"))}

    with pytest.raises(SignatureError):
        verified(copy.deepcopy(envelope))
    with pytest.raises(VerificationError):
        Envelope.from_dict(envelope).verify([their_key(KEYS[0])], 1)


@given(text=SIGNABLE_TEXTS, signers=st.sets(st.integers(0, 3), min_size=1))
def test_securesystemslib_reads_and_writes_the_same_envelopes(text: bytes, signers: set[int]) -> None:
    document = signed_by(*(KEYS[at] for at in signers), text=text)

    theirs = Envelope.from_dict(json.loads(dsse_envelope(document, origin="a.toml")))

    assert set(theirs.verify([their_key(KEYS[at]) for at in signers], len(signers))) == {
        PUBLIC[at].key_id for at in signers
    }
    assert rebuilt(theirs.to_dict()) == document


@NEEDS_OPENSSL
def test_openssl_verifies_what_the_envelope_holds(tmp_path: Path) -> None:
    envelope = enveloped()
    kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
    for name, data in {
        "pae": b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload),
        "sig": base64.b64decode(envelope["signatures"][0]["sig"]),
        "pub": public_pem(PUBLIC[0]),
        "other": public_pem(PUBLIC[1]),
    }.items():
        (tmp_path / name).write_bytes(data)

    def told(key: str) -> subprocess.CompletedProcess[bytes]:
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", key, "-rawin", "-in", "pae", "-sigfile", "sig"]
        return subprocess.run(command, cwd=tmp_path, check=False, capture_output=True)

    assert b"Verified Successfully" in told("pub").stdout
    assert told("other").returncode != 0


@NEEDS_OPENSSL
def test_what_openssl_signs_verifies_in_an_envelope(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(private_pem(KEYS[0]))
    (tmp_path / "pae").write_bytes(pre_authentication_encoding(PAYLOAD_TYPE, TEXT))
    sign = ["openssl", "pkeyutl", "-sign", "-inkey", "key", "-rawin", "-in", "pae", "-out", "sig"]
    subprocess.run(sign, cwd=tmp_path, check=True)
    entry = {"keyid": PUBLIC[0].key_id, "sig": b64url((tmp_path / "sig").read_bytes())}

    result = verified({"signatures": [entry], "payload": b64url(TEXT), "payloadType": PAYLOAD_TYPE})

    assert result.trusted == (PUBLIC[0].key_id,)


def test_key_ids_are_those_of_keygen() -> None:
    assert all(ENVELOPE_KEY_ID.fullmatch(key.key_id) for key in PUBLIC)
    assert split_signatures(signed_by(KEYS[0]), origin="a.toml").signatures[0].key_id == PUBLIC[0].key_id
