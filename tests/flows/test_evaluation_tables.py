"""What an evaluation makes of curves: tables, remarks, the drawn few; and the curves' own file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from curriculum.evaluation.baseline_budgets import Trials
from curriculum.evaluation.curves import CurveBatch
from curriculum.evaluation.summary import EvaluationConfig
from curriculum.phases import get_phase
from curriculum.training_domain import domain_of
from flows.evaluation.curves import TRIALS_PER_UNIT, _joined, hyperparameters, plan_baselines
from flows.evaluation.export import export_curves
from flows.evaluation.report import build_report, build_summary
from flows.reporting import ReportData, render_html
from flows.reporting.data import MachineReport
from flows.reporting.table_views import table_views
from lopt.config import derive
from storage.curves import CurveKey, CurveRow, CurveStore
from storage.workspace import Workspace
from task_generator.evaluation_set import get_evaluation_set

CONFIG = EvaluationConfig(
    horizon=10,
    points_per_horizon=2,
    normalizer_factor=3,
    num_seeds=2,
    baselines=("adamw_cosine", "muon", "schedule_free_adamw", "prodigy", "sgd", "optlist10"),
)
TASKS = [*get_evaluation_set("heldout_demo")[:3], *get_evaluation_set("indistribution_demo")[:1]]


def batches(rng: np.random.Generator) -> dict[tuple[str, str], CurveBatch]:
    """Falling curves for every optimizer on every task; the learned one ends lowest of all."""
    found = {}
    for task in TASKS:
        for trials in CONFIG.trials:
            step = np.arange(CONFIG.num_intervals(trials.baseline) + 1) * CONFIG.eval_every
            speed = rng.uniform(0.02, 0.1, size=(trials.num_trials, 2, 1))
            losses = 2.0 * np.exp(-speed * step)
            both = {"train": losses, "outer_valid": 1.5 * losses}
            found[task.name, trials.baseline] = CurveBatch(step, both, 1e-4)
        step = np.arange(3) * CONFIG.eval_every
        learned = np.stack([np.exp(-0.2 * step), np.exp(-0.05 * step)])[:, None] * np.ones((2, 2, 1))
        both = {"train": 2.0 * learned, "outer_valid": 3.0 * learned}
        found[task.name, "learned"] = CurveBatch(step, both, 2e-4)
    return found


def report_of(trained_on: tuple | None) -> object:
    curves = batches(np.random.default_rng(0))
    summary = build_summary(TASKS, curves, CONFIG, trained_on)
    return build_report(TASKS, curves, summary, set_name="x", label="pacer v3")


def test_tables_have_every_baseline_and_only_held_out_tasks() -> None:
    report = report_of((domain_of(get_phase("short_horizon")),))
    single, best = report.tables
    assert {row.num_tasks for table in report.tables for row in table.rows} == {3}
    assert single.rows[0].name == best.rows[0].name == "pacer v3"
    names = " ".join(row.name for row in single.rows)
    assert all(
        label in names
        for label in ("Muon, learning rate", "Prodigy", "SGD, learning rate", "OptList, trial 1")
    )
    assert {row.num_trials for row in single.rows} == {1}
    last = next(row for row in best.rows if row.name == "best of all baselines")
    assert last.num_trials == sum(trials.num_trials for trials in CONFIG.trials)
    assert last.iqm == max(row.iqm for row in best.rows[1:])
    assert "1 of 4 tasks could have been sampled in training" in report.remarks[0]
    assert TASKS[-1].name in report.remarks[0]


def test_normalised_losses_put_the_best_first() -> None:
    """Adam runs three horizons, so its best is far below what others reach in one: all are above 0."""
    rows = report_of(()).losses
    assert rows[0].name == "pacer v3"  # e^-2 of the start; no other falls faster than e^-1 in ten steps
    names = [row.name for row in rows]
    assert {"global Adam", "per task Adam", "Prodigy", "per task OptList"} <= set(names)
    adam = {row.name: row for row in rows}
    assert adam["per task Adam"].train_median <= adam["global Adam"].train_median
    assert all(0.0 < row.train_median <= 1.0 for row in rows)
    assert rows[0].train_mean == pytest.approx(
        rows[0].held_out_data_mean
    )  # the other data's loss is a multiple


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    report = report_of(None)
    assert "not known" in report.remarks[0]
    assert {row.num_tasks for row in report.tables[0].rows} == {4}
    everything = report_of(())
    assert everything.remarks == ()


def test_few_are_drawn_and_all_are_in_the_page() -> None:
    report = report_of((domain_of(get_phase("short_horizon")),))
    assert [info.name for info in report.baselines] == [
        "adam",
        "adamw_cosine",
        "opt_list",
        "schedule_free_adamw",
    ]
    data = ReportData(
        created="2026-11-28T00:00:00Z",
        machine=MachineReport(processor="x", num_cores=1, memory_gib=1, system="x", python="3"),
        evaluation=report,
    )
    page = render_html(data)
    assert "Muon, learning rate" in page
    assert 'class="card remark bad"' in page
    views = {view.title: view for view in table_views(report)}
    assert [row[0] for row in views["By family of tasks"].rows]
    assert all(len(row) == len(view.head) for view in views.values() for row in view.rows)
    assert "At several horizons" not in views


def test_many_trials_are_units_of_bounded_size_put_together_in_order() -> None:
    config = derive(CONFIG, baselines=("nadamw1000",))
    jobs = [job for job in plan_baselines(TASKS[:1], config) if job.name == "nadamw"]
    assert [len(job.settings) for job in jobs] == [TRIALS_PER_UNIT] * 4
    assert [job.settings[0] for job in jobs] == [
        Trials("nadamw", 1000).settings()[first] for first in range(0, 1000, TRIALS_PER_UNIT)
    ]
    parts = {
        number: CurveBatch(np.arange(2), {"train": np.full((250, 1, 2), float(number))}, 1.0)
        for number in reversed(range(4))
    }
    joined = _joined(jobs, parts)[TASKS[0].name, "nadamw"].losses["train"]
    assert joined.shape == (1000, 1, 2)
    assert joined[::250, 0, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_hyperparameters_are_json_and_tell_trials_apart() -> None:
    found = [hyperparameters(setting) for setting in Trials("nadamw", 50).settings()]
    assert len({json.dumps(each, sort_keys=True) for each in found}) == 50
    assert hyperparameters(Trials("adam", 15).settings()[3]) == {"learning_rate": 3e-06}


def test_export_has_a_row_per_curve(tmp_path: Path) -> None:
    store = CurveStore(Workspace(tmp_path / "home").curves)
    for seed in range(3):
        key = CurveKey("abc", "adam", 20, seed, {"learning_rate": 0.1})
        losses = {"train": np.asarray([2.0, np.nan], np.float32)}
        store.append(CurveRow(key, np.asarray([0, 20]), losses, 1.5, {"task_name": "mlp", "role": "adam"}))
    message = export_curves(tmp_path / "home", tmp_path / "out" / "curves.parquet")
    assert message.startswith("3 curves in ")
    table = pq.read_table(tmp_path / "out" / "curves.parquet").to_pylist()
    assert sorted(row["seed"] for row in table) == [0, 1, 2]
    assert table[0]["step"] == [0, 20]
    assert table[0]["loss_train"][0] == 2.0
    assert np.isnan(table[0]["loss_train"][1])
    with pytest.raises(ValueError, match=r"must end in \.parquet"):
        export_curves(tmp_path / "home", tmp_path / "curves.csv")
