"""The valves' forms tell people what is locked, and by what."""

from tests.e2e.stage import PLUGIN_NAME, TOOL_ID, Stage

_LOCKING = ("SANDBOX_NETWORKING_ALLOWED", "SANDBOX_MAX_RUNTIME_SECONDS")


def play(stage: Stage) -> None:
    """6. The valves' forms say what is locked."""
    administrators = stage.administrator_page.admin_valves(PLUGIN_NAME)
    stage.administrator_page.screenshot("valves-administrator")
    _check_form(stage, "the administrator's form", administrators)
    own = stage.person_page.person_valves(TOOL_ID)
    stage.person_page.screenshot("valves-person")
    _check_form(stage, "the person's form", own)
    stage.report.check("the person's form holds no administrator's valve", "Auto Install" not in own)


def _check_form(stage: Stage, whose: str, text: str) -> None:
    for variable in _LOCKING:
        line = next((line for line in text.splitlines() if variable in line), "")
        stage.report.check(f"{whose} says what {variable} locks", "locked" in line.lower(), line or text)
