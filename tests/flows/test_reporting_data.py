"""A report's data: they survive storage, and are refused by name where they contradict themselves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.evaluation.settings import VERSION
from flows.report_data import collect
from flows.reporting import EvaluationReport, OptimizerCurve, ReportData, TrackPoint
from storage.files import read_json, write_json
from storage.workspace import Workspace


def test_data_survive_json_with_non_finite_values(data: ReportData, tmp_path: Path) -> None:
    again = ReportData.model_validate_json(data.model_dump_json())
    assert math.isnan(again.phases[0].meta_loss[40])
    assert again.evaluation is not None
    assert again.evaluation.tasks[5].curves[0].high[-1] == math.inf
    assert again.model_dump_json() == data.model_dump_json()
    write_json(tmp_path / "report.json", data.model_dump(mode="json"))  # which is strict
    assert (
        ReportData.model_validate(read_json(tmp_path / "report.json")).model_dump_json()
        == data.model_dump_json()
    )


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


def test_an_evaluation_in_an_earlier_form_counts_as_none(tmp_path: Path) -> None:
    """A workspace outlives an update; the report then asks for `keirin evaluate` instead of failing."""
    workspace = Workspace(tmp_path)
    workspace.write_state({"evaluation": {"version": VERSION, "report": {"set_name": "x", "optimisers": []}}})
    assert collect(workspace).evaluation is None


def test_a_report_is_of_the_evaluation_that_asks_for_it(data: ReportData, tmp_path: Path) -> None:
    """Another one that ended meanwhile was remembered last."""
    assert data.evaluation is not None
    own, other = (
        {
            "version": VERSION,
            "report": data.evaluation.model_copy(update={"set_name": name}).model_dump(mode="json"),
        }
        for name in ("own", "other")
    )
    workspace = Workspace(tmp_path)
    workspace.write_state({"evaluation": other})
    shown = [collect(workspace, evaluation=record).evaluation for record in (own, None)]
    assert [each.set_name for each in shown if each is not None] == ["own", "other"]


def test_speed_ups_of_single_losses_over_mean_curves_are_an_earlier_form(
    data: ReportData, tmp_path: Path
) -> None:
    assert data.evaluation is not None
    report = data.evaluation.model_dump(mode="json")
    workspace = Workspace(tmp_path)
    workspace.write_state({"evaluation": {"version": VERSION, "report": report}})
    assert collect(workspace).evaluation is not None
    workspace.write_state({"evaluation": {"version": VERSION - 1, "report": report}})
    assert collect(workspace).evaluation is None  # of the same form: its numbers meant something else
    for task in report["tasks"]:
        for found in task["speedups"]:
            del found["of_mean"], found["num_diverged"]
    workspace.write_state({"evaluation": {"version": VERSION, "report": report}})
    assert collect(workspace).evaluation is None


def test_no_interval_is_none_and_equal_to_itself() -> None:
    fields = {"outer_step": 1, "percentiles": ((50, 1.0),), "interquartile_mean": 1.0, "num_diverged": 0}
    point = TrackPoint(**fields, low=math.nan, high=math.nan)
    assert (point.low, point.high) == (None, None)
    assert TrackPoint.model_validate_json(point.model_dump_json()) == point
