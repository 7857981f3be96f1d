"""SBP003: a file, or something in it, that is larger than any policy."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP003",
    name=Flaw.TOO_LARGE.value,
    flaw=Flaw.TOO_LARGE,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="The file is larger, deeper or has more keys than a policy may.",
    rationale=(
        "A policy has a few kilobytes. What is far larger is a mistake, or is meant to keep a server busy; it is "
        "refused before it is read."
    ),
    bad=Example(shell="head -c 70000 /dev/zero | tr '\\0' '#' >> acme.toml && policy lint acme.toml"),
    good=Example(shell="sed -i '/^####/d' acme.toml && policy lint acme.toml"),
    suppressible=Suppressible.NEVER,
)
