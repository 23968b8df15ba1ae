"""What an evaluation makes of curves: tables, remarks, the drawn few."""

from __future__ import annotations

import html
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from curriculum.evaluation.baseline_budgets import Trials
from curriculum.evaluation.curves import CurveBatch
from curriculum.evaluation.summary import EvaluationConfig
from curriculum.phases import get_phase
from curriculum.training_domain import domain_of
from flows.artifacts import ArtifactSpec
from flows.evaluation.curves import Curves, hyperparameters
from flows.evaluation.head_to_head import head_to_head_rows
from flows.evaluation.records import find_evaluation, record_evaluation
from flows.evaluation.report import build_report, build_summary
from flows.evaluation.settings import VERSION, evaluation_tasks
from flows.evaluation.tables import trial_losses
from flows.parameters import BaselinesParameters
from flows.pipeline import NORMALIZER_FACTOR
from flows.reporting import EvaluationReport, ReportData, render_html
from flows.reporting.data import MachineReport
from flows.reporting.table_views import table_views, tables_lead
from lopt.config import derive
from storage.workspace import Workspace
from task_generator.evaluation_set import EVALUATION_SETS, get_evaluation_set

CONFIG = EvaluationConfig(
    horizon=10,
    points_per_horizon=2,
    normalizer_factor=3,
    num_seeds=2,
    baselines=("adamw_cosine", "muon", "schedule_free_adamw", "prodigy", "sgd", "optlist10", "lhopt35"),
)
TASKS = [*get_evaluation_set("heldout_demo")[:3], *get_evaluation_set("indistribution_demo")[:1]]


def batches(rng: np.random.Generator) -> dict[tuple[str, str], CurveBatch]:
    """Falling curves for every optimizer on every task; the learned one ends lowest of all."""
    found = {}
    for task in TASKS:
        for trials in CONFIG.all_trials:
            step = np.arange(CONFIG.num_intervals(trials.baseline) + 1) * CONFIG.eval_every
            speed = rng.uniform(0.02, 0.1, size=(trials.num_trials, 2, 1))
            losses = 2.0 * np.exp(-speed * step)
            both = {"train": losses, "test": 1.5 * losses}
            found[task.name, trials.baseline] = CurveBatch(step, both, 1e-4)
        step = np.arange(3) * CONFIG.eval_every
        learned = np.stack([np.exp(-0.2 * step), np.exp(-0.05 * step)])[:, None] * np.ones((2, 2, 1))
        both = {"train": 2.0 * learned, "test": 3.0 * learned}
        found[task.name, "learned"] = CurveBatch(step, both, 2e-4)
    return found


def report_of(trained_on: tuple | None) -> EvaluationReport:
    curves = batches(np.random.default_rng(0))
    summary = build_summary(TASKS, curves, CONFIG, trained_on)
    return build_report(
        TASKS, Curves(curves, Counter()), summary, trained_on=trained_on, set_name="x", label="pacer v3"
    )


def test_a_report_says_which_curves_came_from_elsewhere() -> None:
    curves = batches(np.random.default_rng(0))
    summary = build_summary(TASKS, curves, CONFIG, None)
    imported = Curves(curves, Counter({"theirs.parquet": 7}))
    report = build_report(TASKS, imported, summary, trained_on=None, set_name="x", label="pacer v3")
    assert report.remarks[-1] == "Some of the curves were imported, not computed here: 7 with theirs.parquet."
    assert not any("imported" in remark for remark in report_of(None).remarks)


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
    (adam,) = (row for row in best.rows if row.name.startswith("tuned Adam, best of"))
    assert (adam.iqm, adam.quantiles, adam.num_no_better, adam.num_diverged) == (1.0, (1.0,) * 5, 0, 0)
    assert "1 of 4 tasks could have been sampled in training" in report.remarks[0]
    assert TASKS[-1].name in report.remarks[0]


