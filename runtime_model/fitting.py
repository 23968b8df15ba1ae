"""Fits a run-time model to timings and measures its error on configurations it was not fitted on.

All members of all cross-validation folds, and those of the final model, are fitted in one compiled program:
a fold is nothing but a set of row weights. Within a fold every member sets aside its own validation rows,
which choose its step; the fold's own rows play no part, so the reported error is of unseen configurations.
One choice is made on those rows: whether the deep set corrects the seconds, or the regression stands alone.

Deviation from [1]: one model for all families (the family is a category and qualifies the keys), fitted to
log seconds of everything that ran, too slow ones included, with validity as a second output of the same
network.

[1] Metz et al. 2022, VeLO (arXiv:2211.09760), App. C.4
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel

from runtime_model.calibration import CalibrationPoint, CalibrationReport, summarize
from runtime_model.ensemble import (
    FitSettings,
    Member,
    Targets,
    apply_member,
    base_log_seconds,
    fit_members,
)
from runtime_model.features import ConfigFeatures, build_vocabulary, featurize, read_pairs
from runtime_model.kernel import coordinate_weights, coordinates, kernel
from runtime_model.network import NetworkConfig
from runtime_model.prediction import ModelArrays, RuntimeModel, RuntimeModelInfo
from runtime_model.timing import StepTiming
from task_generator.task_config import TaskConfig

MIN_TIMED = 8


def fit(
    timings: Sequence[StepTiming],
    *,
    seed: int,
    num_steps: int = 200,
    num_members: int = 4,
    num_folds: int = 5,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    validation_fraction: float = 0.2,
    config_type: type[BaseModel] = TaskConfig,
) -> tuple[RuntimeModel, CalibrationReport]:
    """Fits the model to all timings; the report comes from `num_folds` further fits, each without a fold.

    Args:
      timings: Measurements, invalid ones included. A configuration measured twice is put in one fold.
      seed: Determines folds, validation rows and initial weights: same timings and seed, same model.
      num_steps: Adam steps per member, full batch.
      num_members: Members of the ensemble.
      num_folds: Folds of the error estimate; at most the number of configurations.
      learning_rate: Initial; decays along a cosine.
      weight_decay: Of the deep set.
      validation_fraction: Part of a member's rows that chooses its step.
      config_type: The class of the configurations in the timings.

    Raises:
      ValueError: If fewer than 8 configurations ran.
    """
    num_timed = sum(timing.seconds_per_step is not None for timing in timings)
    if num_timed < MIN_TIMED:
        reasons = sorted({timing.reason for timing in timings if timing.reason})[:3]
        raise ValueError(
            f"`timings` must hold at least {MIN_TIMED} configurations that ran, got {num_timed} of "
            f"{len(timings)} ({reasons=}). Time more configurations, or raise the time limit."
        )
    pairs = [read_pairs(config_type.model_validate_json(timing.config_json)) for timing in timings]
    vocabulary = build_vocabulary(config_type, pairs)
    network = NetworkConfig(num_keys=vocabulary.num_keys, num_values=vocabulary.num_values)
    features, targets = featurize(pairs, vocabulary), _targets(timings)
    rng = np.random.default_rng(seed)
    fold = _assign_folds([timing.config_fingerprint for timing in timings], num_folds, rng)
    folds = int(fold.max()) + 1
    train, validation = _row_weights(fold, folds, num_members, validation_fraction, rng)
    keys = jax.random.split(jax.random.key(seed), train.shape[:2])
    settings = FitSettings(num_steps, learning_rate, weight_decay)
    points = coordinates(features, jnp.asarray(coordinate_weights(vocabulary)), network.num_keys)
    members, _ = fit_members(
        keys, train, validation, points, features, targets, network=network, settings=settings
    )
    info = RuntimeModelInfo(
        vocabulary=vocabulary,
        network=network,
        num_members=num_members,
        num_timings=len(timings),
        seed=seed,
        hardware=timings[0].hardware,
        jax_version=timings[0].jax_version,
        optimizer=timings[0].optimizer,
    )
    report = _held_out(timings, members, points, features, network, fold)
    final = jax.tree.map(lambda leaf: leaf[-1], members)
    if not report.uses_deep_set:
        final = final._replace(time_network=jax.tree.map(jnp.zeros_like, final.time_network))
    return RuntimeModel(info, ModelArrays(points, final)), report


def _targets(timings: Sequence[StepTiming]) -> Targets:
    seconds = [timing.seconds_per_step for timing in timings]
    return Targets(
        log_seconds=jnp.asarray([math.log(s) if s else 0.0 for s in seconds], jnp.float32),
        is_timed=jnp.asarray([float(bool(s)) for s in seconds], jnp.float32),
        is_valid=jnp.asarray([float(timing.valid) for timing in timings], jnp.float32),
    )


def _assign_folds(fingerprints: Sequence[str], num_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the fold of each row [N]; equal fingerprints share one, and the folds are of about one size."""
    unique, inverse = np.unique(np.asarray(fingerprints), return_inverse=True)
    order = rng.permutation(len(unique))
    folds: np.ndarray = (order % min(num_folds, len(unique)))[inverse]
    return folds


