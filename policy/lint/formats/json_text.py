"""JSON that every reader takes, whatever a file name or a value holds.

It is ASCII in one line, so no control or bidirectional character and no terminal's encoding plays a part. What is no
character at all (a byte of a file name that is not UTF-8) is written as its escape in plain sight: strict readers
refuse half of a surrogate pair.
"""

import json
import re

from policy.lint.report import LOG_COMMAND

LONGEST_EXCERPT = 1000
"""Characters of a line that a report for programs repeats: one long line can hold thousands of findings."""

# Left to right, so that an escaped backslash is never taken for the beginning of an escape.
_ESCAPES = re.compile(r"(\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})|\\(?=ud[89a-f])")


def json_text(value: object) -> str:
    """The value as one line of JSON."""
    text = json.dumps(value, separators=(",", ":"))
    if "\\ud" in text:
        text = _ESCAPES.sub(lambda found: found[1] or r"\\", text)
    if "##" in text:  # such a report may go to a pipeline's log
        text = LOG_COMMAND.sub(r"\1\\u005b", text)
    return text + "\n"
