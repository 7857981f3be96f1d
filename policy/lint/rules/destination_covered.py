"""SBP113: an item of an allow-list that another item of the same list covers."""

from collections.abc import Iterator, Sequence

from policy.destinations import Destination, covers, parse_destination
from policy.limits import NETWORK_ALLOWLIST
from policy.lint.findings import Edit, Fix, Found, Severity
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.spans import removal_span
from policy.lint.subjects import PlacedStatement, PolicyFile, Setup
from policy.positions import KeyPath


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    if NETWORK_ALLOWLIST.name not in file.text:
        return
    for placed in file.statements:
        if placed.limit.name == NETWORK_ALLOWLIST.name:
            items: Sequence[str] = file.untrusted_at(placed.path)
            if len(items) > len(placed.value):  # which is the same reach in the fewest items
                yield from _idle_items(file, placed, items)


def _idle_items(file: PolicyFile, placed: PlacedStatement, items: Sequence[str]) -> Iterator[Found]:
    kept: dict[Destination, int] = {}
    read = [parse_destination(text) for text in items]
    for number, item in enumerate(read):
        if item in placed.value:
            kept.setdefault(item, number)
    for number, item in enumerate(read):
        if kept.get(item) != number:
            other = kept[item] if item in kept else next(kept[wide] for wide in kept if covers(wide, item))
            yield _found(file, placed.path, items, number, other)


def _found(file: PolicyFile, table: KeyPath, items: Sequence[str], number: int, other: int) -> Found:
    path = (*table, number)
    span = removal_span(file.text, file.positions, path)
    same = parse_destination(items[number]) == parse_destination(items[other])
    return Found(
        path=path,
        message=f"{items[number]} {'is the same as' if same else 'is covered by'} {items[other]} of the same list",
        remedy="Remove it, or remove the wider one if that is too wide",
        related=(file.location((*table, other)),),
        fix=Fix(description="Remove the covered item", edits=(Edit(start=span.start, end=span.end, text=""),))
        if span
        else None,
    )


RULE = DocumentRule(
    id="SBP113",
    name="destination-covered",
    family=Family.CONTRADICTION,
    severity=Severity.WARNING,
    summary="An item of an allow-list adds nothing to another item of the same list.",
    rationale=(
        "Somebody who reads the narrow item believes that reach ends there, while the wide one permits it and more. "
        "Two spellings of one destination are one item."
    ),
    bad=Example(policy='[limits]\nnetwork_allowlist = ["pypi.org:443", "*.example.com", "api.example.com:443"]\n'),
    good=Example(policy='[limits]\nnetwork_allowlist = ["pypi.org:443", "*.example.com"]\n'),
    fix="Removes the covered item.",
    check=_check,
)
