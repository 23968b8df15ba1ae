"""The live page: bounded curves, plots that are right, a page that asks for nothing, and what a run leaves."""

from __future__ import annotations

import io
import math
import re
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from curriculum.phase import Phase
from curriculum.telemetry import StepTelemetry
from curriculum.unit_cost import UnitCost
from flows.commands.status import show_status
from flows.reporting.live_data import LiveEvent, LiveReport, LiveTask, Recent
from flows.reporting.live_page import MAX_TASKS, render_live
from flows.reporting.series import Series
from flows.reporting.small_svg import Line, Scale, bar_plot, line_plot, spark_line
from flows.settings import RuntimeSettings
from flows.training.live_page import WRITE_SECONDS, LivePage, live_page
from flows.training.telemetry import RATE_SECONDS, InnerRate, buckets, recent
from storage.mlflow_client import query
from storage.workspace import Workspace

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def report() -> LiveReport:
    return LiveReport(
        run_name="short-0a1b",
        phase="short",
        summary="for <tests>",
        mode="asynchronous",
        outer_step=3,
        outer_steps=12,
        state="running",
        seconds=60.0,
        written=datetime(2026, 11, 28, 12, 0, tzinfo=UTC),
        curves={"meta_loss": Series.of([1, 2, 3], [3.0, 2.0, 1.5])},
        families={"mlp": Series.of([1, 2], [1.0, 2.0])},
        tasks={"000 <b>": LiveTask(label="<b>", family="mlp", curve=Series.of([1, 2], [1.0, 2.0]))},
        recent=Recent(outer_steps=3, staleness={0: 5, 7: 1}, max_staleness=5, num_units=6, num_stale=1),
        events=[LiveEvent(outer_step=2, when=datetime(2026, 11, 28, tzinfo=UTC), what="<i>")],
    )


@pytest.mark.parametrize("count", [3, 9, 10, 11, 100, 1_001])
def test_a_curve_is_bounded_and_its_points_are_means(count: int) -> None:
    series = Series(capacity=10)
    values = np.random.default_rng(0).normal(size=count)
    for step, value in enumerate(values, start=1):
        series.add(step, value)
    assert len(series.steps) < 10
    assert series.width == 1 or len(series.steps) >= 4
    whole = len(series.steps) * series.width
    assert whole + len(series.waiting) == count
    np.testing.assert_allclose(series.values, values[:whole].reshape(-1, series.width).mean(1), rtol=1e-12)
    assert series.steps == list(range(series.width, whole + 1, series.width))


def test_a_curve_leaves_out_what_is_not_finite_and_forgets() -> None:
    series = Series.of([1, 2, 3, 4], [1.0, math.nan, math.inf, 4.0])
    assert (series.steps, series.values) == ([1, 4], [1.0, 4.0])
    series.forget_after(3)
    assert (series.steps, series.last) == ([1], 1.0)
    assert Series().last is None
    assert Series.model_validate_json(series.model_dump_json()) == series


def test_a_smooth_curve_is_the_mean_around_each_value() -> None:
    values = list(np.random.default_rng(0).normal(size=40))
    smooth = Series.of(range(40), values).smooth()  # two on either side
    assert smooth[10] == pytest.approx(np.mean(values[8:13]))
    assert smooth[0] == pytest.approx(np.mean(values[:3]))
    assert Series.of([1, 2], [1.0, 2.0]).smooth() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-3.0, 17.0), (0.00012, 0.00013), (1e6, 3e6), (-1.0, 1.0)]
)
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    ticks = Scale(low, high, 0.0, 1.0).ticks
    assert 2 <= len(ticks) <= 6
    assert all(low <= tick <= high for tick in ticks)
    assert len({f"{tick / (ticks[1] - ticks[0]):.6f}"[-6:] for tick in ticks}) == 1


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1e4), (0.9, 1.3), (3.0, 40.0)])
def test_log_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = Scale(low, high, 0.0, 1.0, log=True).ticks
    assert 2 <= len(ticks) <= 6
    assert all(low <= tick <= high for tick in ticks)


def test_lines_are_where_their_values_are() -> None:
    up = Scale(1.0, 100.0, 100.0, 0.0, log=True)
    assert (up(1.0), up(10.0), up(100.0)) == (100.0, 50.0, 0.0)
    svg = line_plot([Line([0, 10], [0.0, 1.0])], title="a", limits=(0.0, 1.0))
    (points,) = re.findall(r'points="([^"]*)"', svg)
    assert points == "52.0,126.0 250.0,10.0"
    assert line_plot([Line([1], [-1.0])], title="a", log=True).count("no values yet") == 1
    assert "&lt;" in line_plot([], title="<")
    assert spark_line([], [], title="x") == ""
    for flat in ([5.0, 5.0], [0.0, 0.0], [1e-300, 1e300]):
        assert "nan" not in line_plot([Line([1, 2], flat)], title="flat")


def test_bars_that_are_too_old_stand_out() -> None:
    svg = bar_plot({0: 4, 6: 2}, title="x", bad_above=5)
    assert re.findall(r'class="b bad"><title>(.*?)<', svg) == ["6: 2"]
    heights = [float(height) for height in re.findall(r'height="([\d.]+)"', svg)]
    assert heights[0] == 2 * heights[1]
    assert "no values yet" in bar_plot({}, title="x")


