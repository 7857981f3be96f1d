"""Applies fixes to a text: each whole or not at all, and none that would touch what another one changed."""

from collections.abc import Iterable

from policy.lint.findings import Edit, Fix


def with_fixes(text: str, fixes: Iterable[Fix]) -> tuple[str, int]:
    """The text with as many fixes as fit together, and how many; those left over show in the next round."""
    taken: list[Edit] = []
    applied = 0
    for fix in dict.fromkeys(fixes):
        if all(_apart(edit, other) for edit in fix.edits for other in taken):
            taken += fix.edits
            applied += 1
    for edit in sorted(taken, key=lambda edit: edit.start, reverse=True):
        text = f"{text[: edit.start]}{edit.text}{text[edit.end :]}"
    return text, applied


def _apart(one: Edit, other: Edit) -> bool:
    """Whether two changes do not touch, so that either can come first."""
    return one.end < other.start or other.end < one.start
