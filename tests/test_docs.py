"""The documents say what the code does: variables, commands, tables, links, quoted output and messages.

To renew a table in docs/setup.md, copy it from the failed assertion.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from policy.environment import FOREIGN_NAMES
from policy.limits import LIMITS
from policy.main import cli as policy_cli
from policy.refusals import RefusalCode
from policy.settings import SETTINGS, Setting
from sandbox.main import cli as sandbox_cli
from sandbox.probes import PROBES

REPOSITORY = Path(__file__).parents[1]
SETUP = REPOSITORY / "docs" / "setup.md"
POLICIES = REPOSITORY / "docs" / "policies.md"
DOCUMENTS = tuple(
    path
    for pattern in ("README.md", "SECURITY.md", "CHANGELOG.md", "docs/*.md", "examples/*.md")
    for path in sorted(REPOSITORY.glob(pattern))
)
SELF_TEST = REPOSITORY / "plugins" / "generated" / "tools" / "run_code.py"

PLACEHOLDERS = {"SANDBOX_NAME", "SANDBOX_NAME__CEILING", "SANDBOX_NAME__DEFAULT"}
"""What stands in the documents for the variable of any limit."""
COMMANDS: dict[str, click.Group] = {"policy": policy_cli, "sandbox": sandbox_cli}
NEVER_CLAIMED = (
    "nobody in open webui can loosen",
    "tamper-proof",
    "rollback-proof",
    "threshold means people",
    "all code execution is sandboxed",
    "the box sees nothing of the host",
    "exfiltration is impossible",
    "works without root with all limits",
)
GVISOR_SAYS = ("fork/exec /proc/self/exe: no space left on device",)
"""gVisor's own words that were seen, but that no test here can bring about without changing the host."""

EachDocument = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))


@EachDocument
def test_every_variable_named_is_known(document: Path) -> None:
    if document.name == "lint-rules.md":
        return  # its examples are of names that are not
    named = set(re.findall(r"(?<![A-Z_])SANDBOX_[A-Z0-9_]*[A-Z0-9](?!_?\*)", document.read_text()))
    assert named - known_variables() - PLACEHOLDERS - FOREIGN_NAMES == set()


@EachDocument
def test_every_command_shown_parses(document: Path) -> None:
    problems = [problem for command in shown_commands(document.read_text()) for problem in problems_of(command)]
    assert problems == []


@EachDocument
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", without_fences(document.read_text()))
    broken = [target for target in targets if "://" not in target and not leads_somewhere(document, target)]
    assert broken == []


@EachDocument
def test_nothing_is_claimed_that_must_not_be(document: Path) -> None:
    text = " ".join(document.read_text().lower().split())
    assert [claim for claim in NEVER_CLAIMED if claim in text] == []


def test_the_table_of_valves_is_the_table_of_limits() -> None:
    assert marked_part("valves") == valves_table()


def test_the_table_of_settings_is_that_of_the_code() -> None:
    assert marked_part("settings") == settings_table()


def test_the_table_of_refusals_is_that_of_the_code() -> None:
    rows = [(f"`{code.code}`", code.meaning) for code in RefusalCode]
    assert marked_part("refusals", POLICIES) == table(("code", "what it says"), rows)


def test_every_command_is_in_the_readme() -> None:
    named = set(re.findall(r"^\| `((?:policy|sandbox) [a-z-]+)", (REPOSITORY / "README.md").read_text(), re.MULTILINE))
    listed = {
        f"{name} {command}" for name, group in COMMANDS.items() for command in group.list_commands(click.Context(group))
    }
    assert named == listed


def test_every_message_under_troubleshooting_is_one_that_occurs() -> None:
    folders = ("policy", "sandbox", "plugins", "tests/containers")
    sources = [path.read_text() for folder in folders for path in sorted((REPOSITORY / folder).glob("*.py"))]
    said = [*GVISOR_SAYS, *sources]
    unheard = [message for message in troubles() if not any(message in text for text in said)]
    assert unheard == []


@pytest.mark.parametrize("error", ["NO_MAPPING", "NO_SETUID", "NO_SYS_CHROOT", "NO_PIVOT_ROOT"])
def test_the_errors_that_make_containers_provokes_are_quoted(error: str) -> None:
    script = (REPOSITORY / "tests" / "containers" / "test_setup.py").read_text()
    found = re.search(rf'^{error} = "(.*)"$', script, re.MULTILINE)
    assert found is not None
    assert f"`{found[1]}`" in SETUP.read_text()


def test_the_doctor_proves_what_the_page_shows() -> None:
    shown = re.findall(r"^\w+ +ok +proved: (.*)$", SETUP.read_text(), re.MULTILINE)
    assert shown == [probe.shows for probe in PROBES]