def test_the_page_is_self_contained_and_escapes_what_others_wrote(report: LiveReport) -> None:
    page = render_live(report)
    assert '<meta http-equiv="refresh" content="5">' in page
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|<script|@import|url\(|<img|<link", page)
    assert not re.search('<b>&lt;|<td class="task"><b>|<i>', page)
    assert "&lt;b&gt;" in page
    assert "outer step 3 of 12" in page
    assert "keirin control short-0a1b --command pause" in page
    assert "--batch-size" in page


def test_a_page_at_its_end_stands_still(report: LiveReport) -> None:
    page = render_live(report.model_copy(update={"state": "complete", "mode": "synchronous"}))
    assert 'http-equiv="refresh"' not in page
    assert "keirin control" not in page
    assert "no values yet" in render_live(report.model_copy(update={"curves": {}, "recent": Recent()}))


def test_many_tasks_are_cut_and_said_to_be(report: LiveReport) -> None:
    tasks = {f"{n:03d} x": LiveTask(label="x", family="mlp") for n in range(MAX_TASKS + 7)}
    page = render_live(report.model_copy(update={"tasks": tasks}))
    assert page.count('class="task"') == MAX_TASKS
    assert "7 more are in MLflow" in page


def test_the_page_is_written_now_and_then_and_read_back(report: LiveReport, tmp_path: Path) -> None:
    now, said = [0.0], list[str]()
    page = LivePage(tmp_path / "live" / "a.html", said.append, clock=lambda: now[0])
    assert page.read() is None
    assert page.is_due
    page.write(report)
    assert not page.is_due
    now[0] = WRITE_SECONDS
    assert page.is_due
    assert page.read() == report
    assert sorted(path.name for path in page.path.parent.iterdir()) == ["a.html", "a.json"]
    broken = LivePage(tmp_path / "live" / "a.html" / "b.html", said.append)
    broken.write(report)
    broken.write(report)
    assert len(said) == 1
    assert "the live page cannot be written" in said[0]


def test_rate_over_the_latest_half_minute() -> None:
    rate = InnerRate(100.0, 5_000.0)
    assert math.isnan(rate.at(100.0, 6_000.0))
    assert rate.at(110.0, 7_000.0) == 200.0
    for second in range(111, 300):
        last = rate.at(float(second), 7_000.0 + 50.0 * (second - 110))
    assert last == pytest.approx(50.0)
    assert len(rate._seen) <= RATE_SECONDS + 2


def test_staleness_in_a_few_buckets() -> None:
    assert buckets({0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 8: 7, 9: 8, 16: 9, 17: 1}) == {
        "0": 1,
        "1": 2,
        "2": 3,
        "3-4": 9,
        "5-8": 13,
        "9-16": 17,
        "17-32": 1,
    }


def test_recent_steps_are_added_up() -> None:
    one = StepTelemetry(staleness={0: 2, 3: 1}, num_units=3, num_stale=1, cost=UnitCost(1.0, 2.0))
    both = recent(deque([one, one]), 2)
    assert both.staleness == {0: 4, 3: 2}
    assert (both.num_units, both.num_stale, both.compile_seconds, both.run_seconds) == (6, 2, 2.0, 4.0)


def test_a_run_leaves_its_page_and_every_value_in_mlflow(
    keirin: Callable[..., Any], tiny: tuple[Phase, ...], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by an error half-way and gone on with: one page, one record, counts that are true."""
    import flows.training.runner

    take, broken = flows.training.runner.PhaseTelemetry.take, [True]

    def failing(telemetry: Any, event: Any) -> None:
        take(telemetry, event)
        if event.outer_step == 3 and broken:
            broken.clear()
            raise OSError("for a test")

    monkeypatch.setattr(flows.training.runner.PhaseTelemetry, "take", failing)
    assert keirin("train", "--phase", "first", "--outer-steps", 6).code != 0
    (page,) = (workspace.reports / "live").glob("*.html")
    assert 'class="state failed"' in page.read_text()
    answer = keirin("train", "--phase", "first", "--outer-steps", 6)
    assert answer.code == 0
    assert f"live page: {page.as_uri()}" in answer.out
    report = LivePage(page, print).read()
    assert report is not None
    assert (report.state, report.outer_step) == ("complete", 6)
    assert report.curve("meta_loss").steps == [1, 2, 3, 4, 5, 6]
    assert [event.what for event in report.events] == ["continued from a checkpoint"]
    rows = query(workspace.mlflow_database, "SELECT key, step, value FROM metrics ORDER BY step")
    steps = {key: [step for name, step, _ in rows if name == key] for key, _, _ in rows}
    for name in ("meta_loss", "inner_steps_per_second", "tasks/000", "staleness/0", "gradient_cosine"):
        assert steps[name] == [1, 2, 3, 4, 5, 6]
    inner = [value for key, _, value in rows if key == "inner_steps"]
    assert inner == sorted(inner)
    assert inner[-1] == report.inner_steps
    assert page == live_page(workspace, report.run_name)
    console = Console(record=True, file=io.StringIO())
    show_status(RuntimeSettings(home=workspace.root), console)
    assert f"last: {page.as_uri()}" in console.export_text()
