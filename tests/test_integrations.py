"""Each way into CI, editors and shells works: what it is made of is valid, and run as far as it can be here.

GitHub and GitLab themselves are not here: their schemas judge the files, and bash runs the scripts in them with the
variables that they would set. pre-commit, check-jsonschema, Taplo and pip are the real ones; pip asks its index.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy.lint.registry import all_rules

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
INTERPRETER = Path(sys.executable).resolve()
"""The Python behind the environment that the tests run in: it has pip, where the environment has none."""
GUIDE = REPOSITORY / "docs" / "lint.md"
ACTION = REPOSITORY / "action.yml"
WORKFLOW = REPOSITORY / "examples" / "ci" / "github-workflow.yml"
GITLAB = REPOSITORY / "examples" / "ci" / "gitlab.yml"
EDITOR = REPOSITORY / "examples" / "editor" / ".taplo.toml"
BUILT_FROM = ("policy", "sandbox", "plugins", "pyproject.toml", "README.md", "LICENSE")
"""What of a clone an installation is made from."""
GITHUB_BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
"""Source: GitHub's workflow syntax, `jobs.<job_id>.steps[*].shell`."""
GITLAB_BASH = ("bash", "-eo", "pipefail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clone:
    """A repository that holds policies, one good and one bad."""

    path: Path
    environ: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return ran(*command, cwd=self.path, environ={**self.environ, **variables})

    def git(self, *arguments: str) -> str:
        done = self.run("git", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")


def ran(
    *command: str | Path, cwd: Path, environ: Mapping[str, str], text: str | None = None
) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=cwd, env=environ, input=text, capture_output=True, text=True, timeout=100, check=False
    )


def plain_environ() -> dict[str, str]:
    """This environment without what would change how the commands behave; git knows who commits."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "SANDBOX_", "PYTEST_"))}
    who = {f"GIT_{role}_{part}": "ops@acme.example" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    return {**kept, **who, "GIT_CONFIG_GLOBAL": os.devnull, "PATH": f"{BIN}:{os.environ['PATH']}", "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """This repository as somebody gets it who names its commit: what is here now, committed."""
    path = tmp_path_factory.mktemp("sandbox-lockdown")
    for name in (*BUILT_FROM, ".pre-commit-hooks.yaml", "action.yml", "requirements-run.lock"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, path / name)
    clone = Clone(path=path, environ=plain_environ())
    clone.git("init", "--quiet", "--initial-branch=main")
    clone.commit("everything")
    return clone


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """Somebody's repository: policies/good.toml, and pyproject.toml, which is no policy."""
    path = tmp_path / "clone"
    (path / "policies").mkdir(parents=True)
    made = Clone(path=path, environ=plain_environ())
    made.git("init", "--quiet", "--initial-branch=main")
    init = ("--profile", "production", "--audience", "prod-eu", "--owner", "ops@acme.example", "--id", "good")
    assert made.run(BIN / "policy", "init", *init, "--output", "policies/good.toml").returncode == 0
    (path / "pyproject.toml").write_text('[project]\nname = "no-policy"\n')
    made.commit("a policy")
    return made


def spoil(clone: Clone, name: str = "bad") -> Path:
    """A second policy with a misspelt key and a word where a number belongs."""
    good = (clone.path / "policies" / "good.toml").read_text()
    bad = good.replace('id = "good"', f'id = "{name}"').replace("ceiling = 60", 'ceiling = "sixty"')
    path = clone.path / "policies" / f"{name}.toml"
    path.write_text(bad.replace("\nowner = ", "\nonwer = "))
    assert path.read_text() not in {good, bad}
    return path


# pre-commit


@pytest.fixture(scope="module")
def hook_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pre-commit keeps what it installed, for all tests here."""
    return tmp_path_factory.mktemp("pre-commit")


def hooked(clone: Clone, checkout: Clone, **hook: object) -> None:
    """Set up the hook in that repository, as the guide shows it."""
    config = yaml.safe_load(shown_block("yaml"))
    (repo,) = config["repos"]
    repo |= {"repo": str(checkout.path), "rev": checkout.git("rev-parse", "HEAD")}
    repo["hooks"] = [{"id": repo["hooks"][0]["id"], **hook}]
    (clone.path / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))


def pre_commit(clone: Clone, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clone.git("add", "--all")
    return clone.run(BIN / "pre-commit", "run", "--verbose", *arguments, PRE_COMMIT_HOME=str(home))


def test_the_hook_passes_a_good_policy_and_looks_at_policies_only(
    clone: Clone, checkout: Clone, hook_home: Path
) -> None:
    hooked(clone, checkout)
    done = pre_commit(clone, hook_home, "--all-files")
    assert done.returncode == 0, done.stdout
    assert "Passed" in done.stdout


def test_the_hook_stops_a_bad_policy(clone: Clone, checkout: Clone, hook_home: Path) -> None:
    hooked(clone, checkout)
    spoil(clone)
    done = pre_commit(clone, hook_home)
    assert done.returncode == 1
    assert "exit code: 1" in done.stdout
    assert "policies/bad.toml" in done.stdout
    assert "pyproject.toml" not in done.stdout


def test_the_hook_with_the_arguments_that_the_guide_shows_takes_the_files_that_it_names(
    clone: Clone, checkout: Clone, hook_home: Path
) -> None:
    shown = yaml.safe_load(shown_block("yaml"))["repos"][0]["hooks"][0]
    hooked(clone, checkout, **shown)
    spoil(clone)
    assert "no files to check" in pre_commit(clone, hook_home, "--all-files").stdout
    clone.git("mv", "policies", "deploy-policies")
    (clone.path / "deploy").mkdir()
    clone.git("mv", "deploy-policies", "deploy/policies")
    assert "deploy/policies/bad.toml" in pre_commit(clone, hook_home, "--all-files").stdout


def test_the_hook_can_look_at_the_whole_folder(clone: Clone, checkout: Clone, hook_home: Path) -> None:
    hooked(clone, checkout, args=["policies"], pass_filenames=False)
    spoil(clone)
    clone.commit("a bad policy")
    good = clone.path / "policies" / "good.toml"
    good.write_text(f"{good.read_text()}# touched\n")
    done = pre_commit(clone, hook_home)
    assert (done.returncode, "policies/bad.toml" in done.stdout) == (1, True)


# GitHub


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnded:
    """How a step of the action ended."""

    code: int
    out: str
    err: str
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Runs the steps of the action as GitHub's runner does."""

    action: Path
    temp: Path

    def step(
        self, name: str, clone: Clone, inputs: Mapping[str, str], outputs: Mapping[str, str] | None = None
    ) -> StepEnded:
        step = next(step for step in action()["runs"]["steps"] if step["name"] == name)
        assert step["shell"] == "bash"
        assert inputs.keys() <= action()["inputs"].keys()
        known = {f"inputs.{key}": inputs.get(key, told["default"]) for key, told in action()["inputs"].items()}
        known |= {f"steps.{key}": value for key, value in (outputs or {}).items()}
        variables = {key: evaluated(value, known) for key, value in step["env"].items()}
        script, told = self.temp / "script.sh", self.temp / "output"
        script.write_text(step["run"])
        told.write_text("")
        own = {"GITHUB_ACTION_PATH": str(self.action), "RUNNER_TEMP": str(self.temp), "GITHUB_OUTPUT": str(told)}
        done = ran(*GITHUB_BASH, script, cwd=clone.path, environ={**clone.environ, **own, **variables})
        pairs = (line.partition("=") for line in told.read_text().splitlines())
        return StepEnded(
            code=done.returncode, out=done.stdout, err=done.stderr, outputs={key: value for key, _, value in pairs}
        )


def evaluated(text: str, known: Mapping[str, str]) -> str:
    """A value of `env`, of which this action's are one expression each."""
    found = re.fullmatch(r"\$\{\{ ([\w.-]+) \}\}", text)
    assert found, text
    return known[found[1]]


def action() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(ACTION.read_text())
    return read


@pytest.fixture(scope="module")
def runner(checkout: Clone, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A runner on which the action's installation is done."""
    made = Runner(action=checkout.path, temp=tmp_path_factory.mktemp("runner"))
    done = made.step("Install", checkout, {}, {"python.outputs.python-path": str(INTERPRETER)})
    assert done.code == 0, done.err
    return made


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        pytest.param("vendor.github-actions", ACTION, id="action"),
        pytest.param("vendor.github-workflows", WORKFLOW, id="workflow"),
        pytest.param("custom.github-workflows-require-timeout", WORKFLOW, id="workflow-timeouts"),
        pytest.param("vendor.gitlab-ci", GITLAB, id="gitlab"),
    ],
)
def test_each_file_for_ci_is_valid_by_its_schema(schema: str, file: Path, tmp_path: Path) -> None:
    done = ran(BIN / "check-jsonschema", "--builtin-schema", schema, file, cwd=tmp_path, environ=plain_environ())
    assert done.returncode == 0, done.stdout


