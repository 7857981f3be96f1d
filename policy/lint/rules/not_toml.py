"""SBP001: a file that cannot be read as TOML."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP001",
    name=Flaw.NOT_TOML.value,
    flaw=Flaw.NOT_TOML,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="The file is not TOML.",
    rationale=(
        "Nothing in it can be trusted to mean what it seems to, so nothing of it is used: a server refuses the file."
    ),
    bad=Example(policy="[limits]\nnetworking_allowed = False\n"),
    good=Example(policy="[limits]\nnetworking_allowed = false\n"),
    suppressible=Suppressible.NEVER,
)
