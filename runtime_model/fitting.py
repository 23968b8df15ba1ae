"""Fits a run-time model to timings and measures its error on configurations it was not fitted on.

Every estimator is fitted once per fold, without the fold, and once to everything. For each family the estimator
with the least held-out error predicts; the width of its intervals is stretched until they cover what they say;
a regression on its predictions says whether a configuration runs at all. In the report all three choices are
made for each fold on the other folds, so the reported errors are of unseen configurations.

Deviation from [1]: what was measured to be too slow is fitted to like everything else, and whatever ran counts as
valid: seconds say for which budgets.

[1] Metz et al. 2022, VeLO (arXiv:2211.09760), App. C.4
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from runtime_model.calibration import INTERVAL, INTERVAL_Z, CalibrationPoint, CalibrationReport, summarize
from runtime_model.estimators import ESTIMATORS
from runtime_model.estimators.base import EstimatorConfig, LogSeconds, PredictsValidity
from runtime_model.estimators.transferred import fit_transfer
from runtime_model.prediction import (
    TRANSFERRED,
    FamilyPart,
    RuntimeModel,
    RuntimeModelInfo,
    part_name,
)
from runtime_model.table import TimingTable, timing_table
from runtime_model.timing import StepTiming
from runtime_model.validity import ValidityModel, fit_validity
from task_generator.task_config import TaskConfig

MIN_TIMED = 8
"""Timings that ran, without which a family has no estimator of its own."""
MIN_FOLD_ROWS = 4
STRETCH_PRIOR = 10
"""Rows of a perfectly calibrated family that a family's stretch is shrunk towards."""


class _Fits(NamedTuple):
    """One estimator: its predictions of every row by the fold that left it out, and its final parts."""

    held_out: LogSeconds  # [N]; NaN where the estimator was not fitted
    parts: dict[str, Any]  # part name → fitted
    valid: np.ndarray  # [N] probability of running; NaN where the estimator has no say in it


def fit(
    timings: Sequence[StepTiming],
    *,
    seed: int,
    base: RuntimeModel | None = None,
    num_folds: int = 5,
    estimators: Mapping[str, EstimatorConfig] = ESTIMATORS,
    config_type: type[BaseModel] = TaskConfig,
    on_progress: Callable[[str], None] = lambda _: None,
) -> tuple[RuntimeModel, CalibrationReport]:
    """Fits the model to all timings; the report comes from `num_folds` further fits, each without a fold.

    Args:
      timings: Measurements of one machine, invalid ones included. A configuration measured twice is put in one
        fold.
      seed: Determines folds and initial weights: same timings and seed, same model.
      base: A model fitted elsewhere. Corrected, it competes with the estimators, and predicts the families that
        have no timings here.
      num_folds: Folds of the error estimate; at most the number of configurations.
      estimators: What competes, by name; one must span the families.
      config_type: The class of the configurations in the timings.
      on_progress: Told what is being fitted.

    Raises:
      ValueError: If fewer than 8 configurations ran, and there is no base.
    """
    table = timing_table(timings, config_type)
    _check(table, timings, base)
    fold = _assign_folds(table.fingerprints, num_folds, np.random.default_rng(seed))
    groups = [fold != k for k in range(int(fold.max()) + 1)] + [np.ones(len(fold), bool)]
    fits: dict[str, _Fits] = {}
    if int(table.is_timed.sum()) >= MIN_TIMED:
        for name, estimator in estimators.items():
            on_progress(name)
            fits[name] = _fit_estimator(name, estimator, table, fold, groups, seed)
    if base is not None:
        on_progress(TRANSFERRED)
        fits[TRANSFERRED] = _fit_transferred(base, table, fold, groups, compete=bool(fits))
    families = {}
    points: list[CalibrationPoint] = []
    for family in sorted(set(table.families.tolist())):
        rows = np.flatnonzero(table.families == family)
        families[family], held_out = _choose(family, table, fold, rows, fits, base)
        points += held_out
    machine = next((t.machine for t in timings if t.machine is not None), None)
    spanning = TRANSFERRED if base is not None else next((n for n, f in fits.items() if n in f.parts), None)
    used = {
        spanning,
        *(n for f, part in families.items() for n in (part.estimator, part_name(part.estimator, f))),
    }
    parts = {name: part for f in fits.values() for name, part in f.parts.items() if name in used}
    info = RuntimeModelInfo(
        num_timings=len(timings),
        seed=seed,
        machine=machine,
        families=families,
        fingerprints=tuple(sorted(set(table.fingerprints.tolist()))),
        spanning=spanning,
    )
    return RuntimeModel(info, parts, base), summarize(points, num_folds=len(groups) - 1)


