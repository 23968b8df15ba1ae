"""The report's numbers, worked by hand, and the words for them: headline, terminal table, single values."""

from __future__ import annotations

import math

import pytest
from made_up_report import TASKS
from report_reading import console_text, read

from flows import reporting
from flows.reporting import PromotionReason, PromotionReport, ReportData
from flows.reporting.formatting import loss_text, percent_text, seconds_text, times_text
from flows.reporting.statistics import (
    aggregate_speedup,
    headline_tasks,
    moving_trend,
    smoothing_window,
    summarize_speedup,
)


def test_diverged_seeds_count_as_zero_and_the_cap_as_at_least() -> None:
    summary = summarize_speedup((2.0, math.nan, 9.0), max_speedup=4.0)
    assert summary == (2.0, 0.0, 4.0, 3, 1, False)
    assert summary.verdict == "win"
    assert summarize_speedup((0.0, math.nan, 9.0), max_speedup=4.0).verdict == "diverged"
    assert summarize_speedup((4.0, 8.0, 1.0), max_speedup=4.0).is_capped
    assert summarize_speedup((1.0,), max_speedup=4.0).verdict == "even"
    assert summarize_speedup((0.99, 0.5, 3.0), max_speedup=4.0).verdict == "loss"


def test_aggregate_by_hand(data: ReportData) -> None:
    evaluation = data.evaluation
    assert evaluation is not None
    # Medians over seeds: 4.0 (capped), 2.1, 1.3, 1.05, 0.62, 0.31; their median is (1.3 + 1.05) / 2.
    total = aggregate_speedup(evaluation, evaluation.tasks, "pacer", "adam")
    assert total is not None
    assert total.median == pytest.approx(1.175)
    assert (total.worst, total.best) == (0.31, 4.0)
    assert (total.num_wins, total.num_losses, total.num_tasks, total.num_seeds) == (4, 2, 6, 3)
    assert aggregate_speedup(evaluation, evaluation.tasks, "adam", "pacer") is None


def test_headline_speaks_of_held_out_tasks_only(data: ReportData) -> None:
    assert reporting.headline(data) == (
        "Tuned Adam needs 1.18× as many steps as meta-trained pacer. "
        "Median of 6 held-out tasks, 3 seeds each; won 4, lost 2. "
        "Over tuned cosine AdamW: 0.81×, won 2, lost 4."
    )
    assert data.evaluation is not None
    easy = data.evaluation.tasks[0].model_copy(update={"name": "familiar", "held_out": False})
    evaluation = data.evaluation.model_copy(update={"tasks": (*data.evaluation.tasks, easy)})
    mixed = data.model_copy(update={"evaluation": evaluation})
    assert len(headline_tasks(evaluation)) == 6
    assert reporting.headline(mixed) == reporting.headline(data)
    text = " ".join(read(reporting.render_html(mixed)).text)
    assert "Tasks of its own distribution" in text


def test_terminal_table_has_every_task_and_reads_without_colour(data: ReportData) -> None:
    text = console_text(data)
    for name, *_ in TASKS:
        assert name in text
    assert text.count("▲") >= 4
    assert "≥ 4.00×" in text
    assert "after 600 steps: 6 tasks, 3 seeds" in text
    assert text.index("wide-mlp") < text.index("autoencoder-photos")  # best first


def test_summary_lines_name_place_and_command(data: ReportData) -> None:
    lines = reporting.summary_lines(data)
    assert len(lines) == 3
    assert lines[1].split("→")[1].strip() == "keirin status"
    assert len({line.index("→") for line in lines}) == 1


def test_result_lines_give_the_reasons_of_a_refusal(data: ReportData) -> None:
    refused = PromotionReport(
        promoted=False, reasons=(PromotionReason(text="slower than the champion.", passed=False),)
    )
    lines = reporting.result_lines(data.model_copy(update={"promotion": refused}))
    assert lines[1] == "Not promoted: slower than the champion."


def test_task_rows_are_flat_text(data: ReportData) -> None:
    rows = reporting.task_rows(data)
    assert [row["result"] for row in rows] == ["win"] * 4 + ["loss"] * 2
    assert rows[0]["speed-up over tuned Adam"] == "≥ 4.00× 3.10 to ≥ 4.00×"
    assert all(isinstance(value, str) for row in rows for value in row.values())


def test_moving_trend_by_hand() -> None:
    # Inside a full window the line's middle is the mean; at an end two points are the line itself.
    assert moving_trend([1.0, 6.0, 2.0], 3) == pytest.approx([1.0, 3.0, 2.0])
    assert moving_trend([8.0, 6.0, 4.0, 2.0], 3) == pytest.approx([8.0, 6.0, 4.0, 2.0])
    assert moving_trend([1.0, math.nan, 3.0], 3) == pytest.approx([1.0, 2.0, 3.0])
    assert math.isnan(moving_trend([math.nan], 3)[0])
    assert (smoothing_window(90), smoothing_window(2)) == (11, 3)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (seconds_text(4.12e-4), "412 µs"),
        (seconds_text(0.0012), "1.2 ms"),
        (seconds_text(8.44), "8.44 s"),
        (seconds_text(192.2), "3 min 12 s"),
        (seconds_text(7500.0), "2 h 05 min"),
        (seconds_text(None), "–"),
        (times_text(1.336), "1.34×"),
        (times_text(12.4), "12×"),
        (times_text(4.0, at_least=True), "≥ 4.00×"),
        (times_text(0.0), "diverged"),
        (times_text(math.nan), "diverged"),
        (loss_text(0.012345), "0.0123"),
        (loss_text(0.11), "0.110"),
        (loss_text(-123.4), "−123"),
        (loss_text(math.inf), "diverged"),
        (percent_text(0.161), "16\u202f%"),
        (percent_text(0.034), "3.4\u202f%"),
    ],
)
def test_numbers_as_text(text: str, wanted: str) -> None:
    assert text == wanted
