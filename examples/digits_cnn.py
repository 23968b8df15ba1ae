"""What the examples share: the digits, a Flax CNN, a training run as one compiled program, and where weights are.

The run takes any optax transformation. Two lines of its step make it serve every learned optimizer: the loss is
handed to `update` as `value`, and the gradient is taken where the optimizer asks for it (`gradient_params`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import lopt
from task_generator.datasets import images

Optimizer = optax.GradientTransformationExtraArgs
Params = Any

STYLE = {
    "axes.edgecolor": "#c5cbd3",
    "axes.grid": True,
    "axes.labelcolor": "#4a5560",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": "#e3e7eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.labelcolor": "#1a2027",
    "xtick.color": "#c5cbd3",
    "xtick.labelcolor": "#4a5560",
    "ytick.color": "#c5cbd3",
    "ytick.labelcolor": "#4a5560",
}
"""The look of the plots, for `matplotlib.rc_context`."""
COLORS = ("#1f5fd0", "#c77400", "#0b8a68", "#8a5cd6", "#b8396f", "#5f6b1e")


class Cnn(nn.Module):
    """3×3 convolutions of stride 2 and a linear head: 6 090 parameters by default."""

    channels: tuple[int, ...] = (16, 32)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images [batch, 8, 8, 1] to logits [batch, 10]."""
        for width in self.channels:
            x = nn.relu(nn.Conv(width, (3, 3), strides=2)(x))
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


SMALL = Cnn(channels=(8,))
"""For `--quick`."""


class Experiment(NamedTuple):
    """What is trained and for how long; hashable."""

    network: Cnn
    num_steps: int
    num_points: int
    """Evaluations along a run, evenly spaced; divides `num_steps`."""
    batch_size: int = 32


class History(NamedTuple):
    """What happened in a run. P points, S steps, one column per tensor, in the order of the parameters' leaves."""

    step: jax.Array  # [P] updates made before the point
    train_loss: jax.Array  # [P] on the whole split
    test_loss: jax.Array  # [P]
    test_accuracy: jax.Array  # [P]
    step_rms: jax.Array  # [S, tensors] root mean square of each tensor's update


def digits() -> images.ImageDataset:
    """Returns scikit-learn's 1 797 handwritten digits, split once and for all; read when first asked for."""
    with jax.ensure_compile_time_eval():  # arrays even if a program that is being traced asks first
        return images.load("digits", 8)


def init_params(network: Cnn, seed: int) -> Params:
    """Returns the network's parameters: the same for every optimizer."""
    return jax.jit(network.init)(jax.random.key(seed), jnp.zeros((1, 8, 8, 1)))["params"]


def loss_fn(params: Params, network: Cnn, batch: images.ImageSplit) -> jax.Array:
    """Returns the mean cross-entropy in nats."""
    logits = network.apply({"params": params}, batch.images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()


def evaluate(params: Params, network: Cnn, split: str) -> tuple[jax.Array, jax.Array]:
    """Returns loss and accuracy on a whole split."""
    data = getattr(digits(), split)
    whole = images.ImageSplit(data.images.astype(jnp.float32) / 255, data.labels)
    logits = network.apply({"params": params}, whole.images)
    return loss_fn(params, network, whole), jnp.mean(jnp.argmax(logits, axis=-1) == whole.labels)


def training(optimizer: Optimizer, experiment: Experiment) -> Callable[..., Any]:
    """Returns a whole run as a compiled function (params, state, key) → (params, state, History).

    Args:
      optimizer: With a `step_size_monitor` outermost. Its state may be that of another number of steps or of other
        weights: what defines a learned optimizer is in the state.
      experiment: The batches are a function of the key, so every optimizer sees the same ones.
    """
    network, num_steps, num_points, batch_size = experiment

    def step(carry: tuple[Params, Any], key: jax.Array) -> tuple[tuple[Params, Any], jax.Array]:
        params, state = carry
        batch = digits().batch(key, "train", batch_size)
        at = lopt.gradient_params(state, params)
        loss, grads = jax.value_and_grad(loss_fn)(at, network, batch)
        updates, state = optimizer.update(grads, state, params, value=loss)
        return (optax.apply_updates(params, updates), state), state.measured.step_rms

    def window(carry: tuple[Params, Any], keys: jax.Array) -> tuple[tuple[Params, Any], Any]:
        carry, step_rms = jax.lax.scan(step, carry, keys)
        train_loss, _ = evaluate(carry[0], network, "train")
        return carry, (train_loss, *evaluate(carry[0], network, "test"), step_rms)

    def run(params: Params, state: Any, key: jax.Array) -> tuple[Params, Any, History]:
        keys = jax.random.split(key, (num_points, num_steps // num_points))
        (params, state), (*curves, step_rms) = jax.lax.scan(window, (params, state), keys)
        points = jnp.arange(1, num_points + 1) * (num_steps // num_points)
        return params, state, History(points, *curves, step_rms.reshape(num_steps, -1))

    return jax.jit(run)


def stacked(histories: Sequence[History]) -> History:
    """Returns the histories of several seeds as one, on the host, with a leading axis [seeds]."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *histories)


def mean_log(losses: np.ndarray) -> float:
    """Returns the mean logarithm; a run that diverged is the worst there is."""
    return float(np.mean(np.log(np.where(np.isfinite(losses), losses, np.inf))))


def add_options(parser: argparse.ArgumentParser, *, steps: int, out: str | None) -> None:
    """Adds the options that the examples have in common."""
    parser.add_argument("--steps", type=positive, default=steps, help="updates per run (default %(default)s)")
    parser.add_argument(
        "--weights",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=PATH",
        help="weights files (.npz) to use instead of those that come with the package, e.g. pacer=mine.npz; "
        "examples/meta_train_an_architecture.py makes such files",
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds: a small network, few steps")
    if out is not None:
        parser.add_argument(
            "--out", type=Path, default=Path(out), help="where to draw the curves (default %(default)s)"
        )


def positive(text: str) -> int:
    """Returns a whole number of at least 1; argparse turns the error into a message."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def load(name: str, weights: Sequence[str], *, num_steps: int) -> Optimizer:
    """Returns the learned optimizer `name`, from `weights` ("name=path") or else from those shipped.

    Raises:
      SystemExit: If there are no such weights, saying how to come by some.
    """
    chosen = dict(weight.split("=", 1) for weight in weights if "=" in weight)
    if len(chosen) != len(weights):
        raise SystemExit(f"error: `--weights` takes NAME=PATH, each name once, got {' '.join(weights)}")
    try:
        return lopt.load(chosen.get(name, f"shipped:{name}"), num_steps=num_steps)
    except (LookupError, OSError, ValueError) as error:
        raise SystemExit(
            f"error: there are no weights for `{name}`: {error}\n"
            f"Make some:  python examples/meta_train_an_architecture.py --architecture {name} --out {name}.npz\n"
            f"and pass:   --weights {name}={name}.npz"
        ) from error
