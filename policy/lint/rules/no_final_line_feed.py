"""SBP021: a file whose last line does not end."""

from collections.abc import Iterator

from policy.lint.findings import Edit, Fix, Found, Location, Severity
from policy.lint.rule import Example, Family, TextRule
from policy.lint.subjects import PolicyFile, Setup
from policy.signature_block import BEGIN_MARKER


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    text = file.text
    if not text or text.endswith("\n") or BEGIN_MARKER in file.untrusted:
        return
    column = len(text) - text.rfind("\n")
    yield Found(
        message="its last line does not end in a line feed, so policy sign refuses to sign it",
        remedy="End the last line with a line feed",
        location=Location(file=file.name, line=text.count("\n") + 1, column=column, end_column=column),
        # Of a file that is no valid policy the end may be missing.
        fix=_fix(text) if file.reading is not None else None,
    )


def _fix(text: str) -> Fix:
    return Fix(description="Add a line feed", edits=(Edit(start=len(text), end=len(text), text="\n"),))


RULE = TextRule(
    id="SBP021",
    name="no-final-line-feed",
    family=Family.SHAPE,
    severity=Severity.WARNING,
    summary="The last line of an unsigned file does not end in a line feed.",
    rationale=(
        "The block of signatures follows the text in lines of its own, so `policy sign` refuses such a file. A file "
        "that was cut off while it was copied ends like this too."
    ),
    bad=Example(policy="[limits]\nnetworking_allowed = false # the file ends here, with no line feed"),
    good=Example(policy="[limits]\nnetworking_allowed = false # a line feed follows\n"),
    fix="Adds the line feed to a valid policy.",
    check=_check,
)
