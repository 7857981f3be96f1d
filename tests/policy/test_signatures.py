"""Signatures: the block is strict, every bit counts, and only distinct trusted keys do."""

import base64
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from policy.errors import DocumentError, SignatureError
from policy.keys import PrivateKey, PublicKey, parse_public_pem, private_pem, public_pem
from policy.settings import MAX_DOCUMENT_BYTES
from policy.signature_block import (
    BEGIN_LINE,
    BEGIN_MARKER,
    END_LINE,
    END_MARKER,
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

TEXT = b'schema = 1\nid = "acme"\n[limits]\nnetworking_allowed = false\n'
NEEDS_OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed")
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


def seeded_key(seed: int) -> PrivateKey:
    return PrivateKey(secret=Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big")))


KEYS = tuple(sorted((seeded_key(seed) for seed in range(1, 18)), key=lambda key: key.public.key_id))
PUBLIC = tuple(key.public for key in KEYS)
TWICE_SIGNED_BYTES = len(TEXT) + len(BEGIN_LINE) + 2 * 171 + len(END_LINE)


def signed_by(*keys: PrivateKey, text: bytes = TEXT) -> bytes:
    document = text
    for key in keys:
        document = add_signature(document, key, origin="a.toml")
    return document


def verified(document: bytes, *keys: PublicKey, threshold: int = 1) -> VerifiedDocument:
    return verify_signatures(document, keys or PUBLIC[:1], threshold=threshold, origin="a.toml")


def flipped(document: bytes, bit: int) -> bytes:
    changed = bytearray(document)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def is_signable(text: bytes) -> bool:
    return not any(word in text for word in (b"\r", b"\0", b"\xef\xbb\xbf", BEGIN_MARKER, END_MARKER))


def test_pre_authentication_encoding_is_dsses_example() -> None:
    # The example of DSSE's protocol.md.
    assert pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(payload=st.binary(max_size=64), kind=st.text(max_size=16))
def test_pre_authentication_encoding_counts_bytes(payload: bytes, kind: str) -> None:
    lengths = pre_authentication_encoding(kind, payload).split(b" ")[1]

    assert int(lengths) == len(kind.encode())
    assert pre_authentication_encoding(kind, payload).endswith(b" %d %b" % (len(payload), payload))


def test_signed_file_reads_as_designed() -> None:
    line = signed_by(KEYS[0]).removeprefix(TEXT).splitlines()

    assert line[0] == b"# -----BEGIN POLICY SIGNATURES-----"
    assert line[1].startswith(b"# ed25519 " + KEYS[0].public.key_id.encode() + b" ")
    assert line[2:] == [b"# -----END POLICY SIGNATURES-----"]


def test_signed_text_verifies_and_is_given_back() -> None:
    result = verified(signed_by(KEYS[1], KEYS[0]), *PUBLIC[:2], threshold=2)

    assert result.text == TEXT
    assert result.trusted == (PUBLIC[0].key_id, PUBLIC[1].key_id)
    assert result.unknown == ()


@given(st.integers(min_value=0, max_value=8 * len(TEXT) - 1))
def test_flipped_bit_in_signed_text_is_refused(bit: int) -> None:
    with pytest.raises((SignatureError, DocumentError)):
        verified(flipped(signed_by(KEYS[0]), bit))


@given(st.integers(min_value=8 * len(TEXT), max_value=8 * TWICE_SIGNED_BYTES - 1))
def test_flipped_bit_in_a_block_that_just_reaches_the_threshold_is_refused(bit: int) -> None:
    document = signed_by(*KEYS[:2])
    assert len(document) == TWICE_SIGNED_BYTES

    with pytest.raises((SignatureError, DocumentError)):
        verified(flipped(document, bit), *PUBLIC[:2], threshold=2)


@given(
    text=st.binary(max_size=80).map(lambda text: text + b"\n").filter(is_signable),
    values=st.dictionaries(st.integers(0, 16), st.binary(min_size=64, max_size=64), min_size=1, max_size=16),
)
def test_splitting_undoes_joining(text: bytes, values: dict[int, bytes]) -> None:
    signatures = [PolicySignature(key_id=PUBLIC[at].key_id, value=value) for at, value in sorted(values.items())]

    split = split_signatures(text + format_signature_block(signatures), origin="a.toml")

    assert split.text == text
    assert split.signatures == tuple(signatures)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_adding_signatures_leaves_text_and_payload_hash(order: list[int]) -> None:
    before = verified(signed_by(KEYS[order[0]]), PUBLIC[order[0]])

    document = signed_by(*(KEYS[at] for at in order))
    after = verified(document, *PUBLIC[:4], threshold=len(set(order)))

    assert document.startswith(TEXT)
    assert (after.text, after.payload_sha256) == (before.text, before.payload_sha256)
    assert document == signed_by(*(KEYS[at] for at in sorted(set(order))))


def test_signing_again_after_an_edit_replaces_the_line() -> None:
    edited = signed_by(KEYS[0]).replace(b"false", b"true ")

    again = add_signature(edited, KEYS[0], origin="a.toml")

    assert verified(again).trusted == (PUBLIC[0].key_id,)


def test_unsigned_document_has_no_signatures() -> None:
    split = split_signatures(TEXT, origin="a.toml")

    assert (split.text, split.signatures) == (TEXT, ())


def test_stripped_signature_block_is_refused() -> None:
    with pytest.raises(SignatureError, match="0 of the trusted keys signed it, and 1 must; it has no signature"):
        verified(split_signatures(signed_by(KEYS[0]), origin="a.toml").text)


def test_unknown_key_is_reported_and_not_counted() -> None:
    result = verified(signed_by(*KEYS[:2]), PUBLIC[1])

    assert result.trusted == (PUBLIC[1].key_id,)
    assert result.unknown == (PUBLIC[0].key_id,)
    with pytest.raises(SignatureError, match=f"keys not trusted here: {PUBLIC[0].key_id}"):
        verified(signed_by(*KEYS[:2]), PUBLIC[1], PUBLIC[2], threshold=2)


def test_one_key_under_two_ids_counts_once() -> None:
    once = PUBLIC[0]
    from_pem = parse_public_pem({"a.pub": public_pem(once), "b.pub": b"# copy\n" + public_pem(once)})
    keys = (once, *from_pem, PublicKey(raw=bytes(bytearray(once.raw))))

    assert verified(signed_by(KEYS[0]), *keys).trusted == (once.key_id,)
    with pytest.raises(SignatureError, match="2 signatures are required; distinct trusted keys: 1"):
        verified(signed_by(KEYS[0]), *keys, threshold=2)


def test_signature_copied_under_another_trusted_key_id_is_refused() -> None:
    value = split_signatures(signed_by(KEYS[0]), origin="a.toml").signatures[0].value
    lines = [PolicySignature(key_id=key.key_id, value=value) for key in PUBLIC[:2]]

    with pytest.raises(SignatureError, match="does not verify") as caught:
        verified(TEXT + format_signature_block(lines), *PUBLIC[:2], threshold=2)

    assert [problem.key for problem in caught.value.problems] == [PUBLIC[1].key_id]


def test_bad_line_of_a_trusted_key_refuses_a_file_that_enough_others_signed() -> None:
    good = split_signatures(signed_by(*KEYS[:2]), origin="a.toml").signatures
    bad = PolicySignature(key_id=PUBLIC[2].key_id, value=good[0].value)

    with pytest.raises(SignatureError) as caught:
        verified(TEXT + format_signature_block([*good, bad]), *PUBLIC[:3], threshold=2)

    assert caught.value.problems[0].origin == "a.toml:8"
    assert caught.value.problems[0].remedy


def test_signature_of_another_purpose_is_refused() -> None:
    value = KEYS[0].sign(pre_authentication_encoding("application/vnd.other", TEXT))

    with pytest.raises(SignatureError, match="does not verify"):
        verified(TEXT + format_signature_block([PolicySignature(key_id=PUBLIC[0].key_id, value=value)]))


def test_signature_of_another_file_is_refused() -> None:
    block = signed_by(KEYS[0]).removeprefix(TEXT)

    with pytest.raises(SignatureError, match="does not verify"):
        verified(TEXT + b"# more\n" + block)


def test_malleated_signature_is_refused() -> None:
    # S and S + L are the same number modulo the group's order: RFC 8032 permits the smaller alone.
    value = split_signatures(signed_by(KEYS[0]), origin="a.toml").signatures[0].value
    larger = (int.from_bytes(value[32:], "little") + GROUP_ORDER).to_bytes(32, "little")
    line = PolicySignature(key_id=PUBLIC[0].key_id, value=value[:32] + larger)

    with pytest.raises(SignatureError, match="does not verify"):
        verified(TEXT + format_signature_block([line]))


@pytest.mark.parametrize("threshold", [-1, 0, 3, 16])
def test_threshold_zero_or_above_the_keys_is_refused(threshold: int) -> None:
    with pytest.raises(SignatureError, match="distinct trusted keys: 2"):
        verified(signed_by(*KEYS[:2]), *PUBLIC[:2], threshold=threshold)


@pytest.mark.parametrize("threshold", [0, 1])
def test_empty_keyring_is_refused(threshold: int) -> None:
    with pytest.raises(SignatureError, match="no trusted key"):
        verify_signatures(signed_by(KEYS[0]), (), threshold=threshold, origin="a.toml")


def test_too_few_signatures_are_refused() -> None:
    with pytest.raises(SignatureError, match="1 of the trusted keys signed it, and 2 must"):
        verified(signed_by(KEYS[0]), *PUBLIC[:2], threshold=2)


def test_sixteen_signatures_fit_and_a_seventeenth_is_refused() -> None:
    full = signed_by(*KEYS[:16])

    assert len(verified(full, *PUBLIC[:16], threshold=16).trusted) == 16
    assert add_signature(full, KEYS[3], origin="a.toml") == full
    with pytest.raises(SignatureError, match="already has 16"):
        add_signature(full, KEYS[16], origin="a.toml")
    with pytest.raises(SignatureError, match="17 signature lines, not 1 to 16"):
        split_signatures(TEXT + full_block(17), origin="a.toml")


def full_block(count: int) -> bytes:
    return format_signature_block(PolicySignature(key_id=key.key_id, value=bytes(64)) for key in PUBLIC[:count])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'reason = "' + BEGIN_MARKER + b'"\n', id="BEGIN in a string"),
        pytest.param(b'reason = "' + END_MARKER + b'"\n', id="END in a string"),
        pytest.param(b"#" + BEGIN_MARKER + b"\n", id="BEGIN in a comment"),
        pytest.param(b"a = '''\n" + BEGIN_LINE + END_LINE + b"'''\n", id="a block in a multi-line string"),
    ],
)
def test_marker_inside_string_or_comment_is_refused(text: bytes) -> None:
    with pytest.raises(SignatureError, match=r"BEGIN|END"):
        add_signature(TEXT + text, KEYS[0], origin="a.toml")
    value = KEYS[0].sign(pre_authentication_encoding(PAYLOAD_TYPE, TEXT + text))
    block = format_signature_block([PolicySignature(key_id=PUBLIC[0].key_id, value=value)])
    with pytest.raises(SignatureError, match="stands 2 times, not once"):
        verified(TEXT + text + block)


