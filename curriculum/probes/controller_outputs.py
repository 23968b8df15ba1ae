"""What the per-tensor LSTM says, over tasks, tensors and time, in two dimensions.

[1] Metz et al. 2022, "VeLO", G.6, Figs. 32 and 33.  [2] van der Maaten & Hinton 2008, t-SNE.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field
from scipy.stats import rankdata

from curriculum.probes.base import (
    Bench,
    Panel,
    Probe,
    ProbeResult,
    Series,
    Subject,
    default_architecture,
    floats,
    names_of,
)
from curriculum.probes.tasks import autoencoder, conv, mlp, quadratic, transformer
from curriculum.probes.training import run_keys, windows
from lopt import nn
from lopt.architectures import ARCHITECTURES
from lopt.family_data import Data, separate_data
from lopt.types import LearnedOptimizer, PRNGKey
from task_generator.task_config import TaskConfig

CONTROLS = "controls"
"""The field of a state that holds what a controller says per tensor."""


def tensor_outputs(state: Any) -> jax.Array | None:
    """Returns the outputs of a state's per-tensor recurrent network, [tensors, outputs]; None if it has none.

    What it says if the state holds that (`velo`), else its hidden state.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if path and getattr(path[-1], "name", None) == CONTROLS and leaf.ndim == 2:
            return leaf
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, nn.LstmState))
    cells = [node.hidden for node in nodes if isinstance(node, nn.LstmState) and node.hidden.ndim == 2]
    return cells[0] if cells else None


def _has_outputs(learned: LearnedOptimizer) -> bool:
    params = {"w": jnp.zeros((2, 3))}
    state = jax.eval_shape(
        lambda key: learned.transform(learned.init_theta(key), num_steps=1).init(params), jax.random.key(0)
    )
    outputs = tensor_outputs(state)
    return outputs is not None and outputs.shape[0] == 1 and outputs.shape[1] > 2


