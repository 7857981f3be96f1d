"""What the bench works out of what it measured, and that README.md shows the figures of docs/bench.json."""

import json
from typing import Any

import pytest

from tests.bench.measuring import Row, Sample, Unit, against, amount_words, counted, sample_of
from tests.bench.publish import FIGURES, README, TABLE_BEGIN, TABLE_END, figures_table, with_table


def row_of(median: float, what: str = "ours") -> Row:
    return Row(what=what, sample=Sample(calls=3, median=median, p99=median * 2))


def test_sample_has_median_and_99th_percentile() -> None:
    assert sample_of([*range(101)]) == Sample(calls=101, median=50, p99=99, unit=Unit.SECONDS)


def test_ratio_is_that_of_the_medians() -> None:
    row = against(row_of(0.3), row_of(0.2, "theirs"))

    assert row.reference == "theirs"
    assert row.ratio == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("amount", "unit", "words"),
    [
        (1.234, Unit.SECONDS, "1.23 s"),
        (0.01234, Unit.SECONDS, "12.3 ms"),
        (0.0000123, Unit.SECONDS, "12.3 µs"),
        (3 << 19, Unit.BYTES, "1.5 MiB"),
        (6.789, Unit.RUNS_A_SECOND, "6.79 runs/s"),
    ],
)
def test_amount_is_told_with_its_unit(amount: float, unit: Unit, words: str) -> None:
    assert amount_words(amount, unit) == words


def test_counting_tells_what_it_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert [*counted("Cold runs", 3)] == [0, 1, 2]
    assert capsys.readouterr().err == "Cold runs: 3 turns…\n"


def document_of(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"machine": "2 cores", "measured_on": "2026-11-23", "sections": {"Latency": rows}}


def json_row(*, met: bool) -> dict[str, Any]:
    sample = {"calls": 3, "median": 0.3, "p99": 0.5, "unit": "s"}
    return {"what": "cold run", "sample": sample, "ratio": 1.2, "goal": "at most 1.10 times", "met": met}


def test_table_holds_what_was_asked_for_and_names_what_was_missed() -> None:
    reference, skipped = json_row(met=True) | {"goal": "", "ratio": None}, {"what": "a peer", "reason": "absent"}

    table = figures_table(document_of(json_row(met=True), json_row(met=False), reference, skipped))

    assert table.splitlines()[2:] == [
        "| cold run | 300 ms | 500 ms | 1.20 times | at most 1.10 times |",
        "| cold run | 300 ms | 500 ms | 1.20 times | at most 1.10 times (missed) |",
        "",
        "2 cores. Measured on 2026-11-23.",
    ]


def test_table_goes_between_the_marks_and_nothing_else_changes() -> None:
    text = f"before\n{TABLE_BEGIN}old{TABLE_END}after\n"

    assert with_table(text, "new\n") == f"before\n{TABLE_BEGIN}\nnew\n\n{TABLE_END}after\n"


def test_text_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="begin"):
        with_table("before\nafter\n", "new")


def test_readme_shows_the_figures_that_were_measured() -> None:
    readme = README.read_text()

    assert with_table(readme, figures_table(json.loads(FIGURES.read_text()))) == readme
