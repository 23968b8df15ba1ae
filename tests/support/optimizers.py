"""Small learned optimizers with weights that do something, and runs of them on a made-up objective."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lopt.architectures import ARCHITECTURES
from lopt.types import LearnedOptimizer

NAMES = sorted(ARCHITECTURES)

SMALL: dict[str, dict[str, Any]] = {
    "rnn_mlp": {"lstm_hidden_size": 16, "mlp_hidden_sizes": (8,)},
    "velo": {"lstm_hidden_size": 16, "mlp_bank_size": 8},
}
"""Sizes for tests that are about wrappers and not about the network; others are small by default."""

PARAMS = {
    "dense": {"w": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), "b": jnp.linspace(0.1, 0.3, 3)},
    "again": 0.3 * jnp.cos(jnp.arange(12.0)).reshape(4, 3),
    "scalar": jnp.float32(0.5),
    "empty": jnp.zeros((0, 4)),
}
"""Two matrices of one shape, a vector, a scalar and an empty tensor."""


def fast_for(*fast: str, among: list[str] = NAMES) -> list[Any]:
    """Returns the names as parameters, all but `fast` as slow tests.

    For what holds for all or for none, as a rule: a few show it in every run.
    """
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in among]


def small(name: str, **changes: Any) -> LearnedOptimizer:
    """Returns the architecture at a size that compiles in a second."""
    return ARCHITECTURES[name](**{**SMALL.get(name, {}), **changes}).build()


def initial_theta(learned: Any) -> Any:
    """Returns the initial weights of a registered optimizer.

    Drawn once per process: every shape of a random draw is compiled for itself.
    """
    return _initial_theta(learned.config)


@functools.cache
def _initial_theta(config: Any) -> Any:
    return config.build().init_theta(jax.random.key(0))


def perturbed_theta(learned: LearnedOptimizer, seed: int = 0, size: float = 0.05) -> Any:
    """Returns initial weights with noise, so that no layer is zero."""
    rng = np.random.default_rng(seed)
    noisy = lambda x: jnp.asarray(x + size * rng.standard_normal(x.shape).astype(np.float32))
    return jax.tree.map(noisy, jax.tree.map(np.asarray, initial_theta(learned)))


def objective(params: Any) -> jax.Array:
    """A smooth loss whose gradients differ in size between tensors; its value falls below zero nowhere."""
    terms = [
        (1.0 + i) * jnp.sum(jnp.square(p.astype(jnp.float32) - 0.1 * i))
        for i, p in enumerate(jax.tree.leaves(params))
    ]
    return sum(terms, jnp.float32(0.0))


def compiled_step(opt: optax.GradientTransformationExtraArgs, *, donate: bool = False) -> Any:
    """Returns a compiled training step on `objective`: (params, state) → (params, state)."""

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        loss, grads = jax.value_and_grad(objective)(params)
        updates, state = opt.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(1,) if donate else ())


def train(opt: optax.GradientTransformationExtraArgs, params: Any, state: Any, steps: int) -> tuple[Any, Any]:
    """Returns parameters and state after `steps` compiled training steps."""
    step = compiled_step(opt)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def fresh(tree: Any) -> Any:
    """Returns a copy in buffers of its own."""
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def assert_equal(ours: Any, theirs: Any) -> None:
    """Asserts that two trees are the same bit for bit, paths included."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=jax.tree_util.keystr(path))


def assert_close(ours: Any, theirs: Any, *, rtol: float = 1e-5, atol: float = 1e-7) -> None:
    """Asserts that two trees agree to float tolerance, paths included."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(
            np.asarray(a, np.float32),
            np.asarray(b, np.float32),
            rtol,
            atol,
            err_msg=jax.tree_util.keystr(path),
        )


def moved(before: Any, after: Any) -> float:
    """Returns the largest change of any parameter."""
    return max(
        float(jnp.max(jnp.abs(a - b)))
        for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)
        if a.size
    )
