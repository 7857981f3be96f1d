"""SBP208: internals that people in chats may see."""

from collections.abc import Iterator

from policy.limits import DEBUG
from policy.lint.findings import Found, Severity
from policy.lint.openings import loose_statements
from policy.lint.rule import Example, Family, SetRule, Suppressible
from policy.lint.subjects import PolicySet, Setup


def _check(policy_set: PolicySet, setup: Setup) -> Iterator[Found]:
    for said in loose_statements(DEBUG, policy_set, setup):
        yield Found(
            message=f"the {said.verb.value} of debug is true, so chats may show the sandbox's internals",
            remedy="Write debug = false; `sandbox run --json` shows a run's record to whoever is on the server",
            location=said.place.location,
        )


RULE = SetRule(
    id="SBP208",
    name="debug-on",
    family=Family.INSECURE,
    severity=Severity.WARNING,
    in_production=Severity.ERROR,
    summary="Internals of the sandbox may be shown to people.",
    rationale=(
        "A chat then shows each run's record, gVisor's version and gVisor's own words, paths of the server among them. "
        "That helps whoever looks for a way out of the box, and anybody who is shown the chat."
    ),
    bad=Example(policy="[limits]\ndebug = true\n"),
    good=Example(policy="[limits]\ndebug = false\n"),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