def _check(table: TimingTable, timings: Sequence[StepTiming], base: RuntimeModel | None) -> None:
    num_timed = int(table.is_timed.sum())
    if not timings or (num_timed < MIN_TIMED and base is None):
        reasons = sorted({timing.reason for timing in timings if timing.reason})[:3]
        raise ValueError(
            f"`timings` must hold at least {MIN_TIMED} configurations that ran, got {num_timed} of "
            f"{len(timings)} ({reasons=}). Time more configurations, or raise the time limit."
        )


def _assign_folds(fingerprints: np.ndarray, num_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the fold of each row [N]; equal fingerprints share one, and the folds are of about one size."""
    unique, inverse = np.unique(fingerprints, return_inverse=True)
    order = rng.permutation(len(unique))
    folds: np.ndarray = (order % min(num_folds, len(unique)))[inverse]
    return folds


def _fit_estimator(
    name: str,
    estimator: EstimatorConfig,
    table: TimingTable,
    fold: np.ndarray,
    groups: list[np.ndarray],
    seed: int,
) -> _Fits:
    """Fits one estimator to all families at once, or to one after the other."""
    everything = np.ones(len(fold), bool)
    if estimator.spans_families:
        subsets = {name: everything}
    else:
        subsets = {part_name(name, f): table.families == f for f in sorted(set(table.families.tolist()))}
    mean, std, valid = np.full((3, len(fold)), np.nan)
    parts = {}
    for part, subset in subsets.items():
        inside = [group[subset] for group in groups]
        known = table.is_timed[subset]
        if min(int((group & known).sum()) for group in inside) < MIN_FOLD_ROWS:
            continue
        rows = table.rows(subset)
        fitted = estimator.fit(rows, inside, seed=seed)
        parts[part] = fitted[-1]
        at = np.flatnonzero(subset)
        for k, one in enumerate(fitted[:-1]):
            held = fold[subset] == k
            if held.any():
                mean[at[held]], std[at[held]] = one.predict(rows.rows(held).pairs)
                if isinstance(one, PredictsValidity):
                    valid[at[held]] = one.valid_probability(rows.rows(held).pairs)
    return _Fits(LogSeconds(mean, std), parts, valid)


def _fit_transferred(
    base: RuntimeModel, table: TimingTable, fold: np.ndarray, groups: list[np.ndarray], *, compete: bool
) -> _Fits:
    """Corrects the base; in competition, what the base was fitted to is not held out and not predicted."""
    fitted = fit_transfer(table, groups, base)
    mean, std = np.full((2, len(fold)), np.nan)
    for k, one in enumerate(fitted[:-1]):
        held = fold == k
        rows = table.rows(held)
        there = base.predict_log(rows.pairs, rows.families.tolist())
        mean[held], std[held] = one.correct(there, rows.families.tolist())
    if compete:
        mean[np.isin(table.fingerprints, list(base.info.fingerprints))] = np.nan
    return _Fits(LogSeconds(mean, std), {TRANSFERRED: fitted[-1]}, np.full(len(fold), np.nan))


def _choose(
    family: str,
    table: TimingTable,
    fold: np.ndarray,
    rows: np.ndarray,
    fits: Mapping[str, _Fits],
    base: RuntimeModel | None,
) -> tuple[FamilyPart, list[CalibrationPoint]]:
    """Returns the family's part, chosen on all its rows, and its points, each chosen on the other folds' rows."""
    prior = None if base is None else base.validity_of(family)
    held_out = {
        name: LogSeconds(f.held_out.mean[rows], f.held_out.std[rows])
        for name, f in fits.items()
        if np.isfinite(f.held_out.mean[rows]).all()
    }
    valid_by = {name: f.valid[rows] for name, f in fits.items() if np.isfinite(f.valid[rows]).all()}
    log_seconds, is_valid = table.log_seconds[rows], table.is_valid[rows]
    pairs = [table.pairs[row] for row in rows]

    def decide(use: np.ndarray) -> tuple[str, float, ValidityModel]:
        name = _best(held_out, log_seconds, use & is_valid)
        chosen = held_out[name]
        stretch = _stretch(chosen, log_seconds, use & is_valid)
        kept = [p for p, wanted in zip(pairs, use, strict=True) if wanted]
        return name, stretch, fit_validity(kept, chosen.mean[use], is_valid[use], prior=prior)

    points = []
    for k in np.unique(fold[rows]):
        here = fold[rows] == k
        name, stretch, validity = decide(~here)
        at = np.flatnonzero(here)
        probability = validity.probability([pairs[i] for i in at], held_out[name].mean[at])
        for i, runs in zip(at, probability, strict=True):
            points.append(
                _point(
                    table,
                    rows[i],
                    name,
                    stretch,
                    float(runs),
                    {n: _row(h, int(i)) for n, h in held_out.items()},
                    {n: float(probability[i]) for n, probability in valid_by.items()},
                )
            )
    name, stretch, validity = decide(np.ones(len(rows), bool))
    part = FamilyPart(
        estimator=name,
        stretch=stretch,
        validity=validity,
        num_timings=len(rows),
        num_timed=int(np.isfinite(log_seconds).sum()),
    )
    return part, points


def _best(held_out: Mapping[str, LogSeconds], log_seconds: np.ndarray, use: np.ndarray) -> str:
    """Returns the estimator with the least mean absolute error of log seconds.

    Among equals, and where no row decides, a model of other timings comes first, then the order of fitting.
    """
    use = use & np.isfinite(log_seconds)
    errors = {
        name: float(np.abs(one.mean[use] - log_seconds[use]).mean()) if use.any() else 0.0
        for name, one in held_out.items()
    }
    return min(errors, key=lambda name: (errors[name], name != TRANSFERRED))


def _stretch(predicted: LogSeconds, log_seconds: np.ndarray, use: np.ndarray) -> float:
    """Returns the factor on the standard deviations with which 80 % intervals cover 80 % of the rows."""
    use = use & np.isfinite(log_seconds)
    scores = np.abs(predicted.mean[use] - log_seconds[use]) / predicted.std[use]
    wanted = np.quantile(scores, INTERVAL) / INTERVAL_Z if len(scores) else 1.0
    return float(np.exp(len(scores) * np.log(max(wanted, 0.05)) / (len(scores) + STRETCH_PRIOR)))


def _row(predicted: LogSeconds, index: int) -> tuple[float, float]:
    return float(predicted.mean[index]), float(predicted.std[index])


def _point(
    table: TimingTable,
    row: int,
    name: str,
    stretch: float,
    probability: float,
    predicted: Mapping[str, tuple[float, float]],
    valid_by_estimator: Mapping[str, float],
) -> CalibrationPoint:
    mean, std = predicted[name]
    seconds, width = float(np.exp(mean)), float(np.exp(INTERVAL_Z * stretch * std))
    measured = table.log_seconds[row]
    return CalibrationPoint(
        config_fingerprint=str(table.fingerprints[row]),
        family=str(table.families[row]),
        measured_seconds=float(np.exp(measured)) if np.isfinite(measured) else None,
        predicted_seconds=seconds,
        low_seconds=seconds / width,
        high_seconds=seconds * width,
        estimator=name,
        by_estimator={n: float(np.exp(m)) for n, (m, _) in predicted.items()},
        valid=bool(table.is_valid[row]),
        valid_probability=probability,
        valid_by_estimator=valid_by_estimator,
    )
