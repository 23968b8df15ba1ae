"""What evolution strategies see of an optimizer: how its loss changes where θ is perturbed, by σ and length of run.

[1] Metz et al. 2018, arXiv:1810.10180, 3 and Fig. 3 (losses over θ get rougher with longer runs; smoothing by σ).
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from pydantic import Field, field_validator

from curriculum.probes.base import Bench, Panel, Probe, ProbeResult, Series, Subject
from curriculum.probes.tasks import autoencoder, conv, mlp, quadratic
from curriculum.probes.training import PROBE_STREAM, Learner, Trainer, run_keys
from curriculum.worker import key_from_seed
from lopt.objective import ObjectiveConfig, bounded, scaled
from task_generator.task_config import TaskConfig

DIRECTIONS = 2**20
"""Number of the stream that directions come from: above those of runs."""
OBJECTIVE = ObjectiveConfig()
"""The logarithm of a loss, and what a run that diverged counts as, are those of meta-training."""


class Smoothness(NamedTuple):
    """What perturbing θ did to a task's loss, at one σ."""

    cost: float
    """E L(θ ± σε) − L(θ): what the smoothed loss lies above the loss itself."""
    difference: float
    """Root mean square of (L(θ + σε) − L(θ − σε)) / 2."""
    repeated: float
    """Correlation of such differences between runs with other initialisations and batches, same ε."""


