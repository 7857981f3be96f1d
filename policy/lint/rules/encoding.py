"""SBP002: bytes that editors and readers take differently."""

import re
from dataclasses import replace

from policy.errors import Flaw
from policy.lint.findings import Edit, Fix, Found, Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible
from policy.lint.subjects import PolicyFile
from policy.signature_block import BEGIN_MARKER, END_MARKER

_BYTE_ORDER_MARK = "\ufeff"
_REMOVABLE = re.compile("\\A\ufeff|\r(?=\n)")


def _fixed(file: PolicyFile, found: Found) -> Found:
    if BEGIN_MARKER in file.untrusted or END_MARKER in file.untrusted:
        return found  # its signatures are of other bytes than those that it would have then
    try:
        text = file.untrusted.decode("utf-8")
    except UnicodeDecodeError:
        return found
    edits = tuple(Edit(start=each.start(), end=each.end(), text="") for each in _REMOVABLE.finditer(text))
    foreign = text.count("\r") + text.count(_BYTE_ORDER_MARK) + text.count("\0")
    if len(edits) < foreign:
        return found
    return replace(found, fix=Fix(description="End lines in LF alone, without byte order mark", edits=edits))


RULE = FlawRule(
    id="SBP002",
    name=Flaw.ENCODING.value,
    flaw=Flaw.ENCODING,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="The file is not UTF-8, or holds carriage returns, NUL bytes or a byte order mark.",
    rationale=(
        "Programs disagree about such bytes, so a reviewer could see another text than a server reads, and a "
        "signature covers bytes and not what they look like. A server refuses the file."
    ),
    bad=Example(shell="sed -i 's/$/\\r/' acme.toml && policy lint acme.toml"),
    good=Example(shell="sed -i 's/\\r$//' acme.toml && policy lint acme.toml"),
    fix=(
        "Ends lines in LF alone and removes the byte order mark, in an unsigned file of which nothing else is wrong "
        "with its bytes."
    ),
    suppressible=Suppressible.NEVER,
    fixed=_fixed,
)