def test_unsorted_block_is_refused() -> None:
    begin, first, second, end = signed_by(*KEYS[:2]).removeprefix(TEXT).splitlines(keepends=True)

    with pytest.raises(SignatureError, match=r"a\.toml:7: signatures: the lines are not sorted"):
        verified(TEXT + begin + second + first + end, *PUBLIC[:2])


def test_duplicate_signature_line_is_refused() -> None:
    begin, line, end = signed_by(KEYS[0]).removeprefix(TEXT).splitlines(keepends=True)

    with pytest.raises(SignatureError, match="signed twice"):
        verified(TEXT + begin + line + line + end)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b"# ed25519", b"#  ed25519", id="two spaces"),
        pytest.param(b"# ed25519", b"#\ted25519", id="tab"),
        pytest.param(b"# ed25519", b" # ed25519", id="indented"),
        pytest.param(b"# ed25519", b"\n# ed25519", id="blank line"),
        pytest.param(b"# ed25519", b"# note\n# ed25519", id="foreign line"),
        pytest.param(b"==\n", b"== \n", id="trailing space"),
        pytest.param(b"==\n", b"\n", id="no padding"),
        pytest.param(b"==\n", b"==\n\n", id="blank line before END"),
        pytest.param(b"ed25519", b"ED25519", id="upper-case algorithm"),
        pytest.param(b"ed25519", b"rsa", id="another algorithm"),
        pytest.param(b"sha256:", b"SHA256:", id="upper-case hash"),
        pytest.param(BEGIN_LINE, b" " + BEGIN_LINE, id="indented BEGIN"),
        pytest.param(BEGIN_LINE, b"#" + BEGIN_LINE[2:], id="BEGIN without space"),
        pytest.param(BEGIN_LINE, BEGIN_LINE[:-1] + b" \n", id="BEGIN with trailing space"),
        pytest.param(END_LINE, END_LINE[:-1], id="no final line feed"),
        pytest.param(END_LINE, END_LINE + b"\n", id="blank line at the end"),
        pytest.param(END_LINE, END_LINE + b"a = 1\n", id="text after END"),
        pytest.param(END_LINE, b"", id="no END"),
        pytest.param(BEGIN_LINE, b"", id="no BEGIN"),
        pytest.param(BEGIN_LINE, BEGIN_LINE[:-1] + BEGIN_MARKER[5:] + b"\n", id="overlapping BEGIN"),
        pytest.param(TEXT, b"", id="no text"),
        pytest.param(TEXT, TEXT[:-1], id="text without final line feed"),
    ],
)
def test_whitespace_variant_of_block_is_refused(old: bytes, new: bytes) -> None:
    document = signed_by(KEYS[0])
    assert document.count(old) == 1

    with pytest.raises(SignatureError):
        verified(document.replace(old, new))


