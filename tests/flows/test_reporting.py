"""The report: honest numbers, a page that asks nothing of anyone, and pictures that are pictures."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from pydantic import ValidationError
from rich.console import Console

from flows import reporting
from flows.report_data import collect
from flows.reporting import (
    AcceptedTasks,
    EvaluationReport,
    FamilyErrors,
    Location,
    MachineReport,
    OptimizerCurve,
    OptimizerInfo,
    PhaseReport,
    PromotionReason,
    PromotionReport,
    ReportData,
    RuntimeModelReport,
    SpeedupReport,
    StageReport,
    TaskReport,
    TimingPoint,
    TunedSetting,
    ValidationPoint,
)
from flows.reporting.formatting import loss_text, percent_text, seconds_text, times_text
from flows.reporting.statistics import (
    aggregate_speedup,
    headline_tasks,
    moving_trend,
    smoothing_window,
    summarize_speedup,
)
from flows.reporting.views import worst_rows
from storage.workspace import Workspace

HORIZON = 600
MAX_SPEEDUP = 4.0
OPTIMIZERS = (
    OptimizerInfo(name="pacer", label="meta-trained pacer", role="candidate"),
    OptimizerInfo(name="pacer-init", label="untrained pacer (θ₀)", role="initialisation"),
    OptimizerInfo(name="adam", label="tuned Adam", role="baseline"),
    OptimizerInfo(name="adamw", label="tuned cosine AdamW", role="baseline"),
)
# name, label, why, speed-ups over Adam of three seeds, over cosine AdamW
TASKS = (
    (
        "wide-mlp",
        "mlp 1×144 · digits 8px · batch 64",
        "144 units; the mixture has at most 128",
        (4.0, 4.0, 3.1),
        (1.4, 1.5, 1.2),
    ),
    (
        "deep-mlp",
        "mlp 5×48 · digits 8px · batch 64",
        "5 layers; the mixture has at most 4",
        (1.9, 2.3, 2.1),
        (1.1, 1.3, 0.9),
    ),
    (
        "softplus-mlp",
        "mlp 2×64 softplus · photo patches 8px",
        "an activation outside the eleven",
        (1.2, 1.4, 1.3),
        (0.8, 0.9, 1.1),
    ),
    (
        "deep-conv",
        "conv 4×16 · digits 8px · batch 32",
        "4 layers; the mixture has at most 3",
        (1.05, 0.9, 1.1),
        (0.7, 0.72, 0.9),
    ),
    (
        "autoencoder-digits",
        "autoencoder 48-12-48 · digits 8px",
        "a family outside the mixture",
        (0.62, 0.71, 0.58),
        (0.4, 0.5, 0.45),
    ),
    (
        "autoencoder-photos",
        "autoencoder 64-16-64 · photo patches 8px",
        "a family outside the mixture",
        (0.31, 0.0, 0.35),
        (0.2, 0.0, 0.25),
    ),
)


def learning_curve(optimizer: str, rng: np.random.Generator, *, speed: float, length: int) -> OptimizerCurve:
    steps = np.linspace(0, length, 41)
    runs = np.exp(0.03 * rng.normal(size=(3, 41))) * (2.3 * np.exp(-speed * steps / 220) + 0.012 / speed)
    tuned = None
    if optimizer.startswith("adam"):
        rate = float(rng.choice([10**-3.0, 10**-2.5, 10**-2.0, 10.0]))
        tuned = TunedSetting(setting=f"learning rate {rate:.2g}", num_tried=15, is_at_edge=rate == 10.0)
    return OptimizerCurve(
        optimizer=optimizer,
        steps=tuple(int(s) for s in steps),
        mean=tuple(runs.mean(0).tolist()),
        low=tuple(runs.min(0).tolist()),
        high=tuple(runs.max(0).tolist()),
        final_losses=tuple(runs[:, np.searchsorted(steps, HORIZON)].tolist()),
        seconds_per_step={"adam": 2.1e-4, "adamw": 2.2e-4}.get(optimizer, 3.4e-4),
        tuned=tuned,
    )


def make_task(index: int, rng: np.random.Generator) -> TaskReport:
    name, label, why, over_adam, over_adamw = TASKS[index]
    lead = 1.0 + 0.5 * math.log(max(over_adam[0], 0.3))
    curves = [
        learning_curve("pacer", rng, speed=lead, length=HORIZON),
        learning_curve("pacer-init", rng, speed=0.7, length=HORIZON),
        learning_curve("adam", rng, speed=1.0, length=2 * HORIZON),
        learning_curve("adamw", rng, speed=1.15, length=HORIZON),
    ]
    if 0.0 in over_adam:  # one seed diverged: a non-finite tail in the mean and the worst seed
        lost = curves[0].model_dump()
        for column in ("mean", "high"):
            lost[column] = (*lost[column][:30], *([math.inf] * 11))
        lost["final_losses"] = (*lost["final_losses"][:2], math.nan)
        curves[0] = OptimizerCurve(**lost)
    speedups = (
        SpeedupReport(optimizer="pacer", baseline="adam", per_seed=over_adam),
        SpeedupReport(optimizer="pacer", baseline="adamw", per_seed=over_adamw),
        SpeedupReport(
            optimizer="pacer-init", baseline="adam", per_seed=tuple(0.5 + s / 5 for s in over_adam)
        ),
        SpeedupReport(optimizer="adamw", baseline="adam", per_seed=(1.2, 1.3, 1.1)),
    )
    return TaskReport(name=name, label=label, held_out=True, why=why, curves=tuple(curves), speedups=speedups)


def make_phase(name: str, title: str, rng: np.random.Generator, **changes: object) -> PhaseReport:
    steps = np.arange(1, 91)
    loss = -1.1 - 1.4 * (1 - np.exp(-steps / 35)) + 0.28 * rng.normal(size=90)
    loss[40] = math.nan
    points = [(0, -1.05), (30, -1.9), (60, -2.3), (90, -2.45)]
    fields = {
        "name": name,
        "title": title,
        "started_from": "θ₀",
        "horizon": (40, 160),
        "num_tasks": 8,
        "num_pairs": 8,
        "outer_step": tuple(int(s) for s in steps),
        "meta_loss": tuple(loss.tolist()),
        "validation": tuple(
            ValidationPoint(outer_step=s, meta_loss=v, initial_meta_loss=-1.05, num_tasks=6)
            for s, v in points
        ),
        "seconds": 98.4,
        "inner_steps": 1_152_000,
        "num_skipped": 1,
    }
    return PhaseReport.model_validate({**fields, **changes})


@pytest.fixture(scope="module")
def data() -> ReportData:
    """A whole run with wins, losses, a diverged seed, a capped speed-up and a refused gate."""
    rng = np.random.default_rng(0)
    measured = 10 ** rng.uniform(-4.3, -2.2, size=52)
    points = tuple(
        TimingPoint(
            family="mlp" if i % 2 else "conv",
            measured_seconds=m,
            predicted_seconds=(predicted := m * math.exp(0.22 * rng.normal())),
            low_seconds=predicted / 1.3,
            high_seconds=predicted * 1.3,
        )
        for i, m in enumerate(measured.tolist())
    )
    errors = FamilyErrors(
        family="mlp",
        num_timings=30,
        num_timed=26,
        median_relative_error=0.14,
        p90_relative_error=0.4,
        spearman=0.98,
        interval_coverage=0.8,
        validity_auc=None,
        predicted_by="process",
        by_estimator=(("process", 0.14), ("additive", 0.17)),
    )
    accepted = AcceptedTasks(
        budget_seconds=1e-4, acceptance_rate=0.3, families=("mlp", "conv", "mlp"), seconds=(3e-5, 8e-5, 6e-5)
    )
    return ReportData(
        title="demo",
        command="make demo",
        created=datetime(2026, 11, 22, 9, 30, tzinfo=UTC),
        machine=MachineReport(
            processor="Example CPU at 2.9 GHz",
            num_cores=2,
            memory_gib=16.0,
            system="Linux 6.1",
            python="3.11.7",
            versions=(("keirin", "0.1.0"), ("jax", "0.10.2"), ("optax", "0.2.8"), ("dask", "2026.8.0")),
        ),
        stages=tuple(
            StageReport(name=name, seconds=seconds)
            for name, seconds in (
                ("sample", 0.4),
                ("time", 48.0),
                ("fit", 14.2),
                ("phase 1", 98.4),
                ("phase 2", 131.0),
                ("evaluate", 88.3),
                ("promote", 2.1),
            )
        ),
        phases=(
            make_phase("short_horizon", "Short horizon, small tasks", rng),
            make_phase(
                "long_horizon",
                "Longer horizon, larger tasks",
                rng,
                horizon=(160, 600),
                started_from="short_horizon",
            ),
        ),
        runtime_model=RuntimeModelReport(
            num_timings=60,
            num_valid=52,
            points=points,
            median_relative_error=0.161,
            p90_relative_error=0.42,
            interval_coverage=0.79,
            families=(errors,),
            accepted=(accepted,),
            spearman=0.95,
            validity_accuracy=0.93,
            validity_auc=0.97,
            invalid_reasons=(("too slow: over 20 ms per step", 7), ("needs 6.1 GiB of temporary memory", 1)),
        ),
        evaluation=EvaluationReport(
            set_name="heldout_demo",
            horizon=HORIZON,
            num_seeds=3,
            max_speedup=MAX_SPEEDUP,
            optimizers=OPTIMIZERS,
            tasks=tuple(make_task(i, rng) for i in range(len(TASKS))),
        ),
        promotion=PromotionReport(
            promoted=True,
            version="3",
            previous="2",
            reasons=(
                PromotionReason(
                    text="Median speed-up over tuned Adam 1.18× is at least 1.00× (n = 6)", passed=True
                ),
                PromotionReason(text="No task diverged on every seed", passed=True),
                PromotionReason(text="1 of 18 runs diverged: autoencoder-photos, seed 1", passed=None),
            ),
        ),
        locations=(
            Location(what="report", where=".keirin/reports/latest.html", command="keirin report --open"),
            Location(what="optimizer", where="models:/keirin@champion", command="keirin status"),
            Location(what="runs and metrics", where=".keirin/mlflow.db", command="keirin up"),
        ),
    )


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return reporting.render_html(data)


class Collector(HTMLParser):
    """Collects identifiers, references and text, and checks that elements nest."""

    void = frozenset({"meta", "br", "img", "link", "input", "hr", "rect", "circle", "line", "path", "use"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.append(value or "")
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Collector:
    collector = Collector()
    collector.feed(page)
    assert collector.open == []
    return collector


def console_text(data: ReportData, width: int = 140) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(reporting.terminal_table(data))
    return console.export_text()


def test_data_survive_json_with_non_finite_values(data: ReportData) -> None:
    again = ReportData.model_validate_json(data.model_dump_json())
    assert math.isnan(again.phases[0].meta_loss[40])
    assert again.evaluation is not None
    assert again.evaluation.tasks[5].curves[0].high[-1] == math.inf
    assert again.model_dump_json() == data.model_dump_json()


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


def test_an_empty_report_says_what_to_run(data: ReportData) -> None:
    empty = ReportData(created=data.created, machine=data.machine)
    text = " ".join(read(reporting.render_html(empty)).text)
    for command in ("keirin evaluate", "keirin train", "keirin fit", "keirin promote"):
        assert command in text
    assert "keirin evaluate" in console_text(empty)
    assert reporting.summary_lines(empty) == []
    assert reporting.task_rows(empty) == []
    with pytest.raises(ValueError, match="keirin evaluate"):
        reporting.speedup_cdf_png(empty)


PNG_FUNCTIONS: tuple[Callable[[ReportData], bytes], ...] = (
    reporting.meta_training_png,
    reporting.speedup_cdf_png,
    reporting.learning_curves_png,
    reporting.runtime_model_png,
    reporting.runtime_model_families_png,
    reporting.accepted_tasks_png,
)


@pytest.mark.parametrize("draw", PNG_FUNCTIONS)
def test_pictures_are_png_with_ink(draw: Callable[[ReportData], bytes], data: ReportData) -> None:
    png = draw(data)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert width > 500
    assert height > 400
    pixels = imread(BytesIO(png), format="png")[..., :3]
    assert 0.01 < float((pixels.min(axis=-1) < 0.9).mean()) < 0.6


def test_plots_survive_one_point_and_constant_curves(data: ReportData) -> None:
    rng = np.random.default_rng(1)
    phase = make_phase("one", "", rng, outer_step=(1,), meta_loss=(0.5,), validation=())
    assert data.evaluation is not None
    flat = OptimizerCurve(
        optimizer="pacer", steps=(0, 1), mean=(0.0, 0.0), low=(0.0, 0.0), high=(0.0, 0.0), final_losses=(0.0,)
    )
    task = data.evaluation.tasks[0].model_copy(update={"curves": (flat,)})
    evaluation = data.evaluation.model_copy(update={"tasks": (task,)})
    model = RuntimeModelReport(num_timings=0, num_valid=0)
    changed = data.model_copy(update={"phases": (phase,), "evaluation": evaluation, "runtime_model": model})
    read(reporting.render_html(changed))
    for draw in PNG_FUNCTIONS:
        assert draw(changed)


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


def test_columns_of_different_lengths_are_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="steps has 2, mean has 1"):
        OptimizerCurve(
            optimizer="adam", steps=(0, 1), mean=(1.0,), low=(1.0, 1.0), high=(1.0, 1.0), final_losses=()
        )


def test_evaluation_refuses_optimizers_it_does_not_know(data: ReportData) -> None:
    assert data.evaluation is not None
    fields = data.evaluation.model_dump()
    fields["optimizers"] = fields["optimizers"][:3]
    with pytest.raises(ValidationError, match=r"names \['adamw'\], absent from `optimizers`"):
        EvaluationReport.model_validate(fields)
    fields["optimizers"] = fields["optimizers"][1:]
    with pytest.raises(ValidationError, match="exactly one of role 'candidate'"):
        EvaluationReport.model_validate(fields)


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
    assert reporting.track_png(track).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="keirin follow"):
        reporting.track_png(track.model_copy(update={"points": ()}))


def test_an_evaluation_in_an_earlier_form_counts_as_none(tmp_path: Path) -> None:
    """A workspace outlives an update; the report then asks for `keirin evaluate` instead of failing."""
    workspace = Workspace(tmp_path)
    workspace.write_state({"evaluation": {"report": {"set_name": "x", "optimisers": []}}})
    assert collect(workspace).evaluation is None
