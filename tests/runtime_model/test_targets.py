"""Which targets a report misses: pooled errors, ranks and validity within each family."""

from __future__ import annotations

from runtime_model.calibration import CalibrationPoint, CalibrationReport, summarize
from runtime_model.targets import missed_targets


def point(
    number: int, family: str, error: float, *, wide: bool = True, valid: bool = True
) -> CalibrationPoint:
    seconds = 1e-5 * 10 ** (number % 4)
    predicted = seconds * (1 + error)
    width = 2.0 if wide else 1.01
    return CalibrationPoint(
        config_fingerprint=f"{family}{number}",
        family=family,
        measured_seconds=seconds if valid else None,
        predicted_seconds=predicted,
        low_seconds=predicted / width,
        high_seconds=predicted * width,
        estimator="process",
        by_estimator={"process": predicted},
        valid=valid,
        valid_probability=0.9 if number % 2 else 0.1,
    )


def report(error: float, *, covered: float = 0.8, family: str = "mlp", invalid: int = 0) -> CalibrationReport:
    points = [point(i, family, error, wide=i < 40 * covered) for i in range(40)]
    points += [point(2 * i + 1, family, error, valid=False) for i in range(invalid)]
    return summarize(points, num_folds=5)


def test_nothing_is_said_of_what_is_reached() -> None:
    assert missed_targets(report(0.1)) == []


def test_pooled_targets() -> None:
    assert missed_targets(report(0.2)) == ["median relative error: 20.0%, more than 12%"]
    both = missed_targets(report(0.5))
    assert both[1] == "90th percentile of the relative error: 50.0%, more than 40%"
    assert missed_targets(report(0.1, covered=0.6)) == ["80 % intervals cover 60.0%, not 75% to 85%"]


def test_targets_within_a_family() -> None:
    """Validity is scored by parity: 20 of 40 that run have 0.1, and every one that does not has 0.9."""
    (line,) = missed_targets(report(0.1, family="conv", invalid=4))
    assert line == "conv: validity AUC 0.250 (40 that run, 4 that do not), below 0.97"
    shuffled = [
        p.model_copy(update={"predicted_seconds": 1e-5 * (1 + i % 7)})
        for i, p in enumerate(report(0.1).points)
    ]
    lines = missed_targets(summarize(shuffled, num_folds=5))
    assert any(line.startswith("mlp: rank correlation") and "of 40, below 0.97" in line for line in lines)


def test_a_family_of_one_speed_has_no_ranks_to_get_right() -> None:
    same = [
        p.model_copy(update={"measured_seconds": 1e-5 + 1e-9 * i, "predicted_seconds": 1.001e-5})
        for i, p in enumerate(report(0.1).points)
    ]
    assert not any("rank" in line for line in missed_targets(summarize(same, num_folds=5)))
