"""What docs/lint.md shows works: its commands, pre-commit, editors, shells, and the comments that take findings out.

pre-commit and Taplo are the real ones, and pre-commit's pip asks its index.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from policy.lint.registry import all_rules
from tests.integrations.clones import BIN, GUIDE, REPOSITORY, Clone, copied, plain_environ, ran, shown_block, spoil

EDITOR = REPOSITORY / "examples" / "editor" / ".taplo.toml"


# pre-commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """pre-commit, and where it keeps what it installed."""

    home: Path
    pip_variables: Mapping[str, str]

    def run(self, clone: Clone, *arguments: str) -> subprocess.CompletedProcess[str]:
        clone.git("add", "--all")
        own = {"PRE_COMMIT_HOME": str(self.home), "PIP_NO_COMPILE": "1", **self.pip_variables}
        return clone.run(BIN / "pre-commit", "run", "--verbose", *arguments, **own)


@pytest.fixture(scope="module")
def hooks(pip_variables: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Hooks:
    """One for all tests here, so that the hook is installed once."""
    return Hooks(home=tmp_path_factory.mktemp("pre-commit"), pip_variables=pip_variables)


def hooked(clone: Clone, checkout: Clone, **hook: object) -> None:
    """Set up the hook in that repository, as the guide shows it."""
    config = yaml.safe_load(shown_block("yaml"))
    (repo,) = config["repos"]
    repo |= {"repo": str(checkout.path), "rev": checkout.git("rev-parse", "HEAD")}
    repo["hooks"] = [{"id": repo["hooks"][0]["id"], **hook}]
    (clone.path / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))


def test_the_hook_passes_a_good_policy_and_looks_at_policies_only(clone: Clone, checkout: Clone, hooks: Hooks) -> None:
    hooked(clone, checkout)
    done = hooks.run(clone, "--all-files")
    assert done.returncode == 0, done.stdout
    assert "Passed" in done.stdout


def test_the_hook_stops_a_bad_policy(clone: Clone, checkout: Clone, hooks: Hooks) -> None:
    hooked(clone, checkout)
    spoil(clone)
    done = hooks.run(clone)
    assert done.returncode == 1
    assert "exit code: 1" in done.stdout
    assert "policies/bad.toml" in done.stdout
    assert "pyproject.toml" not in done.stdout


def test_the_hook_with_the_arguments_that_the_guide_shows_takes_the_files_that_it_names(
    clone: Clone, checkout: Clone, hooks: Hooks
) -> None:
    shown = yaml.safe_load(shown_block("yaml"))["repos"][0]["hooks"][0]
    hooked(clone, checkout, **shown)
    spoil(clone)
    assert "no files to check" in hooks.run(clone, "--all-files").stdout
    clone.git("mv", "policies", "deploy-policies")
    (clone.path / "deploy").mkdir()
    clone.git("mv", "deploy-policies", "deploy/policies")
    assert "deploy/policies/bad.toml" in hooks.run(clone, "--all-files").stdout


def test_the_hook_can_look_at_the_whole_folder(clone: Clone, checkout: Clone, hooks: Hooks) -> None:
    hooked(clone, checkout, args=["policies"], pass_filenames=False)
    spoil(clone)
    clone.commit("a bad policy")
    good = clone.path / "policies" / "good.toml"
    good.write_text(f"{good.read_text()}# touched\n")
    done = hooks.run(clone)
    assert (done.returncode, "policies/bad.toml" in done.stdout) == (1, True)


# Editors


def test_taplo_passes_what_init_writes_beside_the_schema(clone: Clone) -> None:
    with_schema(clone)
    done = clone.run(BIN / "taplo", "lint", "policies/good.toml")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("says", ["'onwer' was unexpected", 'ceiling = "sixty"'])
def test_taplo_finds_what_is_misspelt_by_the_line_that_init_writes(clone: Clone, says: str) -> None:
    with_schema(clone)
    spoil(clone)
    done = clone.run(BIN / "taplo", "lint", "policies/bad.toml")
    assert (done.returncode, says in done.stderr) == (1, True)


def test_taplo_finds_it_by_the_example_of_its_settings_where_that_line_is_missing(clone: Clone) -> None:
    with_schema(clone)
    bad = spoil(clone)
    bad.write_text(bad.read_text().partition("\n")[2])
    assert clone.run(BIN / "taplo", "lint", "policies/bad.toml").returncode == 0
    shutil.copy(EDITOR, clone.path)
    done = clone.run(BIN / "taplo", "lint", "policies/bad.toml")
    assert (done.returncode, "'onwer' was unexpected" in done.stderr) == (1, True)
    assert clone.run(BIN / "taplo", "lint", "pyproject.toml").returncode == 0


# Shells


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("policy li", {"lint"}),
        ("policy lint --format s", {"sarif"}),
        ("policy lint --fail-level ", {"note", "warning", "error"}),
    ],
)
def test_bash_completes(typed: str, offered: set[str], tmp_path: Path) -> None:
    assert completed_by_bash(typed, tmp_path) == offered


def test_bash_completes_the_ids_of_rules(tmp_path: Path) -> None:
    assert completed_by_bash("policy lint --explain SBP", tmp_path) == {rule.id for rule in all_rules()}


def completed_by_bash(typed: str, folder: Path) -> set[str]:
    """What bash offers for the last word of what was typed, by the line that the guide shows."""
    script = f"""
        eval "$({shown_completion("bash")})"
        COMP_WORDS=({typed})
        [[ "{typed}" != *" " ]] || COMP_WORDS+=("")
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _policy_completion policy
        printf "%s\\n" "${{COMPREPLY[@]}}"
    """
    done = ran("bash", "-c", script, cwd=folder, environ=plain_environ())
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_are_given_a_script(shell: str, tmp_path: Path) -> None:
    done = ran("bash", "-c", shown_completion(shell), cwd=tmp_path, environ=plain_environ())
    assert (done.returncode, "policy" in done.stdout) == (0, True)


# The guide


def shown_commands() -> list[str]:
    """What the guide has people type, but for the lines that shells read when they start."""
    blocks = re.findall(r"^```console\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line.partition("  #")[0].rstrip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if "_COMPLETE=" not in line]


@pytest.mark.parametrize("command", [command for command in shown_commands() if "--host" not in command])
def test_every_command_of_the_guide_runs(clone_of_the_guide: Clone, tmp_path: Path, command: str) -> None:
    done = copied(clone_of_the_guide, tmp_path / "copy").run("bash", "-c", command)
    assert done.returncode in {0, 1}, done.stderr


@pytest.mark.gvisor
def test_the_command_of_the_guide_that_asks_the_host_runs(clone: Clone) -> None:
    (command,) = [command for command in shown_commands() if "--host" in command]
    done = clone.run("bash", "-c", command)
    assert done.returncode in {0, 1}, done.stderr


def test_every_rule_that_the_guide_names_exists() -> None:
    text = GUIDE.read_text()
    known = {rule.id for rule in all_rules()} | {rule.name for rule in all_rules()}
    named = set(re.findall(r"SBP\d+", text)) | {
        word.strip() for words in re.findall(r"ignore\[([^]]*)\]", text) for word in words.split(",")
    }
    assert named
    assert named <= known


def test_the_comments_that_the_guide_shows_take_findings_out(clone: Clone) -> None:
    head = (clone.path / "policies" / "good.toml").read_text().partition("\n[limits")[0]
    shown = re.sub(r"until=[0-9-]+", f"until={datetime.now(UTC) + timedelta(days=7):%Y-%m-%d}", shown_block("toml"))
    bare = re.sub(r" *# policy: .*", "", shown)
    with_comments, without = (rules_found(clone, f"{head}\n{text}") for text in (shown, bare))
    assert without - with_comments == {"SBP205", "SBP208"}
    assert with_comments <= without


def rules_found(clone: Clone, policy: str) -> set[str]:
    """The ids of the rules whose findings count in a policy file."""
    (clone.path / "one.toml").write_text(policy)
    clone.run(BIN / "policy", "lint", "--format", "sarif", "--output", "one.sarif", "one.toml")
    (run,) = json.loads((clone.path / "one.sarif").read_text())["runs"]
    return {result["ruleId"] for result in run["results"] if not result.get("suppressions")}


@pytest.fixture(scope="module")
def clone_of_the_guide(first_clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A repository with the files that the guide's commands speak of."""
    clone = copied(first_clone, tmp_path_factory.mktemp("guide") / "clone")
    good = (clone.path / "policies" / "good.toml").read_text()
    (clone.path / "teams").mkdir()
    for name in ("acme-prod.toml", "acme-prod-7.toml", "teams/eu.toml"):
        (clone.path / name).write_text(good)
    (clone.path / "lockdown.env").write_text("SANDBOX_MAX_RUNTIME_SECONDS=10\n")
    assert clone.run(BIN / "policy", "keygen", "ops").returncode == 0
    return clone


def shown_completion(shell: str) -> str:
    """The command that the guide has a shell evaluate."""
    found = re.search(rf"_POLICY_COMPLETE={shell}_source policy", GUIDE.read_text())
    assert found
    return found[0]


def with_schema(clone: Clone) -> None:
    """Lay beside its policies what `policy schema` prints; another test holds the two equal."""
    shutil.copy(REPOSITORY / "policy" / "policy.schema.json", clone.path / "policies")