def test_signed_text_that_does_not_end_in_a_line_feed_is_refused() -> None:
    value = KEYS[0].sign(pre_authentication_encoding(PAYLOAD_TYPE, TEXT + b" "))
    block = format_signature_block([PolicySignature(key_id=PUBLIC[0].key_id, value=value)])

    with pytest.raises(SignatureError, match="BEGIN does not stand alone"):
        verified(TEXT + b" " + block)


@pytest.mark.parametrize("after", [b"\n", b"a = 1\n", b" "])
def test_text_after_end_is_refused_as_such(after: bytes) -> None:
    with pytest.raises(SignatureError, match="does not end with END and its line feed"):
        verified(signed_by(KEYS[0]) + after)


def test_upper_case_key_id_is_refused() -> None:
    key_id = PUBLIC[0].key_id.removeprefix("sha256:")

    with pytest.raises(SignatureError, match="the line is not"):
        verified(signed_by(KEYS[0]).replace(key_id.encode(), key_id.upper().encode()))


def test_base64_with_spare_bits_is_refused() -> None:
    value = bytes(64)
    block = format_signature_block([PolicySignature(key_id=PUBLIC[1].key_id, value=value)])
    written = base64.b64encode(value)

    with pytest.raises(SignatureError, match="not spelled as we would write it"):
        split_signatures(TEXT + block.replace(written, written[:-3] + b"B=="), origin="a.toml")


