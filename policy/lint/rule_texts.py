"""A rule as people read it: in a terminal, in reports, and in `docs/lint-rules.md`.

Run as a program it prints that page: `python -m policy.lint.rule_texts > docs/lint-rules.md`.
"""

import textwrap
from collections.abc import Iterator

from policy.lint.registry import all_rules
from policy.lint.report import RuleFacts
from policy.lint.rule import Example, Family, Rule, Suppressible

_SECURITY_FAMILIES = frozenset({Family.INSECURE, Family.TRUST, Family.ENVIRONMENT, Family.HOST})
_TERMINAL_WIDTH = 88
_INTRO = """\
# The rules of `policy lint`

Made from the rules themselves by `make docs`; a test holds it equal. `policy lint --explain RULE` shows one of them,
by id or name. How to use the linter is told in [lint.md](lint.md).

The severity is that of a plain run; `--profile production` raises some. A rule that says "needs" looks only where the
run was given that option. A comment takes a finding out where the rule says so:
`# policy: ignore[SBP207] reason="GPU tests" until=2027-01-31`.
"""


def rule_facts(rule: Rule) -> RuleFacts:
    """What reports say of a rule."""
    return RuleFacts(
        id=rule.id,
        name=rule.name,
        severity=rule.severity,
        summary=rule.summary,
        rationale=rule.rationale,
        help="\n\n".join(_examples(rule)),
        family=rule.family.value,
        security=rule.family in _SECURITY_FAMILIES,
        suppressible=rule.suppressible is not Suppressible.NEVER,
    )


def rule_text(rule: Rule) -> str:
    """A rule as a terminal shows it: the section of the page, which is plain enough to be read as it is."""
    return "\n\n".join((f"{rule.id} {rule.name}", *map(_wrapped, _body(rule)))) + "\n"


def _wrapped(block: str) -> str:
    """A paragraph in lines that fit a terminal; an example stays as it is."""
    return block if block.startswith("```") else textwrap.fill(block, _TERMINAL_WIDTH, break_on_hyphens=False)


def rules_page() -> str:
    """The page with all rules."""
    return "\n".join((_INTRO, *_contents(), "", *_sections()))


def _contents() -> Iterator[str]:
    yield "| rule | severity | what it finds |"
    yield "|---|---|---|"
    for rule in all_rules():
        anchor = f"{rule.id}-{rule.name}".lower()
        yield f"| [{rule.id} {rule.name}](#{anchor}) | {_severity(rule)} | {rule.summary} |"


def _severity(rule: Rule) -> str:
    if rule.in_production and rule.in_production is not rule.severity:
        return f"{rule.severity.value}, {rule.in_production.value} in production"
    return rule.severity.value


def _sections() -> Iterator[str]:
    for rule in all_rules():
        yield "\n\n".join((f"## {rule.id} {rule.name}", *_body(rule))) + "\n"


def _body(rule: Rule) -> Iterator[str]:
    yield rule.summary
    yield f"**Why.** {rule.rationale}"
    facts = [f"Family: {rule.family.value}", f"severity: {_severity(rule)}"]
    if rule.needs:
        facts.append(f"needs `{rule.needs.value}`")
    facts.append(f"a comment can take it out: {rule.suppressible.value}")
    yield f"{'; '.join(facts)}."
    yield from _examples(rule)
    if rule.fix:
        yield f"**`--fix`** {rule.fix}"


def _examples(rule: Rule) -> Iterator[str]:
    yield "**Found in**"
    yield from _blocks(rule.bad)
    yield "**Put right**"
    yield from _blocks(rule.good)


def _blocks(example: Example) -> Iterator[str]:
    for language, text, title in (
        ("toml", example.base, "# before"),
        ("toml", example.policy, "# now" if example.base else ""),
        ("toml", example.other, "# another file of the same folder"),
        ("sh", example.environment, "# --env-file"),
        ("sh", example.shell, ""),
    ):
        if text:
            lines = f"{title}\n{text}" if title else text
            yield f"```{language}\n{lines.rstrip()}\n```"


if __name__ == "__main__":
    print(rules_page(), end="")  # noqa: T201 -- a page on standard output is what it is for
