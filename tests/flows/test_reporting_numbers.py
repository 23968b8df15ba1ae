"""The report's numbers, worked by hand, and the words for them: headline, terminal table, single values."""

from __future__ import annotations

import math

import pytest
from made_up_report import TASKS
from report_reading import console_text, read

from flows import reporting
from flows.reporting import PromotionReason, PromotionReport, ReportData, SpeedupReport
from flows.reporting.formatting import loss_text, percent_text, seconds_text, times_text
from flows.reporting.statistics import (
    SpeedupSummary,
    aggregate_speedup,
    headline_tasks,
    moving_trend,
    smoothing_window,
    summarize_speedup,
)


def summarized(of_mean: float, per_seed: tuple[float, ...] = (1.0,), num_diverged: int = 0) -> SpeedupSummary:
    found = SpeedupReport(
        optimizer="x", baseline="adam", of_mean=of_mean, per_seed=per_seed, num_diverged=num_diverged
    )
    return summarize_speedup(found, max_speedup=4.0)


def test_a_task_counts_with_its_mean_loss_and_the_cap_as_at_least() -> None:
    summary = summarized(2.0, (2.5, 0.0, 9.0))
    assert summary == (2.0, 0.0, 4.0, 3, 0, False)
    assert (summary.verdict, summary.text) == ("win", "2.00×")
    capped = summarized(4.0, (4.0, 8.0, 1.0))
    assert (capped.is_capped, capped.text) == (True, "≥ 4.00×")
    assert summarized(1.0).verdict == "even"
    assert summarized(0.99, (0.5, 3.0)).verdict == "loss"


def test_a_seed_that_diverged_is_said_to_have_and_nothing_else_is() -> None:
    lost = summarized(0.0, (0.0, 9.0), num_diverged=1)
    assert (lost.verdict, lost.text) == ("diverged", "diverged")
    flat = summarized(0.0, (0.0, 0.0))
    assert (flat.verdict, flat.text) == ("loss", "no better than the start")


def zero(data: ReportData, *, num_diverged: tuple[int, ...]) -> ReportData:
    """Returns the data with a speed-up of 0 on every task; on these, so many seeds diverged."""
    assert data.evaluation is not None
    tasks = []
    for task, lost in zip(data.evaluation.tasks, num_diverged, strict=True):
        nothing = {"of_mean": 0.0, "per_seed": (0.0,) * 3, "num_diverged": lost}
        speedups = tuple(found.model_copy(update=nothing) for found in task.speedups)
        tasks.append(task.model_copy(update={"speedups": speedups}))
    evaluation = data.evaluation.model_copy(update={"tasks": tuple(tasks)})
    return data.model_copy(update={"evaluation": evaluation})


@pytest.mark.parametrize(
    ("num_diverged", "said"),
    [
        ((0,) * 6, "Meta-trained pacer was no better than the start on most tasks"),
        ((1,) * 6, "Meta-trained pacer diverged on most tasks"),
        ((1, 0) * 3, "Meta-trained pacer diverged or was no better than the start on most tasks"),
    ],
)
def test_a_flat_curve_has_not_diverged(data: ReportData, num_diverged: tuple[int, ...], said: str) -> None:
    changed = zero(data, num_diverged=num_diverged)
    assert reporting.headline(changed).startswith(f"{said}. Median of 6")
    assert reporting.render_html(changed)
    rows = {row["task"]: row for row in reporting.task_rows(changed)}
    for (name, *_), lost in zip(TASKS, num_diverged, strict=True):
        word = "diverged" if lost else "no better than the start"
        assert rows[name]["speed-up over tuned Adam"] == word
        assert rows[name]["result"] == ("diverged" if lost else "loss")


def test_a_median_between_a_capped_and_an_uncapped_task_is_a_bound(data: ReportData) -> None:
    """4 (the cap) and 2.1: 3.05, or more."""
    assert data.evaluation is not None
    total = aggregate_speedup(data.evaluation, data.evaluation.tasks[:2], "pacer", "adam")
    assert total is not None
    assert (total.median, total.is_capped, total.text) == (pytest.approx(3.05), True, "≥ 3.05×")
    total = aggregate_speedup(data.evaluation, data.evaluation.tasks[:3], "pacer", "adam")
    assert total is not None
    assert (total.median, total.is_capped) == (2.1, False)


def test_aggregate_by_hand(data: ReportData) -> None:
    evaluation = data.evaluation
    assert evaluation is not None
    # By task: 4.0 (capped), 2.1, 1.3, 1.05, 0.62, 0 (a seed diverged); their median is (1.3 + 1.05) / 2.
    total = aggregate_speedup(evaluation, evaluation.tasks, "pacer", "adam")
    assert total is not None
    assert total.median == pytest.approx(1.175)
    assert (total.worst.value, total.best.value) == (0.0, 4.0)
    assert (total.worst.text, total.best.text) == ("diverged", "≥ 4.00×")
    assert (total.num_zero, total.num_diverged) == (1, 1)
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
    assert [row["result"] for row in rows] == ["win"] * 4 + ["loss", "diverged"]
    assert rows[0]["speed-up over tuned Adam"] == "≥ 4.00× 3.10 to ≥ 4.00×"
    assert all(isinstance(value, str) for row in rows for value in row.values())
    assert any(value.endswith(" seeds diverged)") for row in rows for value in row.values())


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
        (seconds_text(0.0), "0 s"),
        (seconds_text(4.12e-4), "412 µs"),
        (seconds_text(0.0012), "1.2 ms"),
        (seconds_text(8.44), "8.44 s"),
        (seconds_text(192.2), "3 min 12 s"),
        (seconds_text(7500.0), "2 h 05 min"),
        (seconds_text(None), "–"),
        (times_text(1.336), "1.34×"),
        (times_text(12.4), "12×"),
        (times_text(4.0, at_least=True), "≥ 4.00×"),
        (times_text(0.0), "no better than the start"),
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