def test_block_without_lines_is_refused() -> None:
    with pytest.raises(SignatureError, match="0 signature lines"):
        verified(TEXT + BEGIN_LINE + END_LINE)


def test_block_with_several_bad_lines_names_each() -> None:
    with pytest.raises(SignatureError) as caught:
        verified(TEXT + BEGIN_LINE + b"# a\n# b\n" + END_LINE)

    assert [problem.origin for problem in caught.value.problems] == ["a.toml:6", "a.toml:7"]


@pytest.mark.parametrize(
    ("forbidden", "name"),
    [(b"\r", "carriage return"), (b"\0", "NUL"), (b"\xef\xbb\xbf", "byte order mark")],
    ids=["CR", "NUL", "BOM"],
)
def test_forbidden_bytes_are_refused_in_text_and_block(forbidden: bytes, name: str) -> None:
    signed = signed_by(KEYS[0])

    for document in (
        forbidden + TEXT,
        TEXT + forbidden,
        signed + forbidden,
        signed.replace(b"# ed", forbidden + b"# ed"),
    ):
        with pytest.raises(DocumentError, match=name):
            add_signature(document, KEYS[1], origin="a.toml")
        with pytest.raises(DocumentError, match=name):
            verified(document)


def test_all_forbidden_bytes_are_named_with_their_lines() -> None:
    with pytest.raises(DocumentError) as caught:
        split_signatures(b"a = 1\r\nb = '\0'\n", origin="a.toml")

    assert [problem.origin for problem in caught.value.problems] == ["a.toml:1", "a.toml:2"]