def _row_weights(
    fold: np.ndarray, num_folds: int, num_members: int, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns train and validation weights [num_folds + 1, M, N]; the last group holds no fold out."""
    shape = (num_folds + 1, num_members, len(fold))
    train, validation = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for group in range(num_folds + 1):
        rows = np.flatnonzero(fold != group)
        for member in range(num_members):
            order = rng.permutation(rows)
            count = max(1, round(fraction * len(rows)))
            validation[group, member, order[:count]] = 1.0
            train[group, member, order[count:]] = 1.0
    return train, validation


def _held_out(
    timings: Sequence[StepTiming],
    members: Member,
    points: jax.Array,
    features: ConfigFeatures,
    network: NetworkConfig,
    fold: np.ndarray,
) -> CalibrationReport:
    """Predicts each row with the members of the fold that left it out, by the better of the two models."""
    gram = kernel(points, points)

    @jax.jit
    def apply(members: Member) -> tuple[jax.Array, jax.Array, jax.Array]:
        def one(member: Member) -> tuple[jax.Array, jax.Array, jax.Array]:
            base = base_log_seconds(member, gram)
            return *apply_member(member, base, features, network), base

        return jax.vmap(jax.vmap(one))(members)

    groups = [np.asarray(values) for values in apply(members)]  # [folds + 1, members, N]
    rows = np.arange(len(fold))
    held_log, held_logit, held_base = (group[fold, :, rows] for group in groups)  # [N, members]
    probability = (1.0 / (1.0 + np.exp(-held_logit.astype(np.float64)))).mean(axis=1)
    log_corrected, log_base = held_log.mean(axis=1), held_base.mean(axis=1)
    uses_deep_set = _corrects(timings, log_corrected, log_base)
    predicted, base = np.exp(log_corrected if uses_deep_set else log_base), np.exp(log_base)
    held_out = [
        CalibrationPoint(
            config_fingerprint=timing.config_fingerprint,
            family=timing.family,
            measured_seconds=timing.seconds_per_step,
            predicted_seconds=float(predicted[i]),
            base_seconds=float(base[i]),
            valid=timing.valid,
            valid_probability=float(probability[i]),
        )
        for i, timing in enumerate(timings)
    ]
    return summarize(held_out, num_folds=int(fold.max()) + 1, uses_deep_set=uses_deep_set)


def _corrects(timings: Sequence[StepTiming], corrected: np.ndarray, base: np.ndarray) -> bool:
    """Returns whether the deep set lowers the held-out squared error of log seconds over what ran."""
    measured = {
        i: math.log(timing.seconds_per_step) for i, timing in enumerate(timings) if timing.seconds_per_step
    }
    rows, truth = list(measured), np.asarray(list(measured.values()))
    return bool(((corrected[rows] - truth) ** 2).sum() < ((base[rows] - truth) ** 2).sum())
