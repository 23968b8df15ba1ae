"""Where an optimizer ends among equally good minima: on ½ (x − y)², every point with x = y is one.

Plain gradient descent keeps x + y, so it ends at the nearest minimum; one that pulls weights towards zero while it
minimises ends closer to the origin.

[1] Metz et al. 2020, "Tasks, stability, architecture, and compute", 4.3 and Fig. 4.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from curriculum.probes.base import Bench, Panel, Probe, ProbeResult, Series, Subject, floats
from curriculum.probes.training import Learner, learner_of, run_keys, tuned, windows
from lopt.types import Batch, PRNGKey, Scalar, Split, TaskState

VIEW = 1.6
"""What is shown ends at so many times the grid's extent: an optimizer that runs away must not hide the starts."""


@dataclasses.dataclass(frozen=True)
class ValleyTask:
    """½ (x − y)² from one start; the parameters are one tensor of two numbers."""

    start: jax.Array

    def init(self, key: PRNGKey) -> TaskState:
        """Returns the start."""
        del key
        return TaskState({"xy": self.start})

    def batch(self, key: PRNGKey, split: Split = "train") -> Batch:
        """Returns nothing: there are no data."""
        del key, split
        return ()

    def loss(self, state: TaskState, key: PRNGKey, batch: Batch) -> tuple[Scalar, TaskState]:
        """Returns ½ (x − y)²."""
        del key, batch
        point = state.params["xy"]
        return 0.5 * jnp.square(point[0] - point[1]), state

    def normalize(self, loss: Scalar) -> Scalar:
        """Returns the loss itself."""
        return loss


class ImplicitRegularization(Probe):
    """Follows trajectories over the valley from a grid of starts."""

    name: ClassVar[str] = "implicit_regularization"
    title: ClassVar[str] = "Implicit regularisation on ½ (x − y)²"
    question: ClassVar[str] = "Among equally good minima, does the optimizer prefer small weights?"
    source: ClassVar[str] = "Metz et al. 2020, 4.3, Fig. 4"
    how_to_read: ClassVar[str] = (
        "All points of the diagonal are minima. From every start (small dots) a line leads to where the "
        "optimizer ends (large dots). Without regularisation it goes straight to the nearest point of the "
        "diagonal, at a right angle, as in Adam's panel. Lines that bend towards the centre, and ends that "
        "crowd there, show a pull towards small weights that the loss does not ask for; lines that run along "
        "the diagonal away from the centre show the opposite, weights that grow. The factor above each panel "
        "is how far from the origin the end is along the diagonal, over the nearest minimum. 1 ×: no "
        "preference; below: a pull inwards; above: a push outwards."
    )
    deviations: ClassVar[str] = (
        "Starts on a regular grid; x and y are one tensor; the factor is ours; Adam's rate is given."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {"side": 3, "num_points": 5, "stride": 4}

    side: int = Field(6, ge=2, le=20)
    """Starts along each side of the grid."""
    extent: float = Field(2.0, gt=0)
    """The grid's corners are at ± this."""
    num_points: int = Field(40, ge=2)
    """Points along a trajectory."""
    stride: int = Field(10, ge=1)
    """Steps between them."""
    adam_rate: float = Field(3e-2, gt=0)

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns the trajectories, Adam's first."""
        del bench
        starts = self._starts()
        panels, findings = [], []
        for learner in (tuned("adam", (self.adam_rate,)), learner_of(subject)):
            paths = self._paths(learner, starts)
            panels.append(self._panel(learner.name, paths))
            findings.append(_finding(learner.name, paths))
        counted = "starts, a trajectory each"
        return self.result(subject, panels, n=len(starts), counted=counted, findings=findings, columns=2)

    def _starts(self) -> np.ndarray:
        """Returns the grid without its diagonal: [starts, 2]."""
        line = np.linspace(-self.extent, self.extent, self.side)
        grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
        return grid[grid[:, 0] != grid[:, 1]]

    def _paths(self, learner: Learner, starts: np.ndarray) -> np.ndarray:
        """Returns the trajectories, the start included: [starts, points + 1, 2]."""
        num_steps = jnp.int32(self.num_points * self.stride)
        setting = jax.tree.map(lambda x: x[0], learner.settings)
        key = run_keys(self.seed, 1)[0]

        def one(start: jax.Array, setting: Any) -> jax.Array:
            return windows(
                ValleyTask(start),
                learner.transform(setting, num_steps),
                key,
                stride=self.stride,
                num_windows=self.num_points,
                measure=lambda inner: inner.task_state.params["xy"],
                mean=False,
            )

        paths = jax.jit(jax.vmap(one, in_axes=(0, None)))(jnp.asarray(starts, jnp.float32), setting)
        return np.concatenate([starts[:, None], np.asarray(paths, np.float64)], axis=1)

    def _panel(self, title: str, paths: np.ndarray) -> Panel:
        edge = VIEW * self.extent
        diagonal = Series(
            name="minima, x = y", role="reference", x=(-edge, edge), y=(-edge, edge), n=len(paths)
        )
        lines = [
            Series(name="trajectory", role="other", x=floats(path[:, 0]), y=floats(path[:, 1]), n=len(paths))
            for path in paths
        ]
        ends = Series(
            name="end",
            role="subject",
            marked=True,
            x=floats(paths[:, -1, 0]),
            y=floats(paths[:, -1, 1]),
            n=len(paths),
        )
        outside = int(np.sum(np.abs(paths[:, -1]).max(axis=1) > VIEW * self.extent))
        note = f" · {outside} of {len(paths)} outside" if outside else ""
        return Panel(
            title=f"{title} · {np.median(reach(paths)):.2f} × the nearest{note}",
            kind="points",
            x_label="x",
            y_label="y",
            equal_axes=True,
            limit=VIEW * self.extent,
            series=(diagonal, *lines, ends),
        )


def reach(paths: np.ndarray) -> np.ndarray:
    """Returns, per trajectory, how far the end is from the origin along the diagonal, over the nearest minimum's.

    Starts whose nearest minimum is the origin itself say nothing and are left out. Nothing confines the ratio: a
    negative one has gone past the origin.
    """
    along = paths.sum(axis=2)  # √2 times the coordinate along the diagonal, which plain descent keeps
    telling = np.abs(along[:, 0]) > 1e-6
    return along[telling, -1] / along[telling, 0]


def _finding(name: str, paths: np.ndarray) -> str:
    ratios = reach(paths)
    gap = np.abs(paths[:, -1, 0] - paths[:, -1, 1])
    return (
        f"{name}: ends at {np.median(ratios):.2f} × the nearest minimum (median; from {ratios.min():.2f} to "
        f"{ratios.max():.2f} over {len(ratios)} starts); the largest |x − y| left is {gap.max():.1e}."
    )
