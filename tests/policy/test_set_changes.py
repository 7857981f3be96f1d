"""What a review is told of two sets beside the limits."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from policy.set_changes import set_changes
from tests.policy.factories import HEADER, document_of

OLD = document_of({"max_cpus": 1})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"payload_sha256": "ab", "serial": 8}, []),
        ({"payload_sha256": "ab"}, ["acme-prod: serial 7 → 7: it is not raised, though the text changed"]),
        (
            {"payload_sha256": "ab", "serial": 6},
            ["acme-prod: serial 7 → 6: it is not raised, though the text changed"],
        ),
        ({"audience": ("eu", "*")}, ["acme-prod: audience prod-eu → *, eu"]),
        ({"not_before": HEADER["issued_at"]}, ["acme-prod: not_before none → 2026-11-01T00:00:00+00:00"]),
        (
            {"expires_at": HEADER["expires_at"] + timedelta(days=1)},
            ["acme-prod: expires_at 2027-02-01T00:00:00+00:00 → 2027-02-02T00:00:00+00:00"],
        ),
        (
            {"issued_at": HEADER["issued_at"] - timedelta(days=1)},
            ["acme-prod: issued_at 2026-11-01T00:00:00+00:00 → 2026-10-31T00:00:00+00:00: it goes back"],
        ),
        (
            {"requires": ("b", "a"), "retires": ("c",), "rollback_of": 5},
            [
                "acme-prod: requires none → a, b",
                "acme-prod: retires none → c",
                "acme-prod: rollback_of none → 5",
            ],
        ),
    ],
    ids=["none", "raised", "not raised", "serial back", "audience", "begins", "expires", "issued back", "relations"],
)
def test_what_changed_in_a_file_is_told(changes: dict[str, Any], told: list[str]) -> None:
    assert [str(each) for each in set_changes([OLD], [replace(OLD, **changes)])] == told


def test_files_that_came_and_went_are_told_by_their_ids() -> None:
    other = replace(OLD, policy_id="extra", origin="extra.toml")
    assert [str(each) for each in set_changes([OLD, other], [other])] == [
        "acme-prod: id acme-prod.toml → none: the file is gone"
    ]
    assert [str(each) for each in set_changes([], [other])] == ["extra: id none → extra.toml: the file is new"]
