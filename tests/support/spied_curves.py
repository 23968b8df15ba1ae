"""Curves of small tasks, and a pool that notes which of them it was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from curriculum.evaluation.curves import CurveBatch
from curriculum.worker import InProcessWorkerPool
from flows.evaluation.curves import CurveJob, compute_curves
from flows.optimizer_reference import OptimizerReference, optimizer_fingerprint
from flows.session import Session
from lopt.architectures import ARCHITECTURES
from task_generator.evaluation_set import EvaluationTask
from task_generator.families import FAMILIES
from task_generator.task_config import TaskConfig

SIZES = {"hidden_size": 4, "num_layers": 1, "image_size": 4, "batch_size": 8}


def task_on(dataset: str) -> EvaluationTask:
    fields = {**SIZES, "dataset": dataset, "activation": "relu", "initializer": "normal"}
    return EvaluationTask(name="t", config=TaskConfig(family=FAMILIES["mlp"].model_validate(fields)))


class SpyPool(InProcessWorkerPool):
    """Runs units here, and notes the curves that each was asked for: (first number of the setting, seed).

    The last unit ends first: nothing may rest on the order in which workers are done.
    """

    def __init__(self) -> None:
        self.units: list[set[tuple[float, int]]] = []
        self.timeouts: list[float | None] = []

    def imap_unordered(
        self, fn: Any, payloads: Sequence[Any], *, timeout: float | None, **options: Any
    ) -> Iterator[tuple[int, Any]]:
        self.timeouts.append(timeout)
        for unit, settings, _ in payloads:
            firsts = [float(np.ravel(jax.tree.leaves(setting)[0])[0]) for setting in settings]
            self.units.append({(first, seed) for first in firsts for seed in unit.seeds})
        return reversed(list(super().imap_unordered(fn, payloads, **options)))

    def taken(self) -> list[tuple[float, int]]:
        """Returns what was asked for since the last time; a curve that was asked for twice is there twice."""
        units, self.units = self.units, []
        return sorted(curve for unit in units for curve in unit)

    def close(self) -> None:
        pass


def compute(jobs: list[CurveJob], session: Session) -> dict[tuple[str, str], CurveBatch]:
    return compute_curves(jobs, session, lambda _: None).batches


def optimizer(value: float, initial: float = 0.0) -> OptimizerReference:
    architecture = ARCHITECTURES["pacer"]().canonical_json()
    theta, start = {"w": np.full(2, value, np.float32)}, {"w": np.full(2, initial, np.float32)}
    return OptimizerReference(
        "x", None, architecture, theta, 0, start, optimizer_fingerprint(architecture, theta)
    )
