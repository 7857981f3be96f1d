"""SBP503: people are told no, and not why."""

import json
from collections.abc import Iterator

from policy.limits import Chooser
from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PlacedStatement, PolicyFile, Setup
from policy.statements import Verb


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    for placed in file.bounds.values():
        stated = placed.stated
        limit = stated.limit
        if placed.verb is not Verb.LOCK or stated.origin.reason or limit.chosen_by is not Chooser.PERSON:
            continue
        if not limit.kind.within(limit.built_in, stated.value):
            yield Found(path=placed.path, message=_message(placed), remedy=_remedy(placed))


def _message(placed: PlacedStatement) -> str:
    limit = placed.limit
    return (
        f"{limit.name} is locked to {limit.words(placed.value)}, less than the built-in {limit.words(limit.built_in)}, "
        "and gives people who meet that no reason"
    )


def _remedy(placed: PlacedStatement) -> str:
    if placed.path != placed.table:
        return 'Add a line such as reason = "shared host" to its table'
    native = json.dumps(placed.limit.kind.native(placed.value))
    return f'Write {placed.limit.name} = {{ lock = {native}, reason = "why" }}'


RULE = DocumentRule(
    id="SBP503",
    name="lock-without-reason",
    family=Family.HYGIENE,
    severity=Severity.NOTE,
    in_production=Severity.WARNING,
    summary="A lock takes something from people and does not tell them why.",
    rationale=(
        "Whoever sets a valve and gets less is shown the policy's `reason`; without one they ask, or look for a way "
        "around. It looks at locks of limits with a valve for people, where the policy permits less than what is built "
        "in: only there is somebody refused who otherwise would not be."
    ),
    bad=Example(policy="[limits]\nmax_file_megabytes = 0\n"),
    good=Example(policy='[limits]\nmax_file_megabytes = { lock = 0, reason = "files may hold customer data" }\n'),
    check=_check,
)
