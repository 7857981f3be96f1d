"""Makes output fit to be shown: without what a terminal or a page would obey instead of showing.

Source: ECMA-48 (escape sequences); Unicode Standard Annex 9 (bidirectional controls).
"""

import re

_ESCAPE_SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    # A string that nothing ends is shown: output must not vanish because of two stray bytes in it. It holds none of
    # what could begin another, so that no character is looked at once for each beginning before it.
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])(?:[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\\\|\x9c))?"
    "|\x1b[ -/]*[0-~]"
)
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def cleaned(untrusted_output: str) -> str:
    """Output without escape sequences, control characters and bidirectional controls; line ends become LF."""
    text = _ESCAPE_SEQUENCE.sub("", untrusted_output)
    return _UNSEEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
