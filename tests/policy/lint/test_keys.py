"""The keys of `--key`: what is a finding, and what no key at all."""

from pathlib import Path

import pytest

from policy.errors import KeyFileError
from policy.keys import generate_key, private_pem, public_pem
from policy.lint.keys import reviewed_keys
from tests.policy.lint.signing import pem

KEY = generate_key()


def file_of(folder: Path, *parts: bytes) -> Path:
    file = folder / "ops.pub"
    file.write_bytes(b"".join(parts))
    file.chmod(0o600)
    return file


def test_good_keys_are_given_once_and_each_place_of_theirs_is_named(tmp_path: Path) -> None:
    reviewed = reviewed_keys([file_of(tmp_path, public_pem(KEY.public), public_pem(KEY.public))])

    assert reviewed.keys == (KEY.public,)
    assert [(key.key_id, key.location.line, key.location.end_column) for key in reviewed.named] == [
        (KEY.public.key_id, 1, 27),
        (KEY.public.key_id, 4, 27),
    ]


def test_beside_a_weak_key_the_good_ones_are_still_trusted(tmp_path: Path) -> None:
    reviewed = reviewed_keys([file_of(tmp_path, pem(bytes(32)).encode(), public_pem(KEY.public))])

    assert reviewed.keys == (KEY.public,)
    assert [bool(key.weak) for key in reviewed.named] == [True, False]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no whole PEM block"),
        (private_pem(KEY), "it is a private key"),
        (public_pem(KEY.public) + b"cut off\n", "text outside"),
        (pem(bytes(32)).encode() + private_pem(KEY), "it is a private key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "damaged"),
    ],
)
def test_what_is_no_public_key_is_an_error_and_no_finding(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(KeyFileError, match=reason) as caught:
        reviewed_keys([file_of(tmp_path, data)])

    assert "small order" not in str(caught.value)


def test_a_key_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    file = file_of(tmp_path, public_pem(KEY.public))
    file.chmod(0o666)

    with pytest.raises(KeyFileError, match="others than its owner may write"):
        reviewed_keys([file])
