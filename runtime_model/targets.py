"""What a fitted run-time model is asked to reach, and what falls short of it.

Over all families together: the median and the 90th percentile of the relative error, and what the 80 % intervals
cover. Within each family: the rank correlation where seconds spread over 1.5 decades, and the area under the curve
of validity where both classes occur.
"""

from __future__ import annotations

from runtime_model.calibration import CalibrationReport

MEDIAN_ERROR = 0.12
P90_ERROR = 0.40
SPEARMAN = 0.97
DECADES = 1.5
"""Of seconds, from the fastest to the slowest: a family that spreads less has little to put in order."""
VALIDITY_AUC = 0.97
COVERAGE = (0.75, 0.85)


def missed_targets(report: CalibrationReport) -> list[str]:
    """Returns one line per target that is not reached, those of all families together first."""
    lines = []
    for name, value, most in (
        ("median relative error", report.median_relative_error, MEDIAN_ERROR),
        ("90th percentile of the relative error", report.p90_relative_error, P90_ERROR),
    ):
        if value is not None and value > most:
            lines.append(f"{name}: {value:.1%}, more than {most:.0%}")
    low, high = COVERAGE
    if report.interval_coverage is not None and not low <= report.interval_coverage <= high:
        lines.append(f"80 % intervals cover {report.interval_coverage:.1%}, not {low:.0%} to {high:.0%}")
    for family in report.families:
        lines += [f"{family}: {line}" for line in _missed_within(report.for_family(family))]
    return lines


def _missed_within(report: CalibrationReport) -> list[str]:
    lines = []
    if (report.decades_of_spread or 0.0) >= DECADES and (report.spearman or 0.0) < SPEARMAN:
        lines.append(
            f"rank correlation {report.spearman or 0.0:.3f} of {report.num_timed}, below {SPEARMAN:g}"
        )
    if report.validity_auc is not None and report.validity_auc < VALIDITY_AUC:
        invalid = report.num_timings - report.num_valid
        lines.append(
            f"validity AUC {report.validity_auc:.3f} ({report.num_valid} that run, {invalid} that do not), "
            f"below {VALIDITY_AUC:g}"
        )
    return lines