class Smoothing(Probe):
    """Trains the same tasks with θ and with antithetic pairs θ ± σε."""

    name: ClassVar[str] = "smoothing"
    title: ClassVar[str] = "Smoothing: what evolution strategies see"
    question: ClassVar[str] = "Which σ suits meta-training from here on, at these lengths of run?"
    source: ClassVar[str] = "Metz et al. 2018, 3, Fig. 3"
    how_to_read: ClassVar[str] = (
        "Evolution strategies don't minimise the loss of θ but its mean over θ + σε, and learn from differences of "
        "antithetic pairs. Left: how much worse than θ such neighbours are, in units of the log loss. Middle: how "
        "large the differences are. Where the left number is not well below the middle one, the smoothed loss is "
        "another function than the loss, and its minimum elsewhere: lower σ. Right: how much of a difference comes "
        "back in another run of the same task (1: all of it). Near 0 it is chance, and averages out slowly: raise "
        "σ, or use more tasks per unit. What is well placed for short runs is often too wide for long ones."
    )
    deviations: ClassVar[str] = (
        "The paper draws the loss along one line through θ; here are numbers over random directions, of "
        "the logarithm of the training loss as it is. Costs are means over pairs: one can be negative by chance."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {
        "tasks": (quadratic(dimension=4),),
        "horizons": (8, 32),
        "sigmas": (0.01, 0.1),
        "num_pairs": 3,
    }

    tasks: tuple[TaskConfig, ...] = Field(
        (mlp(num_layers=1), autoencoder(), conv()), min_length=1, max_length=4
    )
    horizons: tuple[int, ...] = Field((100, 1000), min_length=1, max_length=4)
    """Lengths that runs are told; the longest is drawn solid."""
    sigmas: tuple[float, ...] = Field((0.003, 0.01, 0.03, 0.1), min_length=2)
    """Scales of the perturbation, rising."""
    num_pairs: int = Field(16, ge=2, le=1000)
    """Antithetic pairs; the same directions at every σ, length and task."""
    num_seeds: int = Field(2, ge=2, le=100)
    """Runs per θ, with other initialisations and batches; the same for all θ."""

    @field_validator("sigmas")
    @classmethod
    def _check_rising(cls, sigmas: tuple[float, ...]) -> tuple[float, ...]:
        if list(sigmas) != sorted(set(sigmas)) or sigmas[0] <= 0:
            raise ValueError(f"`sigmas` must rise from above 0, got {sigmas}")
        return sigmas

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns cost, difference and repeated share per task, length and σ."""
        del bench
        trainer = Trainer(self._neighbours(subject), num_points=2, splits=("train",))
        keys = run_keys(self.seed, self.num_seeds)
        series: dict[str, list[Series]] = {field: [] for field in Smoothness._fields}
        findings = []
        longest_first = sorted(self.horizons, reverse=True)  # a solid line, then dashed ones of its colour
        for task in self.tasks:
            family = task.build()
            for horizon in longest_first:
                losses = trainer(family, keys, horizon=horizon).losses["train"][..., -1]
                found = self._smoothness(losses)
                label = f"{task.family.family} · {horizon} steps"
                for field, made in series.items():
                    made.append(self._series(label, horizon, [getattr(each, field) for each in found]))
                findings.append(_sentence(label, self.sigmas, found))
        counted = "antithetic pairs"
        return self.result(subject, _panels(series), n=self.num_pairs, counted=counted, findings=findings)

    def _neighbours(self, subject: Subject) -> Learner:
        """Returns the optimizer with θ itself, then θ + σε of every pair, then θ − σε, σ by σ."""
        learned = subject.learned()
        flat, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), subject.theta))
        directions = jax.random.normal(
            key_from_seed((PROBE_STREAM, self.seed, DIRECTIONS)), (self.num_pairs, flat.size)
        )
        moved = [flat[None] + sign * sigma * directions for sigma in self.sigmas for sign in (1.0, -1.0)]
        settings = jax.vmap(unravel)(jnp.concatenate([flat[None], *moved]))
        return Learner(
            subject.label, lambda theta, steps: learned.transform(theta, num_steps=steps), settings
        )

    def _smoothness(self, losses: np.ndarray) -> list[Smoothness]:
        """Returns what every σ did, from the losses [1 + 2 · pairs · σs, seeds] of `_neighbours`."""
        finite = bounded(jnp.asarray(losses), cap=OBJECTIVE.loss_cap)
        values = np.asarray(scaled(finite, OBJECTIVE, jnp.float32(1.0)), np.float64)
        moved = values[1:].reshape(len(self.sigmas), 2, self.num_pairs, -1)
        return [smoothness(values[0], plus, minus) for plus, minus in moved]

    def _series(self, label: str, horizon: int, values: list[float]) -> Series:
        shape = "solid" if horizon == max(self.horizons) else "dashed"
        return Series(
            name=label,
            role="category",
            x=self.sigmas,
            y=tuple(values),
            shape=shape,
            marked=True,
            n=self.num_pairs * self.num_seeds,
        )


def smoothness(at_theta: np.ndarray, plus: np.ndarray, minus: np.ndarray) -> Smoothness:
    """Returns what perturbing did, from log losses at θ [seeds] and of both twins [pairs, seeds].

    Differences have mean 0 over directions by symmetry, so that their correlation is about 0, not about a mean.
    That between two seeds is averaged over all pairs of them.
    """
    differences = (plus - minus) / 2.0
    cost = float(np.mean((plus + minus) / 2.0 - at_theta))
    products = differences.T @ differences
    num_seeds = len(at_theta)
    own = float(np.trace(products)) / num_seeds
    between = float(products.sum() - np.trace(products)) / (num_seeds * (num_seeds - 1))
    return Smoothness(cost, float(np.sqrt(np.mean(differences**2))), between / own if own > 0 else 0.0)


def _sentence(label: str, sigmas: tuple[float, ...], found: list[Smoothness]) -> str:
    parts = [
        f"{each.cost:+.3f} beside differences of {each.difference:.3f}, {each.repeated:.0%} repeated (σ {sigma:g})"
        for sigma, each in zip(sigmas, found, strict=True)
    ]
    return f"{label}: log loss {'; '.join(parts)}."


def _panels(series: dict[str, list[Series]]) -> tuple[Panel, ...]:
    said = {
        "cost": ("How much worse the neighbours are", "mean log loss above that of θ"),
        "difference": ("How far apart twins are", "RMS of half their difference in log loss"),
        "repeated": ("What another run repeats", "correlation between runs"),
    }
    return tuple(
        Panel(
            title=title,
            x_label="σ",
            y_label=label,
            x_scale="log",
            y_scale="log" if field == "difference" else "linear",
            series=tuple(series[field]),
        )
        for field, (title, label) in said.items()
    )
