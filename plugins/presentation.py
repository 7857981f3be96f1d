"""What people and models see of a run: cleaned output, and results as JSON or as Markdown.

Output is untrusted. Control and bidirectional characters are removed; in a chat it stands in a fence longer than any
inside, so no link, image or markup of it comes to life.

Source: CommonMark 0.31 (fences).
"""

import json
import re
from typing import Any

from policy.errors import PolicyError, listed
from sandbox.cleaning import cleaned
from sandbox.errors import SandboxError
from sandbox.outcome import Outcome, RunResult

STATUS_WORDS = {
    Outcome.OK: "OK",
    Outcome.ERROR: "ERROR",
    Outcome.TIMED_OUT: "TIMEOUT",
    Outcome.OUT_OF_MEMORY: "OUT_OF_MEMORY",
    Outcome.TOO_MANY_PROCESSES: "TOO_MANY_PROCESSES",
    Outcome.KILLED: "KILLED",
    Outcome.GVISOR_FAILED: "GVISOR_FAILED",
}
REFUSED_STATUS = "REFUSED"
MOST_SHOWN_PROBLEMS = 3
"""Problems of a refused policy set that stand in a chat; `policy status` has them all."""
_MARKDOWN = re.compile(
    r"[]\\`*{}#|~$^!<>&@]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|(?<=:)//|(?i:(?<=www))\.|^[-+=]|^[0-9]+[.)]|(?<=\\)\["
)


def fenced(text: str) -> str:
    """Text in a Markdown code fence that nothing in the text can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def escaped_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line, without links, images or markup.

    Open WebUI's page takes a backslash before an opening bracket for the beginning of a formula, and shows entities as
    they are spelt. So there are no entities here, and of brackets only the closing square one is escaped: a link, an
    image or a citation needs it.
    """
    return _MARKDOWN.sub(_escaped_mark, " ".join(cleaned(text).split()))


def _escaped_mark(found: re.Match[str]) -> str:
    if found[0] == "[":  # the text's own backslash before it: kept apart by a word joiner, which nobody sees
        return "\u2060["
    return re.sub(r"(?=[!-/:-@\[-`{-~])", r"\\", found[0])


def shown_output(result: RunResult) -> str:
    """The run's output for people, with a mark where it was cut."""
    mark = f"\n[output cut after {result.output_limit_kilobytes} kilobytes]" if result.truncated else ""
    return cleaned(result.output) + mark


def end_json(end: RunResult | PolicyError | SandboxError) -> dict[str, Any]:
    """A run, or why there was none, for a model; a non-empty `error` is what Open WebUI shows as failed."""
    if not isinstance(end, RunResult):
        return {"status": REFUSED_STATUS, "output": "", "error": refusal_sentence(end)}
    told: dict[str, Any] = {"status": STATUS_WORDS[end.outcome], "output": shown_output(end)}
    if end.outcome is not Outcome.OK:
        told |= {"error": end.sentence, "exit_code": end.exit_code}
    if end.truncated:
        told["truncated"] = True
    if end.notices:
        told["notices"] = [cleaned(notice) for notice in end.notices]
    if end.unenforced:
        told["unenforced"] = list(end.unenforced)
    if end.debug_allowed:
        told["debug"] = end.record()
    return told


def refusal_sentence(error: PolicyError | SandboxError) -> str:
    """Why a run did not happen, and what to do, for the person."""
    if isinstance(error, SandboxError):
        return f"The code was not run. {cleaned(str(error))}"
    shown = " ".join(str(problem) for problem in listed(error.problems, MOST_SHOWN_PROBLEMS))
    return f"The code was not run. {cleaned(shown)}"


def end_markdown(end: RunResult | PolicyError | SandboxError, heading: str) -> str:
    """A run, or why there was none, as it stands in a chat below the message that held its code.

    Args:
        end: how it ended.
        heading: which code it was, already safe as Markdown.
    """
    if not isinstance(end, RunResult):
        return f"**{heading}** {escaped_markdown(refusal_sentence(end))}"
    output = shown_output(end)
    parts = [f"**{heading}** {end.sentence}", fenced(output) if output.strip() else "*It printed nothing.*"]
    remarks = list(end.notices)
    if end.unenforced:
        remarks.append(f"Not enforced on this host: {', '.join(end.unenforced)}.")
    parts += [f"> {escaped_markdown(remark)}" for remark in remarks]
    return "\n\n".join(parts)


def json_text(value: dict[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(value, ensure_ascii=False)
