"""Keys: which public keys are accepted, how settings and PEM files name them, and what is said of the others."""

import base64
import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from policy.errors import KeyFileError
from policy.keys import (
    CURVE_D,
    FIELD_PRIME,
    ORDER_EIGHT_Y,
    SMALL_ORDER_Y,
    PrivateKey,
    PublicKey,
    generate_key,
    load_private_key,
    parse_keys,
    parse_public_pem,
    private_pem,
    public_pem,
)
from policy.trusted_files import read_public_key_files

ORIGIN = "SANDBOX_POLICY_KEYS"
NEEDS_OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed")
SIGN_BIT = 1 << 255

SMALL_ORDER_ENCODINGS = [
    pytest.param((height | sign).to_bytes(32, "little"), id=f"{name}{'-signed' if sign else ''}")
    for name, height in {
        "identity": 1,
        "order-two": FIELD_PRIME - 1,
        "order-four": 0,
        "order-eight": ORDER_EIGHT_Y,
        "order-eight-negative": FIELD_PRIME - ORDER_EIGHT_Y,
        "zero-unreduced": FIELD_PRIME,
        "one-unreduced": FIELD_PRIME + 1,
    }.items()
    for sign in (0, SIGN_BIT)
]


def seeded_key(seed: int) -> PrivateKey:
    return PrivateKey(secret=ed25519.Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big")))


def inline(key: PublicKey) -> str:
    return f"ed25519:{base64.b64encode(key.raw).decode()}"


def no_files(path: Path) -> Mapping[str, bytes]:
    raise AssertionError(path)


def spki(key: ed448.Ed448PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey | x25519.X25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def doubled(point: tuple[int, int]) -> tuple[int, int]:
    x, y = point
    product = CURVE_D * x * x * y * y
    return (
        2 * x * y * pow(1 + product, -1, FIELD_PRIME) % FIELD_PRIME,
        (y * y + x * x) * pow(1 - product, -1, FIELD_PRIME) % FIELD_PRIME,
    )


def test_key_id_is_the_hash_of_the_raw_key() -> None:
    key = seeded_key(1).public

    assert key.key_id == "sha256:" + hashlib.sha256(key.raw).hexdigest()


@pytest.mark.parametrize("raw", SMALL_ORDER_ENCODINGS)
def test_small_order_key_is_refused(raw: bytes) -> None:
    with pytest.raises(KeyFileError, match="small order"):
        PublicKey(raw=raw)
    with pytest.raises(KeyFileError, match="small order"):
        parse_keys(f"ed25519:{base64.b64encode(raw).decode()}", ORIGIN, no_files)


def test_small_order_key_in_a_pem_file_is_refused() -> None:
    point = ed25519.Ed25519PublicKey.from_public_bytes((1).to_bytes(32, "little"))
    pem = point.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    with pytest.raises(KeyFileError, match=r"a\.pub:1: key: it is a point of small order"):
        parse_public_pem({"a.pub": pem})


def test_small_order_list_is_complete_by_the_curve_equation() -> None:
    # Of the eight points only x and y of order eight need computing: doubled three times they are the identity.
    y = ORDER_EIGHT_Y
    square = (y * y - 1) * pow(CURVE_D * y * y + 1, -1, FIELD_PRIME) % FIELD_PRIME
    x = pow(square, (FIELD_PRIME + 3) // 8, FIELD_PRIME)
    if x * x % FIELD_PRIME != square:
        x = x * pow(2, (FIELD_PRIME - 1) // 4, FIELD_PRIME) % FIELD_PRIME
    assert x * x % FIELD_PRIME == square

    four = doubled((x, y))
    two = doubled(four)

    assert (four[1], two, doubled(two)) == (0, (0, FIELD_PRIME - 1), (0, 1))
    assert len(SMALL_ORDER_Y) == 5


def test_forgery_under_a_small_order_key_would_verify_without_the_check() -> None:
    identity = (1).to_bytes(32, "little")

    ed25519.Ed25519PublicKey.from_public_bytes(identity).verify(identity + bytes(32), b"any policy")


@pytest.mark.parametrize("height", [FIELD_PRIME + 3, FIELD_PRIME + 18, SIGN_BIT - 1])
def test_unreduced_key_is_refused(height: int) -> None:
    with pytest.raises(KeyFileError, match="not encoded canonically"):
        PublicKey(raw=height.to_bytes(32, "little"))


def test_key_off_the_curve_is_refused() -> None:
    with pytest.raises(KeyFileError, match="not a point of Ed25519's curve"):
        PublicKey(raw=(2).to_bytes(32, "little"))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(KeyFileError, match=f"{length} bytes, not 32"):
        PublicKey(raw=bytes(length))


@given(st.binary(min_size=32, max_size=32))
def test_every_generated_key_is_accepted(seed: bytes) -> None:
    key = PrivateKey(secret=ed25519.Ed25519PrivateKey.from_private_bytes(seed))

    assert parse_keys(inline(key.public), ORIGIN, no_files) == (key.public,)


def test_inline_keys_are_read_in_their_order() -> None:
    first, second = seeded_key(1).public, seeded_key(2).public

    assert parse_keys(f"{inline(second)}, {inline(first)}", ORIGIN, no_files) == (second, first)


def test_one_key_named_twice_counts_once() -> None:
    key = seeded_key(1).public

    assert parse_keys(f"{inline(key)},{inline(key)}", ORIGIN, no_files) == (key,)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        pytest.param("", "it is empty", id="empty"),
        pytest.param("  ", "it is empty", id="blank"),
        pytest.param("{key},", "item 2: key: it is empty", id="trailing comma"),
        pytest.param("{key},rsa:AAAA", "item 2: key: it is not ed25519:", id="another algorithm"),
        pytest.param("{key}\n", "it is not ed25519:", id="line feed"),
        pytest.param("ED25519:{bare}", "it is not ed25519:", id="upper case"),
        pytest.param("{bare}", "it is not ed25519:", id="no algorithm"),
        pytest.param("ed25519:{short}", "it is not ed25519:", id="no padding"),
        pytest.param("ed25519:{urlsafe}", "it is not ed25519:", id="URL-safe base64"),
        pytest.param("ed25519:{spare}", "base64 is not canonical", id="spare bits set"),
        pytest.param("keys/a.pub", "it is not ed25519:", id="relative path"),
        pytest.param("-----BEGIN PRIVATE KEY-----", "it is a private key", id="private key"),
    ],
)
def test_malformed_setting_is_refused_without_repeating_it(setting: str, reason: str) -> None:
    key = seeded_key(1).public
    bare = inline(key).removeprefix("ed25519:")
    spare = bare[:-2] + chr(ord(bare[-2]) + 1) + "="
    text = setting.format(key=inline(key), bare=bare, short=bare[:-1], urlsafe="_" * 43 + "=", spare=spare)

    with pytest.raises(KeyFileError) as caught:
        parse_keys(text, ORIGIN, no_files)

    assert reason in str(caught.value)
    assert bare[:20] not in str(caught.value)


def test_every_malformed_item_is_listed() -> None:
    with pytest.raises(KeyFileError) as caught:
        parse_keys("a,b,c", ORIGIN, no_files)

    assert [problem.origin for problem in caught.value.problems] == [f"{ORIGIN}, item {n}" for n in (1, 2, 3)]


def test_folder_of_pem_files_is_read(tmp_path: Path) -> None:
    keys = [seeded_key(seed).public for seed in (1, 2, 3)]
    (tmp_path / "a.pub").write_bytes(b"# two of them\n" + public_pem(keys[0]) + b"\n" + public_pem(keys[1]))
    (tmp_path / "b.pem").write_bytes(public_pem(keys[2]).replace(b"\n", b"\r\n"))
    (tmp_path / "README").write_text("not a key")

    assert parse_keys(str(tmp_path), ORIGIN, read_public_key_files) == tuple(keys)


def test_one_key_under_two_spellings_counts_once(tmp_path: Path) -> None:
    key = seeded_key(1).public
    (tmp_path / "a.pub").write_bytes(public_pem(key))
    (tmp_path / "b.pub").write_bytes(b"# copied\n" + public_pem(key) + public_pem(key))

    assert parse_keys(str(tmp_path), ORIGIN, read_public_key_files) == (key,)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        pytest.param(ed448.Ed448PrivateKey.generate().public_key(), "Ed448", id="Ed448"),
        pytest.param(x25519.X25519PrivateKey.generate().public_key(), "X25519", id="X25519"),
        pytest.param(ec.generate_private_key(ec.SECP256R1()).public_key(), "EC", id="EC"),
        pytest.param(rsa.generate_private_key(65537, 2048).public_key(), "RSA", id="RSA"),
    ],
)
def test_key_of_another_type_is_refused_by_name(
    key: ed448.Ed448PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey | x25519.X25519PublicKey, name: str
) -> None:
    with pytest.raises(KeyFileError, match=rf"k\.pub:1: key: it is a key of type _?{name}"):
        parse_public_pem({"k.pub": spki(key)})


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        pytest.param(b"", "k.pub: key: it holds no whole PEM block", id="empty"),
        pytest.param(b"\x30\x2a\xff", "k.pub: key: it holds no whole PEM block", id="DER"),
        pytest.param(b"ssh-ed25519 AAAA me\n", "no whole PEM block", id="OpenSSH"),
        pytest.param(b"-----BEGIN PUBLIC KEY-----\nMCow\n", "no whole PEM block", id="cut off"),
        pytest.param(b"-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n", "damaged", id="too short"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\nMCow\n-----END CERTIFICATE-----\n", "CERTIFICATE", id="cert"),
        pytest.param(b"{pem}-----BEGIN PUBLIC KEY-----\nMCow\n", "outside its PEM blocks", id="second cut off"),
        pytest.param(b"-----BEGIN PUBLIC KEY-----\nMCow\n{pem}", "outside its PEM blocks", id="first cut off"),
        pytest.param(b"{pem}{private}", "k.pub:4: key: it is a private key", id="private key too"),
    ],
)
def test_malformed_pem_is_refused(pem: bytes, reason: str) -> None:
    key = seeded_key(1)
    data = pem.replace(b"{pem}", public_pem(key.public)).replace(b"{private}", private_pem(key))

    with pytest.raises(KeyFileError) as caught:
        parse_public_pem({"k.pub": data})

    assert reason in str(caught.value)


