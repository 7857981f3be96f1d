"""Lints texts, as `policy lint` lints files of one folder: for tests of rules."""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from policy.lint.base import paired
from policy.lint.environments import environment_of_text
from policy.lint.files import judged, policy_file
from policy.lint.findings import Finding
from policy.lint.fixing import with_fixes
from policy.lint.rule import Example
from policy.lint.run import linted
from policy.lint.subjects import PolicyFile, SetChange, Setup

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HEAD = {
    "schema": "1",
    "id": '"acme-prod"',
    "serial": "7",
    "issued_at": "2026-11-01T00:00:00Z",
    "expires_at": "2027-01-15T00:00:00Z",
    "audience": '["prod-eu"]',
    "description": '"Production"',
    "owner": '"ops@acme.example"',
}
LIMITS = "[limits]\nnetworking_allowed = false\n"


def written(fragment: str, **head: str) -> str:
    """A whole policy file: a fragment, before which stand the keys of a head that it lacks."""
    stated = set(re.findall(r"^([a-z_]+) *=", fragment.partition("\n[")[0], re.MULTILINE))
    if fragment.startswith("["):
        stated = set()
    keys = {name: value for name, value in {**HEAD, **head}.items() if name not in stated}
    lines = "".join(f"{name} = {value}\n" for name, value in keys.items())
    says_something = "limits" in fragment or "[[scope]]" in fragment
    return f"{lines}{fragment}{'' if says_something else LIMITS}"


def linted_files(files: Mapping[str, str], setup: Setup, base: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """What is found in these files of one folder, by name."""
    subjects = [policy_file(name, Path("policies") / name, text.encode()) for name, text in files.items()]
    change = _change(subjects, base) if base is not None else ()
    return linted([judged(subject, setup) for subject in subjects], change, setup).findings


def _change(new: list[PolicyFile], base: Mapping[str, str]) -> tuple[SetChange, ...]:
    old = [policy_file(name, Path("policies") / name, text.encode()) for name, text in base.items()]
    pairs = paired(old, new)
    changed = tuple(pair for pair in pairs if not pair.old or not pair.new or pair.old.text != pair.new.text)
    if not changed:
        return ()
    before, now = (tuple(each for each in side if each.reading) for side in (old, new))
    comparable = (len(before), len(now)) == (len(old), len(new))
    return (
        SetChange(
            folder="policies",
            base="main",
            changes=changed,
            old=before,
            new=now,
            comparable=comparable,
            doubtful=tuple(each.name for each in old if not each.reading),
        ),
    )


def findings(
    policy: str = "",
    *,
    other: str = "",
    base: str = "",
    environment: str = "",
    production: bool = False,
    setup: Setup | None = None,
) -> tuple[Finding, ...]:
    """What is found in texts: `policy` is acme.toml, `other` other.toml, `environment` prod.env."""
    chosen = setup or Setup(now=NOW)
    chosen = replace(chosen, production=production or chosen.production, compares=bool(base))
    if environment:
        chosen = replace(chosen, environment=environment_of_text("prod.env", environment.encode()))
    files = {name: text for name, text in (("acme.toml", policy), ("other.toml", other)) if text}
    return linted_files(files, chosen, {"acme.toml": base} if base else None)


def of_rule(rule: str, found: tuple[Finding, ...]) -> list[Finding]:
    """Those that one rule made and no comment takes out."""
    return [each for each in found if rule in (each.rule_id, each.rule_name) and each.suppressed is None]


def places(rule: str, policy: str = "", **more: str | bool) -> list[tuple[int, int, str]]:
    """Line, column and key of what one rule finds in texts."""
    found = of_rule(rule, findings(policy, **more))  # type: ignore[arg-type]
    return [(each.location.line, each.location.column, each.location.key) for each in found]


def fixed(policy: str) -> str:
    """The text after all fixes."""
    while True:
        after, _ = with_fixes(policy, [each.fix for each in findings(policy) if each.fix and not each.suppressed])
        if after == policy:
            return policy
        policy = after


def of_example(example: Example) -> tuple[Finding, ...]:
    """What is found in an example of a rule."""
    other_head = {"id": '"acme-other"'}
    whole = example.whole or not example.policy
    return findings(
        example.policy if whole else written(example.policy),
        other=written(example.other, **other_head) if example.other else "",
        base=written(example.base) if example.base else "",
        environment=example.environment,
        production=example.production,
    )