def test_families_that_training_drew_are_told_from_the_others() -> None:
    """Three held-out tasks are networks of a family that the demo draws; one is made another."""

    def families(report: EvaluationReport) -> list[tuple[str, ...]]:
        (view,) = (v for v in table_views(report) if v.title == "By family of tasks")
        assert view.head[:5] == ("family", "drawn in training", "n tasks", "won", "lost")
        return [row[:5] for row in view.rows]

    report = report_of((domain_of(get_phase("short_horizon")),))
    assert families(report) == [("mlp", "yes", "3", "3", "0")]
    first, *others = report.tasks
    unseen = first.model_copy(update={"family": "vit", "familiar": False})
    assert sorted(families(report.model_copy(update={"tasks": (unseen, *others)}))) == [
        ("all that are drawn", "yes", "2", "2", "0"),
        ("all that are not drawn", "no", "1", "1", "0"),
        ("mlp", "yes", "2", "2", "0"),
        ("vit", "no", "1", "1", "0"),
    ]
    assert {row[1] for row in families(report_of(()))} == {"no"}
    assert {row[1] for row in families(report_of(None))} == {"–"}


def test_normalised_losses_put_the_best_first() -> None:
    """Adam tuned per task is what 0 is; the learned optimizer alone is below, at the floor."""
    rows = report_of(()).losses
    assert rows[0].name == "pacer v3"  # e^-2 of the start; no other falls faster than e^-1 in ten steps
    names = [row.name for row in rows]
    assert {"global Adam", "per task Adam", "Prodigy", "per task OptList"} <= set(names)
    adam = {row.name: row for row in rows}
    assert adam["per task Adam"].train_median <= adam["global Adam"].train_median
    assert adam["per task Adam"].train_median == adam["per task Adam"].train_mean == 0.0
    assert all(-1.0 <= row.train_median <= 1.0 for row in rows)
    assert adam["per task Adam"].test_mean == pytest.approx(0.0)  # the other data's loss is a multiple


def test_head_to_head_is_against_the_initialisation_and_every_baseline_with_one_training_and_with_all() -> (
    None
):
    """The made-up candidate ends lowest of all, its initialisation beside the slower half of the trials."""
    report = report_of((domain_of(get_phase("short_horizon")),))
    rows = {row.name: row for row in report.head_to_head}
    single, several, *_ = report.tables
    one_each = {row.name.split(",")[0]: row for row in single.rows if row.name != "pacer v3"}
    assert {name.split(",")[0] for name, row in rows.items() if row.num_trials == 1} == set(one_each)
    assert {name for name, row in rows.items() if row.num_trials > 1} == {
        row.name for row in several.rows if row.num_trials > 1 and "best of 5" not in row.name
    }
    assert {(r.probability, r.num_won, r.num_lost, r.num_tasks) for r in rows.values()} == {(1.0, 3, 0, 3)}
    assert all(row.num_seeds == CONFIG.num_seeds for row in rows.values())


def test_head_to_head_has_the_strongest_first_and_says_its_n() -> None:
    """With the two learned ones swapped: the candidate falls slower than most trials, and faster than some."""
    curves = batches(np.random.default_rng(0))
    for task in TASKS:
        learned = curves[task.name, "learned"]
        curves[task.name, "learned"] = CurveBatch(
            learned.step, {name: values[::-1] for name, values in learned.losses.items()}, 2e-4
        )
    summary = build_summary(TASKS, curves, CONFIG, ())
    rows = head_to_head_rows(summary, trial_losses(CONFIG, TASKS, curves), "pacer v3")
    assert [row.probability for row in rows] == sorted(row.probability for row in rows)
    assert len({row.probability for row in rows}) > 2
    assert rows[0].probability == 0.0
    by_name = {row.name: row for row in rows}
    assert by_name["pacer v3 before training"].probability == 0.0
    assert by_name["tuned Muon, best of 15"].probability <= next(
        row.probability for row in rows if row.name.startswith("Muon, ")
    )
    assert by_name["best of all baselines"].num_trials == sum(trials.num_trials for trials in CONFIG.trials)
    report = report_of(())
    (view,) = (view for view in table_views(report) if view.title == "Head to head")
    assert "n = 4 tasks × 2 seeds in every row" in view.note
    assert view.rows[0][2:] == ("100\u202f%", "100 to 100\u202f%", "100 to 100\u202f%", "4", "0")


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
    twice = views["At least twice as fast"]
    assert twice.rows == (
        ("pacer v3", "3 of 3", "100\u202f%"),
        ("pacer v3 before training", "0 of 3", "0\u202f%"),
    )
    assert "after 20 steps" in twice.note
    assert not any("schedules" in row.name for table in report.tables for row in table.rows)
    lead = tables_lead(report)
    assert lead in html.unescape(page)
    assert "It ran 3.00× as long" in lead
    assert "30×" not in lead


