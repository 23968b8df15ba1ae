"""A whole made-up run as a report's data: with wins, losses, a diverged seed and a capped speed-up."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from statistics import median

import numpy as np

from curriculum.evaluation.comparison import Row
from curriculum.evaluation.head_to_head import make_head_to_head_row
from flows.reporting import (
    AcceptedTasks,
    ComparisonTable,
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
    """Returns what three runs came to, the faster the higher `speed`; baselines are tuned, some at an edge."""
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


def made_up_losses(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns final losses [tasks, seeds] and [tasks, trials, seeds] of which the first are mostly lower."""
    return rng.uniform(0.0, 1.0, (6, 3)), rng.uniform(0.2, 1.2, (6, 1, 3))


def make_task(index: int, rng: np.random.Generator) -> TaskReport:
    """Returns the curves of a row of `TASKS`; where a speed-up is 0, a seed of the candidate diverges."""
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
        speedup("pacer", "adam", over_adam),
        speedup("pacer", "adamw", over_adamw),
        speedup("pacer-init", "adam", tuple(0.5 + s / 5 for s in over_adam)),
        speedup("adamw", "adam", (1.2, 1.3, 1.1)),
    )
    return TaskReport(name=name, label=label, held_out=True, why=why, curves=tuple(curves), speedups=speedups)


def speedup(optimizer: str, baseline: str, per_seed: tuple[float, ...]) -> SpeedupReport:
    """Returns the speed-up on a task, the middle seed's, where a seed of 0 has diverged."""
    lost = per_seed.count(0.0)
    return SpeedupReport(
        optimizer=optimizer,
        baseline=baseline,
        of_mean=0.0 if lost else median(per_seed),
        per_seed=per_seed,
        num_diverged=lost,
    )


def make_phase(name: str, title: str, rng: np.random.Generator, **changes: object) -> PhaseReport:
    """Returns a phase of 90 steps, one of them not finite; `changes` are its fields."""
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


def table_row(name: str, num_trials: int, iqm: float, *, bounds: tuple[str, ...] = ()) -> Row:
    """A row around an interquartile mean; one of 0 has intervals that end there."""
    return Row(
        name=name, num_trials=num_trials, iqm=iqm, mean_speedup=1.1 * iqm, mean_cost=1.0 / max(iqm, 0.1),
        quantiles=tuple(iqm * factor for factor in (0.2, 0.3, 0.6, 1.0, 1.6)),
        iqm_over_seeds=(0.9 * iqm, 1.1 * iqm), iqm_over_tasks=(0.6 * iqm, 1.5 * iqm),
        share_twice=0.5 if iqm > 1.0 else 0.0, bounds=bounds, num_capped=1, num_no_better=0, num_diverged=1,
        num_tasks=len(TASKS), num_seeds=3,
    )  # fmt: skip


def comparison_tables() -> tuple[ComparisonTable, ...]:
    """A table of single trainings, one of the best of several, and one by the clock."""
    ours = table_row(OPTIMIZERS[0].label, 1, 1.5, bounds=("iqm_over_tasks high",))
    before = table_row(f"{ours.name} before training", 1, 0.0)
    single = table_row("Adam, learning rate 0.01", 1, 0.5)
    best = table_row("best of all baselines", 30, 2.4, bounds=("iqm", "iqm_over_seeds high"))
    by_clock = [ours.model_copy(update={"name": f"{ours.name}, in steps"})]
    by_clock.append(table_row(f"{ours.name}, by the clock", 1, 0.8))
    return (
        ComparisonTable(title="One training per task", note="One.", rows=(ours, before, single)),
        ComparisonTable(title="The best of several", note="Several.", rows=(ours, best)),
        ComparisonTable(title="By the clock", note="Seconds.", rows=tuple(by_clock)),
    )


def made_up_report() -> ReportData:
    """Returns the whole of it: the same in every call."""
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
            tables=comparison_tables(),
            head_to_head=(
                make_head_to_head_row("best of all baselines", np.ones((6, 3)), np.full((6, 9, 3), 0.5)),
                make_head_to_head_row("meta-trained pacer before training", *made_up_losses(rng)),
            ),
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
