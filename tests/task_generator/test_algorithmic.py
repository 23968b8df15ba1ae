"""Addition and parity against Python's integers, the loss against a coin's, and networks that learn both."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pydantic import ValidationError

from lopt.config import derive
from lopt.inner_loop import train_curve
from lopt.types import SPLITS
from task_generator import TaskConfig
from task_generator.families.algorithmic import AlgorithmicConfig, Problem, pose
from task_generator.networks.sequence_labels import SequenceTagger

ADDITION = AlgorithmicConfig.example()
PARITY = derive(ADDITION, problem="parity")
both = pytest.mark.parametrize("config", [ADDITION, PARITY], ids=lambda c: c.problem)


def _bits(number: int, length: int) -> list[int]:
    """The lowest first."""
    return [number >> i & 1 for i in range(length)]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_sums_are_those_of_python_integers(length: int) -> None:
    pairs = [(a, b) for a in range(2**length) for b in range(2**length)]
    operands = [
        [list(pair) for pair in zip(_bits(a, length), _bits(b, length), strict=True)] for a, b in pairs
    ]
    batch = pose("addition", jnp.asarray(operands, jnp.int32))
    np.testing.assert_array_equal(batch.targets, [_bits(a + b, length + 1) for a, b in pairs])
    read = [
        [list(pair) for pair in zip(_bits(a, length + 1), _bits(b, length + 1), strict=True)]
        for a, b in pairs
    ]
    np.testing.assert_array_equal(batch.inputs, 2 * np.array(read) - 1)


def test_carries_run_through_long_numbers() -> None:
    length, rng = 200, np.random.default_rng(0)
    numbers = [(2**length - 1, 1), (2**length - 1, 2**length - 1), (0, 0)]
    numbers += [tuple(int.from_bytes(rng.bytes(length // 8), "little") for _ in range(2)) for _ in range(20)]
    operands = [
        [list(pair) for pair in zip(_bits(a, length), _bits(b, length), strict=True)] for a, b in numbers
    ]
    targets = pose("addition", jnp.asarray(operands, jnp.int32)).targets
    np.testing.assert_array_equal(targets, [_bits(a + b, length + 1) for a, b in numbers])


@pytest.mark.parametrize("length", [1, 2, 9])
def test_parities_are_those_of_python_integers(length: int) -> None:
    numbers = range(2**length)
    bits = np.array([_bits(n, length) for n in numbers])
    batch = pose("parity", jnp.asarray(bits[..., None], jnp.int32))
    expected = [[(n & ((2 << t) - 1)).bit_count() % 2 for t in range(length)] for n in numbers]
    np.testing.assert_array_equal(batch.targets, expected)
    np.testing.assert_array_equal(batch.inputs[..., 0], 2 * bits - 1)


@both
def test_batches_hold_uniform_bits_and_their_answers(config: AlgorithmicConfig) -> None:
    config = derive(config, batch_size=4096)
    batch = config.draw((), jax.random.key(0), "train")
    bits = (np.asarray(batch.inputs) > 0).astype(int)
    assert set(np.unique(batch.inputs)) == {-1.0, 1.0}
    drawn = bits[:, : config.length]
    error = 5 * 0.5 / math.sqrt(len(bits))
    np.testing.assert_allclose(drawn.mean(axis=0), 0.5, atol=error)
    products = (2 * drawn - 1)[:, :, None, 0] * (2 * drawn - 1)[:, None, :, -1]
    independent = products.mean(axis=0)[~np.eye(config.length, dtype=bool)]
    np.testing.assert_allclose(independent, 0.0, atol=2 * error)
    if config.problem == "parity":
        np.testing.assert_array_equal(batch.targets, drawn[..., 0].cumsum(axis=1) % 2)
    else:
        weights = 2 ** np.arange(config.length + 1)
        np.testing.assert_array_equal(batch.targets @ weights, (bits.sum(axis=-1)) @ weights)


def test_splits_are_streams_of_their_own() -> None:
    batches = [np.asarray(PARITY.draw((), jax.random.key(0), split).inputs) for split in SPLITS]
    agree = [(a == b).mean() for i, a in enumerate(batches) for b in batches[:i]]
    np.testing.assert_allclose(agree, 0.5, atol=5 * 0.5 / math.sqrt(batches[0].size))


@both
def test_the_loss_is_that_of_a_coin_at_zero_and_none_where_all_is_known(config: AlgorithmicConfig) -> None:
    batch = config.draw((), jax.random.key(0), "train")
    normalized = lambda logits: float(config.normalize(config.loss(logits, batch, None), (), None))
    assert normalized(jnp.zeros(batch.targets.shape)) == pytest.approx(1.0, abs=1e-5)
    known = 40.0 * (2.0 * batch.targets.astype(jnp.float32) - 1.0)
    assert normalized(known) == pytest.approx(0.0, abs=1e-5)
    assert normalized(-known) == 10.0  # the cap, where 40 nats per position are lost
    logits = jax.random.normal(jax.random.key(1), batch.targets.shape)
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    t = np.asarray(batch.targets)
    assert normalized(logits) == pytest.approx(-np.log2(np.where(t == 1, p, 1 - p)).mean(), rel=1e-5)


def test_a_tagger_reads_nothing_of_what_is_still_to_come() -> None:
    config = derive(ADDITION, cell="lstm")
    task = TaskConfig(family=config).build().task(config.sample_dynamic(jax.random.key(0)))
    params = task.init(jax.random.key(1)).params
    tag = lambda x: SequenceTagger("lstm", 16).apply({"params": params}, x[None], jnp.tanh)[0]
    jacobian = jax.jit(jax.jacrev(tag))(config.draw((), jax.random.key(2), "train").inputs[0])
    reads = np.abs(np.asarray(jacobian)).sum(axis=-1) > 0  # [output, input]
    np.testing.assert_array_equal(reads, np.tri(config.num_positions, dtype=bool))


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "length"), [("addition", 6), ("parity", 3)])
def test_a_recurrent_network_learns_it(problem: Problem, length: int) -> None:
    config = derive(
        ADDITION, problem=problem, length=length, batch_size=64, initializer="orthogonal", init_scale=1.0
    )
    task = TaskConfig(family=config).build().task(config.sample_dynamic(jax.random.key(0)))
    run = lambda key: train_curve(
        task, optax.adam(1e-2), key, eval_every=800, num_points=2, splits=("test",), num_eval_batches=4
    )
    with jax.numpy_dtype_promotion("standard"):  # Adam's bias correction relies on it
        curve = jax.jit(run)(jax.random.key(1)).losses["test"]
    start, end = (float(task.normalize(loss)) for loss in curve)
    assert start > 0.9
    assert end < 0.1


def test_an_activation_that_nothing_uses_is_refused() -> None:
    with pytest.raises(ValidationError, match="activation='relu' with cell='gru'"):
        derive(ADDITION, activation="relu")
    irnn = derive(ADDITION, cell="irnn")
    task = TaskConfig(family=irnn).build().task(irnn.sample_dynamic(jax.random.key(0)))
    np.testing.assert_array_equal(task.init(jax.random.key(0)).params["irnn"]["recurrent"], np.eye(16))
