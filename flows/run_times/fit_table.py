"""The run-time model's held-out errors, one row per family.

Columns: valid timings of all; median and 90th percentile of the relative error; rank correlation; how many the 80 %
intervals cover; area under the curve of validity; which estimator predicts. Rows have each one's median, too.
"""

from __future__ import annotations

from typing import Any

from rich.table import Table

from runtime_model.calibration import CalibrationReport


def family_errors(report: CalibrationReport) -> tuple[Table, list[dict[str, Any]]]:
    """Returns the errors per family, and those of all together, as a table and as rows."""
    parts = {family: report.for_family(family) for family in report.families}
    rows = [_row(family, part, report.chosen(family)) for family, part in parts.items()]
    if len(rows) > 1:
        rows.append(_row("all", report, ""))
    table = Table(box=None)
    shown = ("family", "n", "median", "p90", "rho", "80%", "AUC", "by")
    for name in shown if rows else ():
        table.add_column(name, no_wrap=True, justify="left" if name in ("family", "by") else "right")
    for row in rows:
        table.add_row(*(str(row[name]) for name in shown))
    return table, rows


def _row(name: str, report: CalibrationReport, chosen: str) -> dict[str, Any]:
    return {
        "family": name,
        "n": f"{report.num_timed}/{report.num_timings}",
        "median": _percent(report.median_relative_error),
        "p90": _percent(report.p90_relative_error),
        "rho": _number(report.spearman),
        "80%": _percent(report.interval_coverage),
        "AUC": _number(report.validity_auc),
        "by": chosen,
        **{name: _percent(error) for name, error in report.median_by_estimator.items()},
        **{f"AUC {name}": _number(auc) for name, auc in report.auc_by_estimator.items()},
    }


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}%"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")
