"""Learning curves for evaluation: one unit trains one task with many settings and seeds in one program.

A unit is either a learned optimizer at several thetas or a baseline at several learning rates; both are one
axis of a `vmap`, seeds are the other, so that tuning over fifteen rates costs one compilation.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from curriculum.worker import build_optimizer, key_from_seed
from lopt.baselines import BASELINES
from lopt.family_data import Data, separate_data
from lopt.inner_loop import EvalParams, LearningCurve, train_curve
from lopt.registry import lookup
from lopt.types import Split, Theta
from task_generator.task_config import TaskConfig

EVALUATION_SPLITS: tuple[Split, ...] = ("train", "outer_valid", "test")
EVALUATION_STREAM = 7_777
"""First number of every evaluation seed: apart from meta-training's streams."""


class CurveUnit(NamedTuple):
    """Curves to compute: every setting with every seed, on one task."""

    task: str  # TaskConfig as JSON
    optimizer: str  # {"baseline": name} or an architecture configuration, as JSON
    seeds: tuple[int, ...]
    horizon: int  # the number of steps that the optimizer is told
    num_points: int  # P, the initialisation included
    eval_every: int  # steps between points
    num_eval_batches: int = 4
    settings_at_once: int = 64  # at most so many go through the program together; bounds its memory

    @property
    def num_steps(self) -> int:
        """Steps of every run, which may be more or fewer than `horizon`."""
        return (self.num_points - 1) * self.eval_every


class CurveBatch(NamedTuple):
    """H settings × S seeds × P points, as NumPy."""

    step: np.ndarray  # [P]
    losses: dict[str, np.ndarray]  # split → [H, S, P]
    seconds_per_step: float  # of one run, execution only, all runs of the program sharing one core


def baseline_json(name: str) -> str:
    """Returns how a unit names a baseline.

    Raises:
      UnknownNameError: If there is none of that name.
    """
    lookup(BASELINES, name, kind="baseline")
    return json.dumps({"baseline": name})


def run_curve_unit(
    unit: CurveUnit, settings: Sequence[Any], clock: Callable[[], float] = time.perf_counter
) -> CurveBatch:
    """Returns the curves of one unit.

    Args:
      unit: What to train.
      settings: Learning rates for a baseline, thetas (trees of NumPy arrays) for a learned optimizer.
      clock: Where seconds come from.
    """
    # Shared out evenly: what fills the last program up is trained, too. 35 are twice 18, not twice 32.
    size = math.ceil(len(settings) / math.ceil(len(settings) / unit.settings_at_once))
    curves, elapsed, num_run = [], 0.0, 0
    for first in range(0, len(settings), size):
        some = list(settings[first : first + size])
        some += some[-1:] * (size - len(some))  # one shape, one program
        program = prepare_curves(unit, some)
        start = clock()
        curves.append(jax.device_get(program()))
        elapsed += clock() - start
        num_run += size
    return CurveBatch(
        step=np.asarray(curves[0].step[0, 0]),
        losses={
            split: np.concatenate([curve.losses[split] for curve in curves])[: len(settings)]
            for split in curves[0].losses
        },
        seconds_per_step=elapsed / (max(unit.num_steps, 1) * num_run * len(unit.seeds)),
    )


def prepare_curves(unit: CurveUnit, settings: Sequence[Any]) -> Callable[[], LearningCurve]:
    """Returns the compiled program of all `settings` together, with its arguments; calling it trains."""
    keys = jnp.stack([key_from_seed((EVALUATION_STREAM, seed)) for seed in unit.seeds])
    arguments = (_stacked(settings), keys, jnp.int32(unit.horizon), jnp.int32(unit.eval_every))
    program = _compiled(
        unit.task, unit.optimizer, unit.num_points, unit.num_eval_batches, _Shapes.of(arguments)
    )
    return partial(program, *arguments)


def _stacked(settings: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x, jnp.float32) for x in leaves]), *settings)


class _Shapes:
    """Abstract arguments, equal and hashed by shape: the part of a cache key that compilation depends on."""

    def __init__(self, arguments: tuple[Any, ...]):
        self.arguments = arguments
        leaves, treedef = jax.tree.flatten(arguments)
        self._key = (tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves), treedef)

    @classmethod
    def of(cls, arguments: tuple[Any, ...]) -> _Shapes:
        return cls(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shapes) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=1)  # for more seeds of the same unit; an evaluation uses each program once
def _compiled(
    task_json: str, optimizer_json: str, num_points: int, num_eval_batches: int, shapes: _Shapes
) -> Callable[..., LearningCurve]:
    """Returns the compiled program; compiling ahead keeps compilation out of the measured seconds."""
    family = TaskConfig.model_validate_json(task_json).build()
    transform, eval_params = _transform(optimizer_json)

    data, with_data = separate_data(family)

    def one(
        data: Data, setting: Any, key: jax.Array, horizon: jax.Array, eval_every: jax.Array
    ) -> LearningCurve:
        family = with_data(data)
        dynamic_key, run_key = jax.random.split(key)
        return train_curve(
            family.task(family.sample_dynamic(dynamic_key)),
            transform(setting, horizon),
            run_key,
            eval_every=eval_every,
            num_points=num_points,
            splits=EVALUATION_SPLITS,
            num_eval_batches=num_eval_batches,
            eval_params=eval_params,
        )

    over_seeds = jax.vmap(one, in_axes=(None, None, 0, None, None))
    over_settings = jax.vmap(over_seeds, in_axes=(None, 0, None, None, None))
    return partial(jax.jit(over_settings).lower(data, *shapes.arguments).compile(), data)


def _transform(
    optimizer_json: str,
) -> tuple[Callable[[Any, jax.Array], optax.GradientTransformationExtraArgs], EvalParams | None]:
    """Returns (setting, horizon) → transformation, and where its loss counts if not where it trains."""
    data = json.loads(optimizer_json)
    if "baseline" in data:
        baseline = lookup(BASELINES, data["baseline"], kind="baseline")
        return baseline.factory, baseline.eval_params
    learned = build_optimizer(optimizer_json)

    def transform(theta: Theta, horizon: jax.Array) -> optax.GradientTransformationExtraArgs:
        return learned.transform(theta, num_steps=horizon)

    return transform, None
