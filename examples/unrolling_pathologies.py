"""Why unrolled optimization is hard to differentiate: three experiments of Metz et al. 2018 on one page.

    python examples/unrolling_pathologies.py --out pathologies.png

Left (Fig. 3c): the final loss of SGD with momentum on (w - 4)(w - 3)w^2 as a function of the momentum. After a few
steps it is smooth; after many, nearly discontinuous: which of the two minima w ends in depends on every digit.
Middle (Fig. 5a): the variance of the gradient of the smoothed loss in the momentum, by back-propagation,
by evolution strategies and by their combination, against the number of steps. Back-propagation wins while training
is well behaved and explodes afterwards; the combination does not.
Right (Fig. 4c): the gradient of Adam's learning rate on a small network, by back-propagation through windows, added
up along training. Short windows see a fraction of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import digits_cnn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.estimators import ESTIMATORS
from lopt.types import PRNGKey, Scalar, Split, TaskFamily, TaskState
from task_generator.families import MlpConfig
from task_generator.task_config import TaskConfig

START, RATE = -1.2, 0.005
SIGMA = 0.01
HORIZONS = (5, 10, 20, 50, 100, 200)
MOMENTUM, PAIRS = 0.97, 16
"""Of the second panel: where small changes decide which minimum it will be."""
WINDOWS = (5, 20, 100, 500)


class Nothing(NamedTuple):
    """The dynamic configuration of a problem that has none."""


class TwoMinima:
    """(w - 4)(w - 3)w^2 from w = -1.2: both the family and its only task."""

    def sample_dynamic(self, key: PRNGKey) -> Nothing:
        return Nothing()

    def dynamic_axes(self) -> Nothing:
        return Nothing()

    def task(self, dynamic: Nothing) -> TwoMinima:
        return self

    def init(self, key: PRNGKey) -> TaskState:
        return TaskState({"w": jnp.full((1,), START, jnp.float32)})

    def batch(self, key: PRNGKey, split: Split = "train") -> jax.Array:
        return jnp.zeros((1,))

    def loss(self, state: TaskState, key: PRNGKey, batch: jax.Array) -> tuple[Scalar, TaskState]:
        w = state.params["w"]
        return jnp.sum((w - 4.0) * (w - 3.0) * w**2), state

    def normalize(self, loss: Scalar) -> Scalar:
        return loss


class LearnedMomentum:
    """SGD whose momentum is theta."""

    reads_loss = False

    def init_theta(self, key: PRNGKey) -> Any:
        return {"momentum": jnp.float32(0.8)}

    def transform(self, theta: Any, *, num_steps: Any) -> optax.GradientTransformationExtraArgs:
        def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
            state = jax.tree.map(lambda v, g: theta["momentum"] * v + g, state, grads)
            return jax.tree.map(lambda v: -RATE * v, state), state

        init = lambda params: jax.tree.map(jnp.zeros_like, params)
        return optax.GradientTransformationExtraArgs(init, update)


class LearnedAdamRate:
    """Adam whose log learning rate is theta."""

    reads_loss = False

    def init_theta(self, key: PRNGKey) -> Any:
        return {"log_rate": jnp.float32(np.log(1e-3))}

    def transform(self, theta: Any, *, num_steps: Any) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(optax.adam(jnp.exp(theta["log_rate"]), eps_root=1e-8))


def estimator(name: str, family: TaskFamily, learned: Any, **fields: Any) -> Any:
    """Returns an estimator by name; the losses are as they are."""
    fields = {"num_tasks": 1, "num_final_batches": 1, "meta_loss_scale": "linear", **fields}
    config = ESTIMATORS[name].model_validate(fields)
    return config.build(family, learned)


def final_losses(momenta: np.ndarray, horizons: Sequence[int]) -> np.ndarray:
    """Returns the loss after each horizon as a function of the momentum: [horizons, momenta]."""
    problem, learned = TwoMinima(), LearnedMomentum()

    def run(momentum: jax.Array, steps: int) -> jax.Array:
        optimizer = learned.transform({"momentum": momentum}, num_steps=steps)
        state = problem.init(jax.random.key(0))
        grad = jax.grad(lambda params: problem.loss(TaskState(params), jax.random.key(0), jnp.zeros(1))[0])

        def body(_: Scalar, carry: Any) -> Any:
            params, inner = carry
            updates, inner = optimizer.update(grad(params), inner, params)
            return optax.apply_updates(params, updates), inner

        start = state.params, optimizer.init(state.params)
        params, _ = jax.lax.fori_loop(0, steps, body, start)
        return problem.loss(TaskState(params), jax.random.key(0), jnp.zeros(1))[0]

    return np.stack([jax.vmap(run, in_axes=(0, None))(jnp.asarray(momenta), t) for t in horizons])


def variances(momentum: float, horizons: Sequence[int], count: int) -> dict[str, list[float]]:
    """Returns the variance over draws of each estimator's gradient, by horizon."""
    theta = {"momentum": jnp.float32(momentum)}
    spread: dict[str, list[float]] = {"backprop": [], "ES": [], "combined": []}
    for steps in horizons:
        whole = {"min_horizon": steps, "max_horizon": steps, "loss_cap": 1e6}
        windowed = {**whole, "unroll_length": steps, "stagger": False}
        evolved = estimator("full_es", TwoMinima(), LearnedMomentum(), sigma=SIGMA, num_pairs=PAIRS, **whole)
        combined = estimator(
            "combined", TwoMinima(), LearnedMomentum(), sigma=SIGMA, num_pairs=PAIRS, **windowed
        )
        exact = estimator("unrolled_backprop", TwoMinima(), LearnedMomentum(), **windowed)

        def smoothed_backprop(key: PRNGKey, exact: Any = exact) -> jax.Array:
            epsilon = SIGMA * jax.random.normal(key, (PAIRS,))
            moved = jnp.concatenate([momentum + epsilon, momentum - epsilon])
            one = lambda m: exact.estimate({"momentum": m}, exact.init(theta, key), key)[0].mean["momentum"]
            return jnp.mean(jax.vmap(one)(moved))

        draws = {
            "backprop": smoothed_backprop,
            "ES": lambda key, e=evolved: e.estimate(theta, (), key)[0].mean["momentum"],
            "combined": lambda key, e=combined: e.estimate(theta, e.init(theta, key), key)[0].mean[
                "momentum"
            ],
        }
        keys = jax.random.split(jax.random.key(steps), count)
        for name, draw in draws.items():
            sample = np.asarray(jax.jit(jax.vmap(draw))(keys), np.float64)
            spread[name].append(float(sample.var()))
    return spread