def test_every_malformed_file_is_listed() -> None:
    with pytest.raises(KeyFileError) as caught:
        parse_public_pem({"a.pub": b"", "b.pub": public_pem(seeded_key(1).public), "c.pub": b"x"})

    assert [problem.origin for problem in caught.value.problems] == ["a.pub", "c.pub"]


def test_no_key_files_is_no_key() -> None:
    with pytest.raises(KeyFileError, match="no key is named"):
        parse_public_pem({})


def test_private_key_survives_writing_and_reading() -> None:
    key = generate_key()

    again = load_private_key(private_pem(key), "a.key")

    assert again.public == key.public
    assert again.sign(b"x") == key.sign(b"x")


def test_private_key_never_shows_its_bytes() -> None:
    key = seeded_key(1)

    assert repr(key) == "PrivateKey()"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        pytest.param("public", "it is a public key, and a private key is wanted", id="public key"),
        pytest.param("encrypted", "encrypted, which is not supported", id="encrypted"),
        pytest.param("openssh", "type OPENSSH PRIVATE KEY, not PRIVATE KEY", id="OpenSSH"),
        pytest.param("x25519", "it is a key of type X25519", id="X25519"),
        pytest.param("damaged", "damaged", id="damaged"),
        pytest.param("empty", "holds 0 PEM blocks", id="empty"),
        pytest.param("two", "holds 2 PEM blocks", id="two keys"),
    ],
)
def test_what_is_no_private_key_is_refused_without_its_bytes(kind: str, reason: str) -> None:
    key = seeded_key(1)
    pem = private_pem(key)
    password = BestAvailableEncryption(b"p")
    data = {
        "public": public_pem(key.public),
        "encrypted": key.secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, password),
        "openssh": key.secret.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        "x25519": x25519.X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "damaged": pem.replace(b"MC4C", b"MC4D"),
        "empty": b"",
        "two": pem + pem,
    }[kind]

    with pytest.raises(KeyFileError) as caught:
        load_private_key(data, "a.key")

    assert reason in str(caught.value)
    assert "AQ==" not in str(caught.value)
    assert all(line not in str(caught.value) for line in data.decode().splitlines() if len(line) > 40)


@NEEDS_OPENSSL
def test_keys_that_openssl_made_are_read(tmp_path: Path) -> None:
    private, public = tmp_path / "a.key", tmp_path / "a.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)  # noqa: S607 -- found on PATH on purpose
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)  # noqa: S607 -- found on PATH on purpose

    key = load_private_key(private.read_bytes(), "a.key")

    assert parse_public_pem({"a.pub": public.read_bytes()}) == (key.public,)
    assert private_pem(key) == private.read_bytes()
    assert public_pem(key.public) == public.read_bytes()