class ControllerOutputs(Probe):
    """Records the outputs on several tasks, and embeds a sample of them with t-SNE."""

    name: ClassVar[str] = "controller_outputs"
    title: ClassVar[str] = "Per-tensor LSTM outputs in two dimensions"
    question: ClassVar[str] = (
        "Does the controller say different things on different tasks, and at different times?"
    )
    source: ClassVar[str] = "Metz et al. 2022 (VeLO), G.6, Figs. 32 and 33"
    how_to_read: ClassVar[str] = (
        "Each point is what the per-tensor network said for one tensor at one step, placed by t-SNE so that "
        "similar outputs lie together. The three panels hold the same points: coloured by the kind of task, by "
        "how far the run had come, and by the number of the tensor's dimensions. Clusters of one colour say "
        "that the controller treats those alike; colours that mix everywhere say that it does not tell them "
        "apart. Only neighbourhoods mean something: neither axes nor distances between clusters do. The "
        "agreement in the findings is the share of points whose nearest neighbour among the outputs themselves "
        "is of the same task, beside what chance would give."
    )
    deviations: ClassVar[str] = (
        "A handful of tasks instead of about a hundred and about 1,500 points instead of 800,000, equally many "
        "per task; t-SNE on outputs standardised over all points; the third panel and the agreement are ours."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {
        "tasks": (quadratic(dimension=4), quadratic(dimension=6)),
        "num_steps": 12,
        "num_points": 24,
        "perplexity": 5.0,
        "num_seeds": 1,
    }

    tasks: tuple[TaskConfig, ...] = Field(
        (mlp(), conv(), autoencoder(), transformer(), quadratic()), min_length=2, max_length=6
    )
    num_steps: int = Field(200, ge=2)
    num_points: int = Field(1500, ge=12, le=5_000)
    """Points embedded, over all tasks."""
    perplexity: float = Field(30.0, gt=1)
    num_seeds: int = Field(2, ge=1, le=100)

    def refuses(self, subject: Subject) -> str | None:
        """Returns why, for an optimizer without a network per tensor that says several numbers."""
        if _has_outputs(subject.learned()):
            return None
        fitting = [name for name in ARCHITECTURES if _has_outputs(default_architecture(name))]
        return f"it has no LSTM per tensor; those that have one: {names_of(fitting)}"

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns the embedded points, coloured in three ways."""
        del bench
        per_task = max(self.num_points // len(self.tasks), 2)
        outputs, kinds, fractions, ranks = [], [], [], []
        for index, task in enumerate(self.tasks):
            found, dimensions = self._outputs(subject, task)
            chosen = self._sample(found.shape[:3], per_task, index)
            outputs.append(found[chosen])
            kinds.append(np.full(len(chosen[0]), index))
            fractions.append((chosen[1] + 1) / self.num_steps)
            ranks.append(dimensions[chosen[2]])
        points = np.concatenate(outputs)
        standard = (points - points.mean(axis=0)) / np.maximum(points.std(axis=0), 1e-12)
        names = [task.family.family for task in self.tasks]
        where = self._embed(standard)
        kind, fraction, rank = (np.concatenate(part) for part in (kinds, fractions, ranks))
        panels = (
            _by_kind(where, kind, names),
            _by_number(where, fraction, "Coloured by time", "share of the run made"),
            _by_number(where, rank, "Coloured by tensor", "dimensions of the tensor"),
        )
        findings = _findings(standard, kind, fraction)
        counted = f"points: outputs for one tensor at one step, from {self.num_seeds} runs of each task"
        return self.result(subject, panels, n=len(points), counted=counted, findings=findings)

    def _outputs(self, subject: Subject, task: TaskConfig) -> tuple[np.ndarray, np.ndarray]:
        """Returns outputs [seeds, steps, tensors, k] and the tensors' numbers of dimensions [tensors]."""
        family, learned = task.build(), subject.learned()
        data, with_data = separate_data(family)

        def measured(inner: Any) -> jax.Array:
            outputs = tensor_outputs(inner.optimizer_state)
            assert outputs is not None, "checked by `refuses`"
            return outputs

        def one(data: Data, theta: Any, key: PRNGKey) -> jax.Array:
            family = with_data(data)
            dynamic_key, run_key = jax.random.split(key)
            return windows(
                family.task(family.sample_dynamic(dynamic_key)),
                learned.transform(theta, num_steps=jnp.int32(self.num_steps)),
                run_key,
                stride=1,
                num_windows=self.num_steps,
                measure=measured,
                mean=False,
            )

        keys, theta = run_keys(self.seed, self.num_seeds), jax.tree.map(jnp.asarray, subject.theta)
        found = jax.jit(jax.vmap(one, in_axes=(None, None, 0)))(data, theta, keys)
        params = jax.eval_shape(lambda key: family.task(family.sample_dynamic(key)).init(key), keys[0]).params
        dimensions = [len(leaf.shape) for leaf in jax.tree.leaves(params) if leaf.size]
        return np.asarray(found, np.float64), np.asarray(dimensions, np.float64)

    def _sample(self, shape: tuple[int, ...], count: int, task: int) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng((self.seed, task))
        total = int(np.prod(shape))
        flat = np.sort(rng.choice(total, size=min(count, total), replace=False))
        return np.unravel_index(flat, shape)

    def _embed(self, points: np.ndarray) -> np.ndarray:
        from sklearn.manifold import TSNE  # takes a second to import: only where it is needed

        perplexity = min(self.perplexity, (len(points) - 1) / 3)
        embedding = TSNE(perplexity=perplexity, init="pca", random_state=self.seed, n_jobs=1)
        return np.asarray(embedding.fit_transform(points), np.float64)


def _by_kind(where: np.ndarray, kind: np.ndarray, names: list[str]) -> Panel:
    series = [
        Series(
            name=name,
            role="category",
            x=floats(where[kind == index, 0]),
            y=floats(where[kind == index, 1]),
            n=int(np.sum(kind == index)),
        )
        for index, name in enumerate(names)
    ]
    return _panel("Coloured by task", "", tuple(series))


def _by_number(where: np.ndarray, number: np.ndarray, title: str, label: str) -> Panel:
    points = Series(
        name=label, x=floats(where[:, 0]), y=floats(where[:, 1]), colour=floats(number), n=len(where)
    )
    return _panel(title, label, (points,))


def _panel(title: str, label: str, series: tuple[Series, ...]) -> Panel:
    return Panel(
        title=title,
        kind="points",
        x_label="t-SNE 1",
        y_label="t-SNE 2",
        colour_label=label,
        equal_axes=True,
        series=series,
    )


def _findings(points: np.ndarray, kind: np.ndarray, fraction: np.ndarray) -> list[str]:
    """Returns how often a nearest neighbour is of the same task, and how alike neighbours' times are."""
    squares = np.sum(points**2, axis=1)
    distances = squares[:, None] + squares[None, :] - 2.0 * points @ points.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.argmin(distances, axis=1)
    counts: Mapping[int, int] = {int(k): int(np.sum(kind == k)) for k in np.unique(kind)}
    chance = sum((c / len(kind)) * ((c - 1) / (len(kind) - 1)) for c in counts.values())
    time_rank = rankdata(fraction)
    related = np.corrcoef(time_rank, time_rank[nearest])[0, 1]
    return [
        f"The nearest neighbour is of the same task for {100 * np.mean(kind == kind[nearest]):.0f} % of "
        f"{len(kind)} points (by chance: {100 * chance:.0f} %).",
        f"Rank correlation between a point's time and its nearest neighbour's: {related:.2f} (by chance: 0).",
    ]
