"""Configuration, registry, inner loop, meta-loss, baselines and loading."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lopt import baselines, inner_loop, objective
from lopt.architectures.pacer import PacerConfig
from lopt.config import FrozenConfig, derive
from lopt.registry import UnknownNameError, lookup
from lopt.types import PRNGKey, Scalar, Split, TaskState
from lopt.use import loading


class Size(FrozenConfig):
    width: int
    rate: float = 0.1


class NoisyQuadratic:
    """Mean of ½(x − b)² over a batch b of noise; model state counts the loss evaluations."""

    def init(self, key: PRNGKey) -> TaskState:
        return TaskState({"x": jax.random.normal(key, (3,))}, jnp.int32(0))

    def batch(self, key: PRNGKey, split: Split = "train") -> jax.Array:
        return jax.random.normal(key, (4, 3)) + (0.0 if split == "train" else 5.0)

    def loss(self, state: TaskState, key: PRNGKey, batch: jax.Array) -> tuple[Scalar, TaskState]:
        loss = 0.5 * jnp.mean(jnp.square(state.params["x"][None] - batch))
        return loss, state._replace(model_state=state.model_state + 1)

    def normalize(self, loss: Scalar) -> Scalar:
        return loss


SGD = optax.with_extra_args_support(optax.sgd(0.1))


def test_fingerprint_is_stable_across_processes_and_sees_every_field() -> None:
    code = (
        "from lopt.config import FrozenConfig\n"
        "class Size(FrozenConfig):\n    width: int\n    rate: float = 0.1\n"
        "print(Size(width=3).fingerprint())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert Size(width=3).fingerprint() == other
    assert (
        len({Size(width=3).fingerprint(), Size(width=4).fingerprint(), Size(width=3, rate=0.2).fingerprint()})
        == 3
    )


def test_fingerprint_refuses_what_json_cannot_say() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Size(width=1, rate=math.nan).fingerprint()


def test_derive_validates_again_and_configs_are_immutable() -> None:
    assert derive(Size(width=1), width=2) == Size(width=2)
    with pytest.raises(ValueError, match="valid integer"):
        derive(Size(width=1), width="wide")
    with pytest.raises(ValueError, match="Extra inputs"):
        derive(Size(width=1), depth=2)
    with pytest.raises(ValueError, match="frozen"):
        Size(width=1).width = 2  # type: ignore[misc]


def test_unknown_name_lists_and_suggests() -> None:
    with pytest.raises(UnknownNameError) as error:
        lookup({"mlp": 1, "conv": 2}, "cnov", kind="task family")
    assert str(error.value) == "unknown task family 'cnov'; known: 'conv', 'mlp'. Did you mean 'conv'?"


def test_two_windows_are_the_whole_run_bit_for_bit() -> None:
    task, key = NoisyQuadratic(), jax.random.key(3)
    run = jax.jit(lambda state, start, stop: inner_loop.unroll(task, SGD, state, key, start=start, stop=stop))
    start = inner_loop.init_inner(task, SGD, jax.random.key(0))
    whole = run(start, 0, 9)
    halves = run(run(start, 0, 4), 4, 9)
    np.testing.assert_array_equal(whole.task_state.params["x"], halves.task_state.params["x"])
    assert int(whole.task_state.model_state) == 9
    assert run._cache_size() == 1  # the horizon is a number, not a program


def test_unroll_is_plain_sgd() -> None:
    task, key = NoisyQuadratic(), jax.random.key(3)
    start = inner_loop.init_inner(task, SGD, jax.random.key(0))
    x = np.asarray(start.task_state.params["x"], np.float64)
    for step in range(5):
        batch = np.asarray(task.batch(jax.random.fold_in(key, step)), np.float64)
        x = x - 0.1 * np.mean(x - batch, axis=0) / 3
    ours = inner_loop.unroll(task, SGD, start, key, start=0, stop=5).task_state.params["x"]
    np.testing.assert_allclose(ours, x, rtol=1e-5)


def test_learning_curve_points_and_splits() -> None:
    task = NoisyQuadratic()
    curve = inner_loop.train_curve(
        task,
        SGD,
        jax.random.key(0),
        eval_every=3,
        num_points=4,
        splits=("train", "test"),
        num_eval_batches=2,
    )
    assert curve.step.tolist() == [0, 3, 6, 9]
    assert np.all(curve.losses["test"] > curve.losses["train"] + 5)  # the test split lies elsewhere
    init_key, train_key, eval_key = jax.random.split(jax.random.key(0), 3)
    state = inner_loop.init_inner(task, SGD, init_key)
    state = inner_loop.unroll(task, SGD, state, train_key, start=0, stop=6)
    expected = inner_loop.mean_loss(task, state.task_state, eval_key, num_batches=2)
    np.testing.assert_allclose(curve.losses["train"][2], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "expected"), [(3.0, 3.0), (30.0, 10.0), (math.inf, 10.0), (math.nan, 10.0), (-math.inf, 10.0)]
)
def test_bounded_turns_divergence_into_the_worst_value(loss: float, expected: float) -> None:
    assert float(objective.bounded(jnp.float32(loss), cap=10.0)) == expected


@pytest.mark.parametrize(("scale", "expected"), [("log", math.log(0.501)), ("linear", 0.5)])
def test_scale_of_the_meta_loss(scale: str, expected: float) -> None:
    config = objective.ObjectiveConfig.model_validate({"meta_loss_scale": scale})
    scaled = objective.scaled(jnp.float32(0.5), config, first=jnp.float32(1.0))
    assert float(scaled) == pytest.approx(expected, rel=1e-6)


def test_learning_rate_grid_is_fifteen_half_powers_of_ten() -> None:
    grid = baselines.LEARNING_RATE_GRID
    assert len(grid) == 15
    assert (grid[0], grid[1], grid[-2], grid[-1]) == (1e-7, 3e-7, 0.3, 1.0)
    np.testing.assert_allclose(np.diff(np.log10(grid)), 0.5, atol=0.03)


def test_baselines_are_optax_with_traced_rates() -> None:
    params = {"w": jnp.asarray([1.0, -2.0])}
    grads = [{"w": jnp.asarray([0.3, -0.1]) * (i + 1)} for i in range(3)]
    references = {
        "adam": optax.adam(0.01),
        "adamw_cosine": optax.adamw(optax.cosine_decay_schedule(0.01, 20), weight_decay=1e-4),
    }
    with jax.numpy_dtype_promotion("standard"):
        for name, reference in references.items():

            def run(opt: Any) -> Any:
                p, state = params, opt.init(params)
                for g in grads:
                    updates, state = opt.update(g, state, p)
                    p = optax.apply_updates(p, updates)
                return p["w"]

            factory = baselines.BASELINES[name].factory
            ours = jax.jit(lambda rate, steps, f=factory: run(f(rate, steps)))(
                jnp.float32(0.01), jnp.int32(20)
            )
            np.testing.assert_allclose(ours, run(reference), rtol=1e-6)


def resolver_of(config: PacerConfig, change: Any = lambda arrays: arrays) -> loading.Resolver:
    theta = config.build().init_theta(jax.random.key(0))
    arrays = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(theta)
    }
    return lambda reference: (config.model_dump(mode="json"), change(arrays))


def test_load_gives_an_optax_transformation_that_trains() -> None:
    opt = loading.load("champion", num_steps=60, resolver=resolver_of(PacerConfig()))
    params = {"w": jnp.ones((4, 2)), "b": jnp.zeros(2)}
    loss_fn = lambda p: jnp.mean(jnp.square(p["w"] - 0.3)) + jnp.mean(jnp.square(p["b"] - 1.0))
    state = opt.init(params)
    first = loss_fn(params)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = opt.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    for _ in range(60):
        params, state = step(params, state)
    assert float(loss_fn(params)) < 0.05 * float(first)


@pytest.mark.parametrize("num_steps", [0, -3, 1.5, True, "100"])
def test_load_refuses_a_wrong_number_of_steps(num_steps: Any) -> None:
    with pytest.raises(ValueError, match="`num_steps` must be the number of updates"):
        loading.load("champion", num_steps=num_steps, resolver=resolver_of(PacerConfig()))


def test_load_names_every_array_that_does_not_fit() -> None:
    def damage(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rest = {k: v for k, v in arrays.items() if k != "['skip']"}
        return {**rest, "['new']": np.zeros(2), "['controller']['b1']": np.zeros((3,), np.float32)}

    with pytest.raises(ValueError, match=r"missing \['skip'\]; surplus \['new'\]; .*b1'\] has shape \(3,\)"):
        loading.load("champion", num_steps=5, resolver=resolver_of(PacerConfig(), damage))


def test_load_suggests_the_nearest_architecture() -> None:
    resolver: loading.Resolver = lambda reference: ({"architecture": "pacr"}, {})
    with pytest.raises(KeyError, match=r"unknown architecture 'pacr'.*Did you mean 'pacer'"):
        loading.load("champion", num_steps=5, resolver=resolver)