def gradients_along_training(window: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps at which windows end, and the sum of the windows' gradients up to each."""
    family = TaskConfig(
        family=MlpConfig(
            hidden_size=32,
            num_layers=1,
            image_size=8,
            batch_size=64,
            dataset="digits",
            activation="tanh",
            initializer="normal",
        )
    ).build()
    learned = LearnedAdamRate()
    theta = learned.init_theta(jax.random.key(0))
    exact = estimator(
        "unrolled_backprop",
        family,
        learned,
        aggregate="mean",
        num_tasks=2,
        min_horizon=horizon,
        max_horizon=horizon,
        unroll_length=window,
        stagger=False,
    )
    step = jax.jit(exact.estimate)
    state, total, ends, sums = exact.init(theta, jax.random.key(0)), 0.0, [], []
    for index, key in enumerate(jax.random.split(jax.random.key(1), horizon // window)):
        result, state = step(theta, state, key)
        total += float(result.mean["log_rate"]) * window / horizon
        ends.append((index + 1) * window)
        sums.append(total)
    return np.asarray(ends), np.asarray(sums)


def draw(out: Path, *, momenta: int, count: int, horizon: int, horizons: Sequence[int] = HORIZONS) -> None:
    """Computes everything and draws it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(digits_cnn.STYLE)
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8))
    grid = np.linspace(0.5, 0.99, momenta)
    for steps, losses in zip((10, 50, 500), final_losses(grid, (10, 50, 500)), strict=True):
        axes[0].plot(grid, losses, linewidth=1, label=f"T = {steps}")
    axes[0].set(xlabel="momentum", title="final loss", ylim=(-4, 10))
    axes[0].legend()
    for name, values in variances(MOMENTUM, horizons, count).items():
        axes[1].plot(horizons, values, "o-", markersize=3, label=name)
    axes[1].set(xscale="log", yscale="log", xlabel="inner steps T", title="variance of the meta-gradient")
    axes[1].legend()
    for window in (w for w in WINDOWS if w <= horizon):
        ends, sums = gradients_along_training(window, horizon)
        axes[2].plot(ends, sums, label=f"windows of {window}")
    axes[2].axhline(0.0, color="#8a949e", linewidth=0.8)
    axes[2].set(xlabel="inner step", title="sum of truncated gradients of Adam's log rate")
    axes[2].legend()
    figure.savefig(out, dpi=110)


def main() -> None:
    """Draws the picture and says where it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("pathologies.png"), help="Picture to draw.")
    parser.add_argument("--momenta", type=int, default=2000, help="Points of the first panel.")
    parser.add_argument("--draws", type=int, default=1000, help="Gradients per variance of the second.")
    parser.add_argument("--horizon", type=int, default=1000, help="Inner steps of the third.")
    options = parser.parse_args()
    draw(options.out, momenta=options.momenta, count=options.draws, horizon=options.horizon)
    print(f"drawn: {options.out}")


if __name__ == "__main__":
    main()
