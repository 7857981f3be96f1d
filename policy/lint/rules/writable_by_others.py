"""SBP313: an unsigned policy that somebody else could have written."""

from collections.abc import Iterator
from pathlib import Path

from policy.errors import DocumentError
from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import Need, PolicyFile, Setup
from policy.trusted_files import UNSIGNED_POLICY_FILE, read_trusted


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    if file.signatures or file.path is None or not file.path.exists() or _checked_out(file.path):
        return
    try:
        read_trusted(file.path, UNSIGNED_POLICY_FILE)
    except DocumentError as error:
        problem = error.problems[0]
        yield Found(
            message=f"a server of this user would not believe it unsigned: {problem.origin}: {problem.reason}",
            remedy=f"{problem.remedy}, or sign the policy",
        )


def _checked_out(path: Path) -> bool:
    """Whether it lies in a checkout of git, whose modes and owners say nothing of what is shipped."""
    return any((folder / ".git").exists() for folder in path.absolute().parents)


RULE = DocumentRule(
    id="SBP313",
    name="writable-by-others",
    family=Family.TRUST,
    severity=Severity.WARNING,
    needs=Need.PRODUCTION,
    summary="Others than root and the user of the server can write an unsigned policy, or its folder.",
    rationale=(
        "Without a signature, where a file lies is all its proof: whoever can write it decides what holds. A server "
        "refuses it. Files in a checkout of git are passed over, since their modes are not shipped."
    ),
    bad=Example(
        shell="chmod 666 /etc/sandbox/policies/acme.toml\npolicy lint --profile production /etc/sandbox/policies"
    ),
    good=Example(
        shell="chmod 644 /etc/sandbox/policies/acme.toml\npolicy lint --profile production /etc/sandbox/policies"
    ),
    check=_check,
)
