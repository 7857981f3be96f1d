"""The layers: who may import whom, as the contracts in `pyproject.toml` say, and that a breach does not go unseen."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT_IMPORTS), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in ("policy", "sandbox", "plugins"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_layers_of_this_checkout_keep_all_contracts() -> None:
    result = lint(ROOT)

    assert result.returncode == 0, result.stdout
    assert "Contracts: 3 kept, 0 broken." in result.stdout


@pytest.mark.parametrize(
    ("module", "breach"),
    [
        ("policy/values.py", "import sandbox.errors"),
        ("policy/values.py", "import plugins.blocks"),
        ("sandbox/outcome.py", "import plugins.blocks"),
        ("sandbox/runner.py", "import policy.load"),
        ("sandbox/spec.py", "import policy.environment"),
        ("sandbox/gvisor.py", "import policy.keys"),
        ("sandbox/slots.py", "import policy.main"),
        ("sandbox/doctor.py", "import sandbox.session"),
    ],
    ids=lambda value: value.removeprefix("import "),
)
def test_import_against_the_layers_is_found(copy: Path, module: str, breach: str) -> None:
    path = copy / module
    path.write_text(f"{path.read_text()}\n{breach}\n")

    result = lint(copy)

    assert result.returncode == 1
    assert "1 broken" in result.stdout


def test_new_module_of_sandbox_is_no_edge_unasked(copy: Path) -> None:
    (copy / "sandbox/newcomer.py").write_text("import policy.settings\n")

    assert lint(copy).returncode == 1
