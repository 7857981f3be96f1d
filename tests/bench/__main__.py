"""Runs every measurement. Rows go to the terminal and, as JSON, to build/bench/."""

from pathlib import Path

from tests.bench.lint import lint_rows
from tests.bench.measuring import told
from tests.bench.policy_core import policy_rows
from tests.bench.sandbox_runs import sandbox_bench

RESULTS = Path(__file__).parents[2] / "build" / "bench"


def main() -> None:
    """Measure, print and write."""
    told("The policy core", policy_rows(), RESULTS / "policy.json")
    told("The linter", lint_rows(), RESULTS / "lint.json")
    sandbox_bench(RESULTS)


if __name__ == "__main__":
    main()