def test_a_number_that_rests_on_the_cap_says_so_and_one_without_an_interval_has_none() -> None:
    """Ten steps at exp(−0.2 t) are what the best Adam, at 0.1 or slower, needs twenty for; it runs thirty."""
    report = report_of(())
    (view, *_), row = table_views(report), report.tables[0].rows[0]
    cells = dict(zip(view.head, view.rows[0], strict=True))
    assert cells["tasks at the cap"] == f"{row.num_capped} of 4"
    assert cells["share of tasks ≥ 2× the normaliser"] == "100\u202f%"
    capped = row.model_copy(
        update={
            "bounds": ("iqm", "quantile 0.5", "mean_cost", "iqm_over_tasks high"),
            "iqm_over_seeds": None,
            "iqm_over_tasks": (2.0, 3.0),
            "share_twice": None,
            "mean_cost": 0.4,
            "iqm": 2.5,
        }
    )
    table = report.tables[0].model_copy(update={"rows": (capped,)})
    (view, *_) = table_views(report.model_copy(update={"tables": (table,)}))
    cells = dict(zip(view.head, view.rows[0], strict=True))
    assert cells["interquartile mean"] == "≥ 2.50×"
    assert cells["95 %, other seeds"] == "–"
    assert cells["95 %, other tasks"] == "2.00 to ≥ 3.00×"
    assert cells["mean cost"] == "≤ 0.40"
    assert cells["50 %"].startswith("≥ ")
    assert not cells["75 %"].startswith("≥ ")
    assert cells["share of tasks ≥ 2× the normaliser"] == "–"


def test_a_task_of_two_sets_counts_once_and_a_name_is_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = get_evaluation_set("heldout_demo")[:3]
    monkeypatch.setitem(EVALUATION_SETS, "heldout_demo", (one, two))
    monkeypatch.setitem(EVALUATION_SETS, "indistribution_demo", (two, three, derive(one, name="again")))
    parameters = BaselinesParameters(evaluation_sets=("heldout_demo", "indistribution_demo"))
    assert evaluation_tasks(parameters) == [one, two, three]
    monkeypatch.setitem(EVALUATION_SETS, "indistribution_demo", (derive(three, name=one.name),))
    with pytest.raises(ValueError, match=f"named {one.name!r}: .* in 'heldout_demo' and .* in 'indist"):
        evaluation_tasks(parameters)


def test_an_evaluation_recorded_in_an_earlier_form_is_not_found(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    spec = ArtifactSpec("evaluation", VERSION, {"tasks": "t"})
    summary = build_summary(TASKS, batches(np.random.default_rng(0)), CONFIG, None).model_dump(mode="json")
    kept = record_evaluation(workspace, "abc", spec, summary)
    assert find_evaluation(workspace, "abc") == kept
    path = workspace.root / "evaluations" / "abc" / f"{kept.settings}.json"
    stored = json.loads(path.read_text())
    for task in stored["summary"]["tasks"]:
        for result in task["results"]:
            result["speedups"] = result.pop("seed_speedups")
            del result["speedup"], result["redrawn_speedups"]
    path.write_text(json.dumps(stored))
    assert find_evaluation(workspace, "abc") is None
    assert find_evaluation(workspace, "abc", settings=kept.settings) is None


def test_ten_times_as_fast_can_be_seen_unless_the_pipeline_is_in_a_hurry() -> None:
    assert BaselinesParameters().normalizer_factor == EvaluationConfig().normalizer_factor == 10
    assert NORMALIZER_FACTOR == 5


def test_hyperparameters_are_json_and_tell_trials_apart() -> None:
    found = [hyperparameters(setting) for setting in Trials("nadamw", 50).settings()]
    assert len({json.dumps(each, sort_keys=True) for each in found}) == 50
    assert hyperparameters(Trials("adam", 15).settings()[3]) == {"learning_rate": 3e-06}
