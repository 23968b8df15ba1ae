"""The report's numbers, against hand-worked ones."""

from __future__ import annotations

import numpy as np
import pytest

from runtime_model.calibration import CalibrationPoint, area_under_curve, spearman, summarize


def _point(
    measured: float | None, predicted: float, *, valid: bool = True, probability: float = 0.9
) -> CalibrationPoint:
    return CalibrationPoint(
        config_fingerprint="f",
        family="mlp",
        measured_seconds=measured,
        predicted_seconds=predicted,
        low_seconds=predicted / 1.3,
        high_seconds=predicted * 1.3,
        estimator="process",
        by_estimator={"process": predicted, "other": 2.0 * predicted},
        valid=valid,
        valid_probability=probability,
    )


def test_relative_errors_are_over_valid_configurations() -> None:
    """Errors 0.1, 0.2 and 0.5: median 0.2, 90th percentile 0.2 + 0.8 · 0.3."""
    points = [_point(1.0, 1.1), _point(10.0, 8.0), _point(100.0, 150.0), _point(9.0, 1.0, valid=False)]
    result = summarize(points, num_folds=5)
    assert result.median_relative_error == pytest.approx(0.2)
    assert result.p90_relative_error == pytest.approx(0.44)
    assert result.median_by_estimator == pytest.approx(
        {"process": 0.2, "other": 1.2}
    )  # 2.2 − 1, 1.6 − 1, 3 − 1
    assert result.interval_coverage == pytest.approx(2 / 3)  # 1.5 times too much lies outside
    assert result.spearman == pytest.approx(1.0)
    assert result.decades_of_spread == pytest.approx(2.0)
    assert (result.num_timings, result.num_timed, result.num_valid) == (4, 3, 3)
    assert result.validity_accuracy == pytest.approx(0.75)  # the invalid one has probability 0.9
    assert result.validity_auc == pytest.approx(0.5)
    assert "median 20.0%" in result.summary()


def test_what_the_timings_cannot_give_is_none() -> None:
    result = summarize([_point(1.0, 1.0), _point(2.0, 2.0)], num_folds=2)
    assert result.validity_auc is None
    assert result.spearman is None
    assert "AUC n/a" in result.summary()
    assert summarize([], num_folds=1).median_relative_error is None


def test_estimators_that_predict_validity_are_compared() -> None:
    """One puts the invalid configuration last, one above one of two valid ones; a third is silent once."""
    own = [
        {"good": 0.9, "fair": 0.4, "silent": 1.0},
        {"good": 0.8, "fair": 0.9, "silent": 1.0},
        {"good": 0.1, "fair": 0.5},
    ]
    points = [
        _point(1.0, 1.0, valid=valid).model_copy(update={"valid_by_estimator": each})
        for valid, each in zip((True, True, False), own, strict=True)
    ]
    result = summarize(points, num_folds=2)
    assert result.auc_by_estimator == pytest.approx({"good": 1.0, "fair": 0.5})
    assert "good 1.000, fair 0.500" in result.summary()


def test_a_familys_report_is_over_its_points_only() -> None:
    other = _point(1.0, 3.0).model_copy(update={"family": "conv"})
    result = summarize([_point(1.0, 1.5), other], num_folds=2)
    assert result.families == ("conv", "mlp")
    assert result.chosen("conv") == "process"
    assert result.for_family("conv").median_relative_error == pytest.approx(2.0)


def test_rank_statistics_share_ties() -> None:
    assert spearman(np.asarray([1.0, 2.0, 3.0]), np.asarray([9.0, 5.0, 1.0])) == pytest.approx(-1.0)
    labels = np.asarray([True, True, False, False])
    # Of the four pairs one is won, two are tied and one is lost: (1 + 2 / 2) / 4.
    assert area_under_curve(labels, np.asarray([0.5, 0.1, 0.5, 0.1])) == pytest.approx(0.5)
    assert area_under_curve(labels, np.asarray([0.9, 0.8, 0.3, 0.1])) == pytest.approx(1.0)
