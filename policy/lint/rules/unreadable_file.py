"""SBP022: a file that cannot be read."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP022",
    name=Flaw.UNREADABLE_FILE.value,
    flaw=Flaw.UNREADABLE_FILE,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="A file that was named cannot be read, or is none.",
    rationale=(
        "Nothing is known of what it says, so no report may look as if all were well; the exit code is 2 then, "
        "whatever the fail level. A server that loads the folder refuses the whole set."
    ),
    bad=Example(shell="ln -s prod.toml prod.toml\npolicy lint prod.toml\n"),
    good=Example(shell="policy init --profile single-user --output prod.toml\npolicy lint prod.toml\n"),
    suppressible=Suppressible.NEVER,
)
