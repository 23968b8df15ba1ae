"""Train the CNN on a mesh of devices, parameters and optimizer state in pieces, and check that nothing changes.

    python examples/train_sharded.py                           # four virtual devices on the CPU
    python examples/train_sharded.py --optimizers velo --devices 8
    python examples/train_sharded.py --devices 0               # the accelerators that this machine has

Each device sees its share of every batch and keeps its share of every tensor that can be cut; the whole tensor is
put together where the gradient needs it (fully sharded data parallelism). A learned optimizer's accumulators are
cut as their parameters are, by `optimizer = lopt.keep_sharded(optimizer, params)`. On every device are
the weights of the learned optimizer, counters, and what it keeps per tensor.

Prints where things are, and the loss next to that of the same training on one device. The two differ by rounding,
and training makes any difference grow. What that comes to shows a third run, on one device, that starts from
parameters changed in their last digit. The script fails if the mesh makes much more of a difference than that.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from digits_cnn import (
    Cnn,
    Optimizer,
    Params,
    add_options,
    digits,
    init_params,
    load,
    loss_fn,
)
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import lopt
from lopt.use.binding import bound_states
from lopt.use.monitoring import tensor_names

BATCH_SIZE = 64
ROUNDING = 1e-7
"""Relative size of a rounding error in float32. Sums in another order differ by as much."""


class Outcome(NamedTuple):
    """What a training left behind."""

    losses: np.ndarray  # [steps] on the training batches, before each update
    params: Params
    state: Any
    seconds: float


def shardings(params: Params, mesh: Mesh) -> Any:
    """Returns, for each tensor, the sharding that cuts its longest axis, if that comes out even."""

    def cut(tensor: jax.Array) -> NamedSharding:
        even = [axis for axis, length in enumerate(tensor.shape) if length % mesh.size == 0]
        longest = max(even, key=lambda axis: tensor.shape[axis], default=None)
        axes = ("data" if axis == longest else None for axis in range(tensor.ndim))
        return NamedSharding(mesh, PartitionSpec(*axes) if longest is not None else PartitionSpec())

    return jax.tree.map(cut, params)


def compiled_step(optimizer: Optimizer, network: Cnn, mesh: Mesh | None = None) -> Callable[..., Any]:
    """Returns one training step. All that it is told about devices is that the gradient needs whole tensors."""

    def loss_of(params: Params, batch: Any) -> jax.Array:
        if mesh is not None:
            params = jax.lax.with_sharding_constraint(params, NamedSharding(mesh, PartitionSpec()))
        return loss_fn(params, network, batch)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Params, state: Any, batch: Any) -> tuple[Params, Any, jax.Array]:
        at = lopt.gradient_params(state, params)
        loss, grads = jax.value_and_grad(loss_of)(at, batch)
        updates, state = optimizer.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), state, loss

    return step


def train(optimizer: Optimizer, step: Callable[..., Any], params: Params, batches: Sequence[Any]) -> Outcome:
    """Trains on `batches`, wherever they and the parameters are."""
    params, losses = jax.tree.map(jnp.copy, params), []  # the step is given its own to reuse
    state = optimizer.init(params)
    began = time.monotonic()
    for batch in batches:
        params, state, loss = step(params, state, batch)
        losses.append(float(loss))
    return Outcome(np.array(losses), params, state, time.monotonic() - began)


def bytes_per_device(tree: Any) -> int:
    """Returns what the fullest device holds of the arrays."""
    held: dict[Any, int] = {}
    for array in jax.tree.leaves(tree):
        for shard in array.addressable_shards:
            held[shard.device] = held.get(shard.device, 0) + shard.data.nbytes
    return max(held.values(), default=0)


def print_layout(params: Params) -> None:
    """Prints which axis of each tensor is cut."""
    print(f"{'tensor':<16}{'shape':<16}each device holds")
    for name, tensor in zip(tensor_names(params), jax.tree.leaves(params), strict=True):
        piece = tensor.addressable_shards[0].data.shape
        print(f"{name:<16}{'×'.join(map(str, tensor.shape)):<16}{'×'.join(map(str, piece))}")


def compare(
    name: str, network: Cnn, args: argparse.Namespace, mesh: Mesh
) -> tuple[Outcome, Outcome, Outcome]:
    """Trains on one device, on the mesh, and on one device with other rounding; returns the three outcomes."""
    optimizer = load(name, args.weights, num_steps=args.steps)
    keys = jax.random.split(jax.random.key(0), args.steps)
    draw = jax.jit(lambda key: digits().batch(key, "train", BATCH_SIZE))
    batches = [draw(key) for key in keys]
    params = init_params(network, 0)
    on_mesh = jax.device_put(params, shardings(params, mesh))
    nudged = jax.tree.map(lambda p: p * (1 + ROUNDING), params)

    step = compiled_step(optimizer, network)
    whole = train(optimizer, step, params, batches)
    other = train(optimizer, step, nudged, batches)
    optimizer = lopt.keep_sharded(optimizer, on_mesh)
    batches = [jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data"))) for batch in batches]
    cut = train(optimizer, compiled_step(optimizer, network, mesh), on_mesh, batches)

    print(f"\n{name:<10}{'one device':>12}{f'{mesh.size} devices':>12}")
    for step in np.unique(np.linspace(0, args.steps - 1, 5).astype(int)):
        print(f"loss {step:>4} {whole.losses[step]:12.6f}{cut.losses[step]:12.6f}")
    print(f"seconds   {whole.seconds:12.1f}{cut.seconds:12.1f}   compilation included")
    print("bytes per device")
    for what, select in PARTS.items():
        print(f"  {what:<20}{bytes_per_device(select(whole)):>10,}{bytes_per_device(select(cut)):>12,}")
    return whole, cut, other


PARTS: dict[str, Callable[[Outcome], Any]] = {
    "parameters": lambda outcome: outcome.params,
    "optimizer's state": lambda outcome: [bound.inner for bound in bound_states(outcome.state)],
    "optimizer's weights": lambda outcome: [bound.theta for bound in bound_states(outcome.state)],
}


def largest_difference(one: Outcome, other: Outcome) -> float:
    """Returns the largest relative difference of a loss along the run."""
    return float(np.max(np.abs(one.losses - other.losses) / np.abs(one.losses)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains with every optimizer on one device and on the mesh, and compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--optimizers", nargs="+", default=("pacer", "celo2", "velo"), help="(default: pacer celo2 velo)"
    )
    parser.add_argument(
        "--devices",
        type=int,
        default=4,
        help="virtual CPU devices, or 0 for the machine's own (default %(default)s)",
    )
    add_options(parser, steps=50, out=None)
    args = parser.parse_args(arguments)
    network = Cnn(channels=(512,))
    if args.quick:
        args.steps = 10
    if args.devices > 0:  # before anything asks for a device
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", args.devices)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    if BATCH_SIZE % mesh.size:
        parser.error(f"`--devices` must divide the batch of {BATCH_SIZE}, got {mesh.size}")
    print(f"{mesh.size} devices: {', '.join(map(str, mesh.devices))}")
    params = init_params(network, 0)
    print_layout(jax.device_put(params, shardings(params, mesh)))
    outcomes = {name: compare(name, network, args, mesh) for name in args.optimizers}
    print("\nlargest relative difference of a loss from that on one device")
    for name, (whole, cut, other) in outcomes.items():
        difference, allowed = largest_difference(whole, cut), largest_difference(whole, other)
        print(f"{name:<10}{difference:.1e} on {mesh.size} devices, {allowed:.1e} after other rounding")
        if not difference <= max(10 * allowed, 100 * ROUNDING):
            raise SystemExit(f"error: with `{name}`, the mesh makes more of a difference than rounding")


if __name__ == "__main__":
    main()