def test_no_expression_stands_in_a_script() -> None:
    steps = [*action()["runs"]["steps"], *workflow_steps()]
    assert [step["run"] for step in steps if "${{" in step.get("run", "")] == []


def test_every_action_of_others_is_pinned_to_a_commit() -> None:
    used = [step["uses"] for step in [*action()["runs"]["steps"], *workflow_steps()] if "uses" in step]
    foreign = [use for use in used if not use.startswith("OWNER/")]
    assert len(foreign) == 3
    assert [use for use in foreign if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", use)] == []


def test_the_workflow_gives_the_action_inputs_that_it_has_and_takes_an_output_that_it_has() -> None:
    (step,) = [step for step in workflow_steps() if step.get("uses", "").startswith("OWNER/")]
    commented = re.findall(r"^ {10}# ([a-z-]+): ", WORKFLOW.read_text(), re.MULTILINE)
    assert commented
    assert {*step["with"], *commented} <= action()["inputs"].keys()
    taken = set(re.findall(rf"steps\.{step['id']}\.outputs\.([\w-]+)", WORKFLOW.read_text()))
    assert taken == action()["outputs"].keys()


def test_the_action_installs_what_it_runs_and_nothing_else(runner: Runner) -> None:
    done = ran(runner.temp / "policy-lint/bin/policy", "--version", cwd=runner.temp, environ=plain_environ())
    assert done.stdout.startswith("policy, version ")
    packages = runner.temp.glob("policy-lint/lib/python3*/site-packages/*.dist-info")
    installed = {path.name.partition("-")[0].replace("_", "-").lower() for path in packages}
    assert installed <= {"sandbox-lockdown", *locked("requirements-run.lock")}


def test_the_action_is_silent_about_good_policies(runner: Runner, clone: Clone) -> None:
    done = runner.step("Lint", clone, {"paths": "policies/good.toml"})
    assert (done.code, "::error" in done.out, done.outputs) == (0, False, {"sarif-file": "policy-lint.sarif"})
    assert sarif_results(clone.path / "policy-lint.sarif", "error") == []


def test_the_action_annotates_bad_policies_and_fails_with_the_code_of_the_lint(runner: Runner, clone: Clone) -> None:
    spoil(clone)
    done = runner.step("Lint", clone, {"sarif-file": "out.sarif"})
    assert (done.code, done.outputs) == (1, {"sarif-file": "out.sarif"})
    assert re.search(r"^::error .*file=policies/bad\.toml,", done.out, re.MULTILINE)
    assert sarif_results(clone.path / "out.sarif", "error")


def test_the_action_compares_with_the_base(runner: Runner, clone: Clone) -> None:
    base = clone.git("rev-parse", "HEAD")
    policy = clone.path / "policies" / "good.toml"
    policy.write_text(policy.read_text().replace("ceiling = 60", "ceiling = 600"))
    alone, compared = (runner.step("Lint", clone, {"base": given}) for given in ("", base))
    assert len(annotations(compared.out)) > len(annotations(alone.out))


def test_the_action_hands_on_every_input(runner: Runner, clone: Clone) -> None:
    (clone.path / "typo.env").write_text("SANDBOX_MAX_RUNTIME_SECOND=10\n")
    assert clone.run(BIN / "policy", "keygen", "ops").returncode == 0
    given = {"env-file": "typo.env", "keys": "ops.pub\n", "threshold": "1", "profile": "production"}
    done = runner.step("Lint", clone, {"paths": "\npolicies\n\n", **given})
    assert done.code == 1
    assert any("typo.env" in line for line in annotations(done.out))
    unread = [runner.step("Lint", clone, {name: "no-such-thing"}).code for name in given]
    assert unread == [2] * len(given)


@pytest.mark.parametrize("name", ["paths", "base", "env-file", "keys", "profile", "threshold", "fail-level"])
def test_an_input_never_becomes_shell(runner: Runner, clone: Clone, name: str) -> None:
    done = runner.step("Lint", clone, {name: "x$(touch pwned)`touch pwned`; touch pwned # --help"})
    assert (done.code, done.outputs) == (2, {})
    assert not (clone.path / "pwned").exists()


def test_what_the_action_installs_is_locked_as_everything_is() -> None:
    everything, run = (locked(name) for name in ("requirements.lock", "requirements-run.lock"))
    assert {name: pin for name, pin in run.items() if everything.get(name) != pin} == {}
    project = re.findall(r'^    "([a-z-]+)[><=]', project_part("dependencies"), re.MULTILINE)
    assert {*project, "hatchling"} <= run.keys()


# GitLab


def test_the_gitlab_job_writes_both_reports_and_fails_with_findings(clone: Clone) -> None:
    spoil(clone)
    done = gitlab_job(clone)
    assert done.returncode == 1
    assert "policies/bad.toml" in done.stdout
    quality = json.loads((clone.path / "gl-code-quality-report.json").read_text())
    assert {"policies/bad.toml"} <= {finding["location"]["path"] for finding in quality}
    assert ET.parse(clone.path / "policy-lint.xml").find(".//failure") is not None  # noqa: S314 -- our own file


def test_the_gitlab_job_passes_good_policies_in_a_merge_request(clone: Clone) -> None:
    done = gitlab_job(clone, CI_MERGE_REQUEST_DIFF_BASE_SHA=clone.git("rev-parse", "HEAD"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_gitlab_job_stops_at_once_where_nothing_can_be_read(clone: Clone) -> None:
    done = gitlab_job(clone, POLICY_LINT_PATHS="no-such-folder")
    assert done.returncode != 0
    assert not (clone.path / "gl-code-quality-report.json").exists()


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
def test_every_command_of_the_guide_runs(clone: Clone, command: str) -> None:
    prepare_for_the_guide(clone)
    done = clone.run("bash", "-c", command)
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


def prepare_for_the_guide(clone: Clone) -> None:
    """The files that the guide's commands speak of."""
    good = (clone.path / "policies" / "good.toml").read_text()
    (clone.path / "teams").mkdir()
    for name in ("acme-prod.toml", "acme-prod-7.toml", "teams/eu.toml"):
        (clone.path / name).write_text(good)
    (clone.path / "lockdown.env").write_text("SANDBOX_MAX_RUNTIME_SECONDS=10\n")
    assert clone.run(BIN / "policy", "keygen", "ops").returncode == 0


def shown_block(language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return str(block)


def shown_completion(shell: str) -> str:
    """The command that the guide has a shell evaluate."""
    found = re.search(rf"_POLICY_COMPLETE={shell}_source policy", GUIDE.read_text())
    assert found
    return found[0]


def with_schema(clone: Clone) -> None:
    schema = clone.run(BIN / "policy", "schema").stdout
    (clone.path / "policies" / "policy.schema.json").write_text(schema)


def workflow_steps() -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = yaml.safe_load(WORKFLOW.read_text())["jobs"]["lint"]["steps"]
    return steps


def gitlab_job(clone: Clone, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the job's script, with its variables unless others are given."""
    told = yaml.safe_load(GITLAB.read_text())
    job = told["policy-lint"]
    assert job["before_script"] == ['pip install --quiet "$POLICY_LINT_SOURCE"']
    script = "\n".join(job["script"])
    return clone.run(*GITLAB_BASH, "-c", script, **{**told["variables"], **job["variables"], **variables})


def sarif_results(path: Path, level: str) -> list[dict[str, Any]]:
    (run,) = json.loads(path.read_text())["runs"]
    return [result for result in run["results"] if result.get("level") == level]


def annotations(out: str) -> list[str]:
    return re.findall(r"^::(?:error|warning|notice) .*$", out, re.MULTILINE)


def locked(name: str) -> dict[str, tuple[str, ...]]:
    """The lines of each package in a lock: its version, its marker and its hashes."""
    text = re.sub(r"^ *#.*\n", "", (REPOSITORY / name).read_text(), flags=re.MULTILINE)
    blocks = re.findall(r"^(\S.*(?:\n +.*)*)", text, re.MULTILINE)
    return {block.partition("==")[0]: tuple(block.splitlines()) for block in blocks}


def project_part(name: str) -> str:
    return (REPOSITORY / "pyproject.toml").read_text().partition(f"\n{name} = [\n")[2].partition("\n]\n")[0]
