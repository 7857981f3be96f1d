from hypothesis import given, settings
from hypothesis import strategies as st

from policy.errors import SignatureError
from policy.keys import generate_key
from policy.signatures import verify_signatures
from tests.policy.lint.linting import written
from tests.policy.lint.signing import LAST_LINE, LOCKED, found_with, signed

OPS, SEC, STRANGER = (generate_key() for _ in range(3))


def test_a_text_changed_after_signing_is_found_at_the_line_of_the_signature() -> None:
    text = signed(LOCKED, OPS).replace("networking_allowed = false", "networking_allowed = true ")

    (found,) = found_with("SBP303", text, OPS.public)

    assert found.location.line == LAST_LINE + 2
    assert OPS.public.key_id in found.message
    assert text.splitlines()[found.location.line - 1].startswith("# ed25519 ")


def test_each_line_that_does_not_verify_is_found_and_no_other() -> None:
    changed = written("[limits]\nnetworking_allowed = true\n")
    good = signed(LOCKED, OPS, SEC).splitlines(keepends=True)
    bad = signed(changed, SEC).splitlines(keepends=True)
    line_of = {line.split()[2]: line for line in bad if line.startswith("# ed25519")}
    mixed = "".join(line_of.get(line.split()[2], line) if line.startswith("# ed25519") else line for line in good)

    (found,) = found_with("SBP303", mixed, OPS.public, SEC.public)

    assert SEC.public.key_id in found.message
    assert SEC.public.key_id in mixed.splitlines()[found.location.line - 1]


def test_a_line_of_a_key_that_is_not_trusted_proves_nothing_either_way() -> None:
    text = signed(LOCKED, STRANGER).replace("networking_allowed = false", "networking_allowed = true ")

    assert not found_with("SBP303", text, OPS.public)


def test_a_good_signature_is_not_found() -> None:
    assert not found_with("SBP303", signed(LOCKED, OPS, SEC, STRANGER), OPS.public, SEC.public)


@settings(max_examples=60)
@given(
    signers=st.sets(st.sampled_from((OPS, SEC, STRANGER))),
    trusted=st.sets(st.sampled_from((OPS, SEC)), min_size=1),
    threshold=st.integers(1, 3),
    changed=st.booleans(),
)
def test_the_three_rules_of_signatures_find_something_just_where_verifying_refuses(
    signers: set[object], trusted: set[object], threshold: int, *, changed: bool
) -> None:
    text = signed(LOCKED, *(key for key in (OPS, SEC, STRANGER) if key in signers))
    text = text.replace("allowed = false", "allowed = true ") if changed else text
    keys = tuple(key.public for key in (OPS, SEC) if key in trusted)

    found = [
        each for rule in ("SBP302", "SBP303", "SBP304") for each in found_with(rule, text, *keys, threshold=threshold)
    ]

    try:
        verify_signatures(text.encode(), keys, threshold=threshold, origin="acme.toml")
    except SignatureError:
        assert found
    else:
        assert not found