@pytest.mark.gvisor
def test_a_good_self_test_prints_what_the_page_shows() -> None:
    command = [sys.executable, str(SELF_TEST), "--use-sample-code"]
    _, said = (  # the first proves this host, if nothing has since it booted, and says so
        subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout.splitlines()
        for _ in range(2)
    )
    shown = re.findall(r"^Event: .*$", SETUP.read_text(), re.MULTILINE)
    assert [line for line in said[:-1] if "Auto-installing" not in line] == shown
    assert said[-1].startswith('{"status": "OK", "output": "Hello from the sandbox!\\nCurrent date and time: ')


def test_a_misspelt_option_in_a_document_is_noticed() -> None:
    assert list(problems_of(["policy", "verify", "--keys", "ops.pub"])) == ["policy verify has no --keys"]
    assert list(problems_of(["sandbox", "doctors"])) == ["sandbox has no command doctors"]
    assert list(problems_of(["policy", "audit", "verfy", "runs.jsonl"])) == ["policy audit has no command verfy"]


def known_variables() -> set[str]:
    limits = {f"{limit.variable}{suffix}" for limit in LIMITS for suffix in ("", "__CEILING", "__DEFAULT")}
    return limits | {setting.variable for setting in SETTINGS}


def valves_table() -> str:
    """The table of limits as administrators read it."""
    rows = [
        (
            f"`{limit.valve}`",
            limit.description,
            limit.kind.grammar,
            limit.words(limit.built_in),
            limit.chosen_by.value,
            limit.words(limit.lockdown),
        )
        for limit in LIMITS
    ]
    return table(("valve", "what", "expected", "built-in", "valve of", "lockdown"), rows)


def settings_table() -> str:
    """The table of settings."""
    rows = [
        (f"`{setting.variable}`", setting.description, setting.grammar, default_words(setting)) for setting in SETTINGS
    ]
    return table(("variable", "what", "expected", "unset means"), rows)


def default_words(setting: Setting[Any]) -> str:
    match setting.default:
        case bool(value):
            return str(value).lower()
        case int(value) | str(value):
            return str(value)
        case timedelta() if setting.default < timedelta(hours=1):
            return f"{setting.default // timedelta(seconds=1)}s"
        case timedelta():
            return f"{setting.default // timedelta(hours=1)}h"
        case _:
            return "none"


def table(heading: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(markdown, row))} |".replace("|  |", "| |") for row in rows)])


def markdown(cell: str) -> str:
    """Text in which Markdown finds no markup but code."""
    parts = re.split(r"(`[^`]*`)", cell)
    return "".join(
        part if part.startswith("`") else re.sub(r"([|*])", r"\\\1", part.replace("<", "&lt;")) for part in parts
    )


def marked_part(name: str, document: Path = SETUP) -> str:
    found = re.search(rf"^<!-- {name} -->\n(.*?)\n?<!-- /{name} -->$", document.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{document} has no part marked {name}"
    return found[1]


def shown_commands(text: str) -> Iterator[list[str]]:
    """The commands of ours in code blocks and in code inside lines, as words."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    typed = [line for block in blocks for line in typed_lines(block)]
    for line in [*typed, *re.findall(r"`([^`\n]+)`", without_fences(text))]:
        for part in line.split("|"):
            words = words_of(part)
            if len(words) > 1 and words[0] in COMMANDS and re.fullmatch(r"[a-z-]+", words[1]):
                yield words


def typed_lines(block: str) -> list[str]:
    """What one types: the lines behind a prompt where there are any, since the others are output then."""
    prompted = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    return prompted or block.splitlines()


def words_of(command: str) -> list[str]:
    """The words of a command behind its variables; none where it is no shell."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return []
    variables = 0
    while variables < len(words) and re.fullmatch(r"[A-Z_]+=\S*", words[variables]):
        variables += 1
    return words[variables:]


def problems_of(command: list[str]) -> Iterator[str]:
    group, name, *arguments = command
    if name.startswith("-"):
        return
    found = subcommand(COMMANDS[group], name)
    if isinstance(found, click.Group) and arguments:
        group, name = f"{group} {name}", arguments.pop(0)
        found = subcommand(found, name)
    if found is None:
        yield f"{group} has no command {name}"
        return
    options = {option for parameter in found.params for option in parameter.opts} | {"--help", "-h"}
    for argument in arguments:
        option = argument.partition("=")[0]
        if option.startswith("--") and option not in options:
            yield f"{group} {name} has no {option}"


def subcommand(group: click.Group, name: str) -> click.Command | None:
    return group.get_command(click.Context(group), name)


def leads_somewhere(document: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = (document.parent / name).resolve() if name else document
    return path.exists() and (not anchor or anchor in anchors_of(path))


def anchors_of(path: Path) -> set[str]:
    """The anchors that Markdown's hosts make of headings."""
    headings = re.findall(r"^#+ (.*)$", without_fences(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def troubles() -> list[str]:
    """The first column of the table under Troubleshooting."""
    part = SETUP.read_text().partition("\n## Troubleshooting\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE)
