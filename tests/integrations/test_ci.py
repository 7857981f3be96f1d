"""The GitHub Action, its workflow and the GitLab job: valid, and run as far as they can be here.

GitHub and GitLab themselves are not here: their schemas judge the files, and bash runs the scripts in them with the
variables that they would set. check-jsonschema and pip are the real ones; pip asks its index.
"""

import json
import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integrations.clones import BIN, INTERPRETER, REPOSITORY, Clone, plain_environ, ran, spoil

ACTION = REPOSITORY / "action.yml"
WORKFLOW = REPOSITORY / "examples" / "ci" / "github-workflow.yml"
GITLAB = REPOSITORY / "examples" / "ci" / "gitlab.yml"
GITHUB_BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
"""Source: GitHub's workflow syntax, `jobs.<job_id>.steps[*].shell`."""
GITLAB_BASH = ("bash", "-eo", "pipefail")


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
def runner(checkout: Clone, pip_variables: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A runner on which the action's installation is done."""
    made = Runner(action=checkout.path, temp=tmp_path_factory.mktemp("runner"))
    job = replace(checkout, environ={**checkout.environ, **pip_variables})
    done = made.step("Install", job, {}, {"python.outputs.python-path": str(INTERPRETER)})
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


def test_an_input_never_becomes_shell(runner: Runner, clone: Clone) -> None:
    names = action()["inputs"].keys() - {"python-version"}  # which the step does not know
    done = runner.step("Lint", clone, dict.fromkeys(names, "x$(touch pwned)`touch pwned`; touch pwned # --help"))
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
