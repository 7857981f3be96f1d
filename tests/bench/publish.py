"""Puts the last bench of running code before people: figures and picture into docs/, a table into README.md."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.latency import BURST_WORDS
from tests.bench.measuring import Unit, amount_words
from tests.bench.sandbox_runs import EGRESS

REPOSITORY = Path(__file__).parents[2]
MEASURED = REPOSITORY / "build" / "bench"
FIGURES = REPOSITORY / "docs" / "bench.json"
PICTURE = REPOSITORY / "docs" / "bench.png"
README = REPOSITORY / "README.md"
TABLE_BEGIN, TABLE_END = "<!-- begin: make bench-docs -->\n", "<!-- end -->\n"


def main() -> None:
    """Copy what `make bench` measured last."""
    source = MEASURED / "sandbox.json"
    if not source.exists():
        sys.exit("Nothing was measured yet: make bench")
    shutil.copyfile(source, FIGURES)
    shutil.copyfile(MEASURED / "sandbox.png", PICTURE)
    README.write_text(with_table(README.read_text(), figures_table(json.loads(FIGURES.read_text()))))


def figures_table(document: dict[str, Any]) -> str:
    """Everything that a goal was set for, bursts, and the network, in Markdown, and what it was measured on."""
    everything = [row for rows in document["sections"].values() for row in rows]
    rows = [row for row in everything if row.get("goal") or row["what"].startswith(BURST_WORDS)]
    lines = ["| | median | p99 | beside the same by hand | asked for |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    network = [row for row in document["sections"].get(EGRESS, ()) if "sample" in row]
    if network:
        lines += ["", "| the network | median | p99 | beside the same without, or direct |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(tuple(_cells(row))[:4])} |" for row in network]
    return "\n".join([*lines, "", f"{document['machine']}. Measured on {document['measured_on']}.", ""])


def with_table(readme: str, table: str) -> str:
    """The text with another table between its marks."""
    before, begin, rest = readme.partition(TABLE_BEGIN)
    _, end, after = rest.partition(TABLE_END)
    if not begin or not end:
        raise ValueError(f"the text has no {TABLE_BEGIN.strip()} … {TABLE_END.strip()}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def _cells(row: dict[str, Any]) -> Iterator[str]:
    sample, unit = row["sample"], Unit(row["sample"]["unit"])
    yield row["what"]
    yield amount_words(sample["median"], unit)
    yield amount_words(sample["p99"], unit) if unit is Unit.SECONDS else ""
    yield f"{row['ratio']:.2f} times" if row["ratio"] else ""
    yield f"{row['goal']}{'' if row['met'] else ' (missed)'}" if row["goal"] else ""


if __name__ == "__main__":
    main()