@pytest.mark.parametrize("text", [b"", b"schema = 1"], ids=["empty", "no final line feed"])
def test_text_without_a_whole_line_is_not_signed(text: bytes) -> None:
    with pytest.raises(DocumentError, match="line feed"):
        add_signature(text, KEYS[0], origin="a.toml")


def test_text_that_is_too_large_once_signed_is_not_signed() -> None:
    text = b"#" * (MAX_DOCUMENT_BYTES - 100) + b"\n"

    with pytest.raises(DocumentError, match="more than 65536"):
        add_signature(text, KEYS[0], origin="a.toml")


def test_largest_file_with_most_signatures_verifies_quickly() -> None:
    block = len(signed_by(*KEYS[:16])) - len(TEXT)
    document = signed_by(*KEYS[:16], text=b"#" * (MAX_DOCUMENT_BYTES - block - 1) + b"\n")
    started = time.process_time()

    verified(document, *PUBLIC[:16], threshold=16)

    assert len(document) == MAX_DOCUMENT_BYTES
    assert time.process_time() - started < 1


@NEEDS_OPENSSL
def test_openssl_verifies_and_makes_the_same_signature(tmp_path: Path) -> None:
    split = split_signatures(signed_by(KEYS[0]), origin="a.toml")
    encoded = pre_authentication_encoding(PAYLOAD_TYPE, split.text)
    for name, data in {
        "pae": encoded,
        "sig": split.signatures[0].value,
        "pub": public_pem(PUBLIC[0]),
        "key": private_pem(KEYS[0]),
    }.items():
        (tmp_path / name).write_bytes(data)

    verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "pub", "-rawin", "-in", "pae", "-sigfile", "sig"]
    sign = ["openssl", "pkeyutl", "-sign", "-inkey", "key", "-rawin", "-in", "pae", "-out", "again"]
    told = subprocess.run(verify, cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(sign, cwd=tmp_path, check=True)

    assert b"Verified Successfully" in told.stdout
    assert (tmp_path / "again").read_bytes() == split.signatures[0].value


def test_a_block_of_empty_lines_is_one_problem_and_no_flood() -> None:
    flood = b"a = 1\n" + BEGIN_LINE + b"\n" * 60_000 + END_LINE

    with pytest.raises(SignatureError) as refused:
        split_signatures(flood, origin="a.toml")

    assert len(refused.value.problems) == 1
