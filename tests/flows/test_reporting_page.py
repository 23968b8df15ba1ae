"""The report's page: it asks nothing of anyone, shows losses like wins, and survives what it is given."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import pytest
from report_reading import console_text, read

from flows import reporting
from flows.reporting import ReportData
from flows.reporting.comparison_plot import compared_tables, draw_comparison
from flows.reporting.head_to_head_plot import draw_head_to_head
from flows.reporting.themes import LIGHT, new_figure
from flows.reporting.views import worst_rows


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return reporting.render_html(data)


def test_page_refers_to_nothing_outside(page: str) -> None:
    collector = read(page)
    assert collector.references, "the plots use internal references"
    assert [r for r in collector.references if not r.startswith("#")] == []
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert "<script" not in page


def test_internal_references_resolve_and_identifiers_are_unique(page: str) -> None:
    collector = read(page)
    assert len(collector.ids) == len(set(collector.ids))
    wanted = {r[1:] for r in collector.references} | set(re.findall(r"url\(#([^)]*)\)", page))
    assert wanted <= set(collector.ids)


def test_page_has_no_fixed_plot_colours_left(page: str) -> None:
    """Every colour of a plot is a variable, or the dark page would have light remains."""
    svgs = "".join(re.findall(r"<figure.*?</figure>", page, flags=re.DOTALL))
    assert "var(--series-0)" in svgs
    assert re.findall(r"#[0-9a-f]{6}\b", svgs) == []


def test_losses_are_shown_as_clearly_as_wins(page: str) -> None:
    text = re.sub(r"\s+", " ", " ".join(read(page).text))
    assert "Faster than tuned Adam on 4 of 6" in text
    assert "Slower than tuned Adam on 2 of 6" in text
    for name in ("autoencoder-digits", "autoencoder-photos"):
        assert text.count(name) >= 3  # in the list, in the table, above its curve
    assert "1 of 3 seeds diverged" in text
    assert "at the edge of the grid" in text


def test_the_worst_half_has_a_section_of_its_own_worst_first_and_no_curve_is_drawn_twice(
    data: ReportData, page: str
) -> None:
    assert [row.name for row in worst_rows(data)] == ["autoencoder-photos", "autoencoder-digits", "deep-conv"]
    worst, others = page.split("Where it does worst")[1].split("The other learning curves")
    assert "of the 6 tasks that the headline is of" in worst
    assert data.evaluation is not None
    for task in data.evaluation.tasks:
        drawn = f"Learning curves on {task.name}"
        assert (drawn in worst, drawn in others) == (
            task.name in [row.name for row in worst_rows(data)],
            task.name not in [row.name for row in worst_rows(data)],
        )
        assert page.count(drawn) == 1


def test_what_the_page_says_first_is_the_result_with_its_intervals_and_its_picture(page: str) -> None:
    text = re.sub(r"\s+", " ", " ".join(read(page).text))
    assert (
        "Interquartile mean 1.50× 95 %: 1.35 to 1.65× with other seeds, 0.90 to ≥ 2.25× with other tasks"
        in text
    )
    assert "The same by the clock 0.80× 95 %: 0.72 to 0.88× with other seeds" in text
    assert "(6 tasks × 3 seeds)" in text
    order = [
        page.index(f'<section id="{name}">')
        for name in ("speed-up", "won-and-lost", "worst", "tables", "tasks")
    ]
    assert order == sorted(order)


def test_tables_with_baselines_have_a_picture_and_the_one_by_the_clock_has_none(
    data: ReportData, page: str
) -> None:
    assert data.evaluation is not None
    drawn = [table.title for table in compared_tables(data.evaluation)]
    assert drawn == ["One training per task", "The best of several"]
    for title in drawn:
        assert page.count(f"{title}: interquartile means") == 1
    assert "By the clock: interquartile means" not in page
    alone = data.evaluation.model_copy(update={"tables": data.evaluation.tables[2:], "head_to_head": ()})
    without = data.model_copy(update={"evaluation": alone})
    assert "interquartile means" not in reporting.render_html(without)
    assert [picture.name for picture in reporting.report_pictures(without)] == [
        "meta-training",
        "speedup-cdf",
        "learning-curves",
    ]
    for draw in (reporting.comparison_png, reporting.head_to_head_png):
        with pytest.raises(ValueError, match="keirin evaluate"):
            draw(without)


def test_a_row_s_place_in_the_picture_is_its_mean_and_what_is_not_known_points_there(
    data: ReportData,
) -> None:
    assert data.evaluation is not None
    single, several, _ = data.evaluation.tables
    figure, (axes, other) = new_figure(LIGHT, 6.0, 3.0, columns=2)
    draw_comparison(axes, data.evaluation, single, LIGHT)
    draw_comparison(other, data.evaluation, several, LIGHT)
    del figure
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "meta-trained pacer before training",
        "Adam, learning rate 0.01",
        "meta-trained pacer",
    ]
    assert axes.get_xlim() == other.get_xlim()
    marks = {np.asarray(line.get_ydata())[0]: line for line in axes.lines if line.get_marker() in ("o", "<")}
    assert [marks[place].get_marker() for place in range(3)] == ["<", "o", "o"]
    assert [np.asarray(marks[place].get_xdata())[0] for place in (1, 2)] == [0.5, 1.5]
    assert np.asarray(marks[0].get_xdata())[0] == axes.get_xlim()[0]
    at_least = [np.asarray(line.get_xdata())[0] for line in other.lines if line.get_marker() == ">"]
    assert at_least == pytest.approx([2.25, 1.1 * 2.4, 2.4])


def test_head_to_head_has_a_picture_and_its_strongest_opponent_on_top(data: ReportData, page: str) -> None:
    assert data.evaluation is not None
    assert page.count("Head to head: how often meta-trained pacer ends lower") >= 1
    figure, (axes,) = new_figure(LIGHT, 6.0, 3.0)
    draw_head_to_head(axes, data.evaluation, LIGHT)
    del figure
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["meta-trained pacer before training", "best of all baselines"]
    dots = {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"}
    never, mostly = data.evaluation.head_to_head
    assert dots == {0: mostly.probability, 1: never.probability}
    assert never.probability == 0.0
    assert 0.5 < mostly.probability < 1.0
    assert {tuple(line.get_xdata()) for line in axes.lines} >= {mostly.over_seeds, mostly.over_tasks}


def test_page_escapes_what_it_is_given(data: ReportData) -> None:
    hostile = '<img src="http://example.invalid/x.png" onerror="alert(1)">'
    page = reporting.render_html(data.model_copy(update={"title": hostile, "command": hostile}))
    assert "<img" not in page
    assert "&lt;img" in page


def test_hostile_task_names_do_not_break_plots(data: ReportData) -> None:
    assert data.evaluation is not None
    task = data.evaluation.tasks[0].model_copy(update={"name": 'a<b> & $x_{1$ "c"'})
    changed = data.evaluation.model_copy(update={"tasks": (task,)})
    page = reporting.render_html(data.model_copy(update={"evaluation": changed}))
    read(page)
    assert "<b> &" not in page


def test_a_curve_that_diverges_from_far_above_leaves_room_for_the_others(data: ReportData) -> None:
    """Its cross is at the top of the plot: at its own height it would leave the plot no height at all."""
    assert data.evaluation is not None
    task = data.evaluation.tasks[0]
    curve = task.curves[0]
    points = (curve.mean[0], *(1e30 for _ in curve.mean[2:]), float("nan"))
    far = curve.model_copy(update={"mean": points, "low": points, "high": points})
    tasks = (task.model_copy(update={"curves": (far, *task.curves[1:])}), *data.evaluation.tasks[1:])
    changed = data.model_copy(update={"evaluation": data.evaluation.model_copy(update={"tasks": tasks})})
    assert reporting.learning_curves_png(changed).startswith(b"\x89PNG")  # a warning would be an error


def test_an_empty_report_says_what_to_run(data: ReportData) -> None:
    empty = ReportData(created=data.created, machine=data.machine)
    text = " ".join(read(reporting.render_html(empty)).text)
    for command in ("keirin evaluate", "keirin train", "keirin fit", "keirin promote"):
        assert command in text
    assert "keirin evaluate" in console_text(empty)
    assert reporting.summary_lines(empty) == []
    assert reporting.report_pictures(empty) == []
    assert reporting.task_rows(empty) == []
    with pytest.raises(ValueError, match="keirin evaluate"):
        reporting.speedup_cdf_png(empty)


def test_the_page_and_its_evaluation_have_each_their_day(data: ReportData) -> None:
    when = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    dated = data.model_copy(update={"machine": data.machine.model_copy(update={"when": when})})
    text = " ".join(read(reporting.render_html(dated)).text)
    assert f"{data.created:%Y-%m-%d %H:%M} UTC, evaluated on 2026-01-02 03:04 UTC" in text
    assert "evaluated on" not in " ".join(read(reporting.render_html(data)).text)


def test_a_track_has_every_percentile_by_name_on_the_page(data: ReportData) -> None:
    points = tuple(
        reporting.TrackPoint(
            outer_step=step,
            percentiles=tuple((p, 0.0 if p == 5 else speed * p / 50) for p in (5, 10, 50, 90)),
            interquartile_mean=speed,
            low=0.9 * speed,
            high=1.1 * speed,
            num_diverged=1,
        )
        for step, speed in ((10, 1.0), (20, 2.0))
    )
    track = reporting.TrackReport(
        run="short-1", set_name="wide", horizon=50, num_tasks=6, num_seeds=3, max_speedup=5.0, points=points
    )
    page = reporting.render_html(
        data.model_copy(update={"tracks": (track, track.model_copy(update={"points": ()}))})
    )
    assert page.count("Evaluation during short-1") == 1
    assert "wide: 6 tasks, 3 seeds, 50 inner steps; 2 checkpoints" in page
    for name in ("5 %", "10 %", "50 %", "90 %", "middle half"):
        assert f">{name}<" in page
    assert "no more can be seen" not in page  # nothing rests on the cap
    capped = track.model_copy(
        update={"points": tuple(p.model_copy(update={"bounds": ("90",)}) for p in points)}
    )
    assert "no more can be seen" in reporting.render_html(data.model_copy(update={"tracks": (capped,)}))
    assert [point.text("90", 5.0) for point in (points[0], capped.points[0])] == ["5.00×", "≥ 5.00×"]
    one_seed = tuple(p.model_copy(update={"low": None, "high": None}) for p in points)
    assert reporting.track_png(track.model_copy(update={"points": one_seed})).startswith(b"\x89PNG")
    assert reporting.track_png(track).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="keirin follow"):
        reporting.track_png(track.model_copy(update={"points": ()}))
