"""Reports: pure functions from plain data to a page, pictures and a terminal table.

Nothing here reads a store, a clock or a network; a flow fills `ReportData` and decides where the output goes.
"""

from __future__ import annotations

from flows.reporting.comparison_plot import comparison_png
from flows.reporting.data import (
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
    TrackPoint,
    TrackReport,
    TunedSetting,
    ValidationPoint,
)
from flows.reporting.evaluation_plots import learning_curves_png, speedup_cdf_png
from flows.reporting.evaluation_rows import (
    ComparisonTable,
    HorizonRow,
    TwiceRow,
    clock_name,
    untrained_name,
)
from flows.reporting.head_to_head_plot import head_to_head_png
from flows.reporting.html import render_html
from flows.reporting.pictures import Picture, evaluation_pictures, report_pictures
from flows.reporting.runtime_plots import accepted_tasks_png, runtime_model_families_png, runtime_model_png
from flows.reporting.terminal import result_lines, summary_lines, terminal_table
from flows.reporting.track_plots import track_png
from flows.reporting.training_plots import meta_training_png
from flows.reporting.views import headline, task_rows

__all__ = [
    "AcceptedTasks",
    "ComparisonTable",
    "EvaluationReport",
    "FamilyErrors",
    "HorizonRow",
    "Location",
    "MachineReport",
    "OptimizerCurve",
    "OptimizerInfo",
    "PhaseReport",
    "Picture",
    "PromotionReason",
    "PromotionReport",
    "ReportData",
    "RuntimeModelReport",
    "SpeedupReport",
    "StageReport",
    "TaskReport",
    "TimingPoint",
    "TrackPoint",
    "TrackReport",
    "TunedSetting",
    "TwiceRow",
    "ValidationPoint",
    "accepted_tasks_png",
    "clock_name",
    "comparison_png",
    "evaluation_pictures",
    "head_to_head_png",
    "headline",
    "learning_curves_png",
    "meta_training_png",
    "render_html",
    "report_pictures",
    "result_lines",
    "runtime_model_families_png",
    "runtime_model_png",
    "speedup_cdf_png",
    "summary_lines",
    "task_rows",
    "terminal_table",
    "track_png",
    "untrained_name",
]
