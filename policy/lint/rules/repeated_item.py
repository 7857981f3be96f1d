"""SBP015: an item that its list holds already."""

from dataclasses import replace

from policy.errors import Flaw
from policy.lint.findings import Edit, Fix, Found, Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible
from policy.lint.spans import removal_span
from policy.lint.subjects import PolicyFile


def _fixed(file: PolicyFile, found: Found) -> Found:
    positions = file.located
    span = removal_span(file.text, positions, found.path) if positions else None
    if span is None:
        return found
    edit = Edit(start=span.start, end=span.end, text="")
    return replace(found, fix=Fix(description="Remove the repeated item", edits=(edit,)))


RULE = FlawRule(
    id="SBP015",
    name=Flaw.REPEATED_ITEM.value,
    flaw=Flaw.REPEATED_ITEM,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="A list holds the same item twice.",
    rationale=(
        "One of the two was meant to be something else, or is a leftover that survives when the other one is taken "
        "out. A server refuses the file."
    ),
    bad=Example(policy='audience = ["prod-eu", "prod-us", "prod-eu"]\n'),
    good=Example(policy='audience = ["prod-eu", "prod-us"]\n'),
    fix="Removes the repeated item.",
    suppressible=Suppressible.NEVER,
    fixed=_fixed,
)
