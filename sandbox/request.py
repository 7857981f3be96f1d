"""What is asked of a runner: one frozen request, checked before anything is started."""

import hashlib
import re
from dataclasses import dataclass

from policy.effective import EffectiveLimits
from policy.limits import LANGUAGES
from sandbox.errors import SandboxError

MAX_CODE_BYTES = 1 << 20
"""1 MiB: far more than anybody writes into a chat."""
LANGUAGE_NAMES = {"python": "Python", "bash": "Bash"}
"""The languages that a box can start, with their names for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Code to run, and the limits it runs under."""

    language: str
    """`python` or `bash`."""
    code: str
    """The person's text."""
    limits: EffectiveLimits
    """What policy decided for this request."""
    person: str
    """Whose run it is; counts runs at once, and tells administrators who runs what. Never used as a name."""
    surface: str | None = None
    """`tool` or `function`; `None` where it came from neither."""
    processes_hard_stop: int | None = None
    """Processes of the host that the whole box may have, in place of what follows from the limits; for probes alone."""

    def __post_init__(self) -> None:
        """Refuse what no box could run, or what the limits do not permit."""
        if self.language not in LANGUAGE_NAMES:
            known = ", ".join(LANGUAGE_NAMES)
            raise SandboxError(
                key="language",
                origin="request",
                reason=f"{_shown(self.language)} cannot run here",
                remedy=f"Use {known}",
            )
        if self.language not in self.limits[LANGUAGES]:
            allowed = LANGUAGES.words(self.limits[LANGUAGES])
            raise SandboxError(
                key=LANGUAGES.name,
                origin=self.limits.origin_of(LANGUAGES),
                reason=f"{self.language} is not among the permitted languages ({allowed})",
                remedy="Use a permitted language, or ask the administrator",
            )
        problem = _code_problem(self.code)
        if problem:
            raise SandboxError(key="code", origin="request", reason=problem[0], remedy=problem[1])

    @property
    def code_bytes(self) -> bytes:
        """The code as it is handed to the interpreter."""
        return self.code.encode()

    @property
    def code_sha256(self) -> str:
        """SHA-256 of the code, in hexadecimal: what records hold in its place."""
        return hashlib.sha256(self.code_bytes).hexdigest()


def _code_problem(code: str) -> tuple[str, str] | None:
    """Why this text cannot be handed to an interpreter, and what to do; `None` where it can."""
    if "\x00" in code:
        line = code.count("\n", 0, code.index("\x00")) + 1
        return f"it holds a NUL character in line {line}", "Remove the character"
    try:
        size = len(code.encode())
    except UnicodeEncodeError:
        return "it holds half a surrogate pair, which is no text", "Remove the character"
    if size > MAX_CODE_BYTES:
        return f"it has {size} bytes, more than {MAX_CODE_BYTES}", "Shorten it; data belongs elsewhere than in code"
    return None


def _shown(untrusted: str) -> str:
    longest = 40
    return repr(re.sub(r"[^ -~]", "?", untrusted[:longest]))
