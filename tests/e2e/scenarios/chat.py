"""A chat in native mode calls the tool, and the person sees its result."""

from tests.e2e.stage import TOOL_ID, Stage, bash_message, python_message, run_python, run_tool

# Put together by the code, so that it can only come out of the box, never out of the question.
_PYTHON = "print('made-in-' + 'the-box')"
_BASH = "echo made-in-$((6 * 7))"
_PRINTED = "made-in-the-box"
# The first run may have to download gVisor.
_FIRST_RUN_SECONDS = 300.0


def play(stage: Stage) -> None:
    """2. A chat in native mode calls the tool and shows its result."""
    _stored(stage)
    _shown(stage)


def _stored(stage: Stage) -> None:
    stage.report.note("first run; a missing gVisor is installed now")
    python = run_tool(stage, python_message(_PYTHON), seconds=_FIRST_RUN_SECONDS)
    stage.report.check("the chat's Python call answers OK", python.status == "OK", python.result or python.chat_error)
    stage.report.check("the stored message holds what the code printed", _PRINTED in python.output, python.output)
    bash = run_tool(stage, bash_message(_BASH))
    stage.report.check("the chat's Bash call answers OK", bash.status == "OK", bash.result or bash.chat_error)
    stage.report.check("the stored message holds what the command printed", "made-in-42" in bash.output, bash.output)
    failing = run_python(stage, "raise SystemExit(3)")
    stage.report.check("code that fails is answered with ERROR", failing.status == "ERROR", failing.result)


def _shown(stage: Stage) -> None:
    page = stage.person_page
    page.ask(python_message(_PYTHON), tool_id=TOOL_ID)
    stage.report.check("the page shows that the tool has answered", page.shows("View Result"))
    stage.report.check("the page shows the model's reply to it", page.shows("The tool answered"))
    stage.report.check("the page shows how the run ended", page.shows("Python code executed successfully."))
    page.screenshot("chat-closed")
    before = page.occurrences(_PRINTED)
    page.open_tool_result()
    after = page.occurrences(_PRINTED)
    stage.report.check("'View Result', opened, shows what the code printed", after == before + 1, f"{before} → {after}")
    page.screenshot("chat-result")
