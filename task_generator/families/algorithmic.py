"""Algorithms for recurrent networks: the parity of bits so far, and the sum of two binary numbers.

[1] Almeida et al. 2021 (arXiv:2106.00958), App. H: XOR and binary addition with a simple RNN, LSTM or GRU. It gives
    no lengths or sizes; those here are of the kind of Metz et al. 2022, App. C.3.

Examples are generated where they are used, from the batch's key: bits ±1, uniform and independent. Every position
has a target, and the loss is the mean over positions:

    parity    target t is the exclusive or of bits 0, …, t: one bit of state
    addition  target t is bit t of a + b, the bits of both given from the lowest; a last position asks for the carry

Splits are disjoint streams of keys of the same distribution: there is nothing to over-fit, and short sequences come
in all of them.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import lax
from pydantic import Field

from lopt.types import SPLITS, Dynamic, PyTree, Scalar, Split
from task_generator.distributions import Categorical, Distribution, LogUniformInt
from task_generator.families.base import cap, gradient_cost
from task_generator.families.recurrent import RecurrentConfig, recurrent_prior
from task_generator.networks.sequence_labels import SequenceTagger

Problem = Literal["parity", "addition"]
NUM_OPERANDS: dict[Problem, int] = {"parity": 1, "addition": 2}


class BitBatch(NamedTuple):
    """Sequences of bits and what is asked at each position."""

    inputs: jax.Array  # float32 [batch, positions, operands], −1 or 1
    targets: jax.Array  # int32 [batch, positions], 0 or 1


class AlgorithmicConfig(RecurrentConfig):
    """A recurrent layer that reads `length` bits, or two numbers of so many."""

    family: Literal["algorithmic"] = "algorithmic"
    problem: Problem = Field(description="What is computed.")
    length: int = Field(ge=1, le=4096, description="Bits per operand.")
    dataset: Literal["generated"] = Field("generated", description="Made from the batch's key.")

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns both problems at lengths that a step is made of in milliseconds."""
        return {
            "problem": Categorical(values=("parity", "addition")),
            "length": LogUniformInt(low=4, high=32),
            **recurrent_prior(),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns a GRU of 16 units that adds numbers of 8 bits."""
        return cls(problem="addition", length=8, cell="gru", hidden_size=16, batch_size=32)

    @property
    def num_positions(self) -> int:
        """Of a sequence."""
        return self.length + (1 if self.problem == "addition" else 0)

    def network(self) -> SequenceTagger:
        """Returns the module."""
        return SequenceTagger(self.cell, self.hidden_size)

    def example_inputs(self) -> jax.ShapeDtypeStruct:
        """Returns the shape of one sequence."""
        return jax.ShapeDtypeStruct((1, self.num_positions, NUM_OPERANDS[self.problem]), jnp.float32)

    def load_data(self) -> PyTree:
        """Returns nothing."""
        return ()

    def draw(self, data: PyTree, key: jax.Array, split: Split) -> BitBatch:
        """Returns fresh sequences."""
        del data
        shape = (self.batch_size, self.length, NUM_OPERANDS[self.problem])
        bits = jax.random.bits(jax.random.fold_in(key, SPLITS.index(split)), shape, jnp.uint8)
        return pose(self.problem, (bits & jnp.uint8(1)).astype(jnp.int32))

    def inputs(self, batch: BitBatch, dynamic: Dynamic) -> jax.Array:
        """Returns the bits."""
        del dynamic
        return batch.inputs

    def loss(self, outputs: jax.Array, batch: BitBatch, dynamic: Dynamic) -> Scalar:
        """Returns the mean binary cross-entropy of logits [batch, positions], in nats."""
        del dynamic
        logits = outputs.astype(jnp.float32)
        return jnp.mean(jax.nn.softplus(logits) - logits * batch.targets.astype(jnp.float32))

    def normalize(self, loss: Scalar, data: PyTree, dynamic: Dynamic) -> Scalar:
        """Returns loss / ln 2, so that 1 is a guess, capped."""
        del data, dynamic
        return cap(loss / math.log(2))

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        size = NUM_OPERANDS[self.problem]
        products = self.num_positions * (self.recurrent_products(size) + self.hidden_size)
        return gradient_cost(
            self.recurrent_params(size) + self.hidden_size + 1,
            products,
            self.batch_size,
            inputs_per_example=self.num_positions * size,
            values_per_example=self.num_positions * (self.recurrent_values(size) + 1),
            rows_per_example=2 * self.num_positions,
            depth=self.num_positions + 1,
        )

    def label(self) -> str:
        """Returns e.g. "algorithmic addition × 8 · gru 16 · batch 32", and what is overridden."""
        parts = (
            f"algorithmic {self.problem} × {self.length}",
            f"{self.cell} {self.hidden_size}",
            f"batch {self.batch_size}",
            self.overrides_label(),
        )
        return " · ".join(part for part in parts if part)


def pose(problem: Problem, bits: jax.Array) -> BitBatch:
    """Returns the problem's sequences for bits 0 and 1, int32 [batch, length, operands], the lowest first."""
    if problem == "parity":
        targets = jnp.cumsum(bits[..., 0], axis=1) & 1
    else:
        bits = jnp.pad(bits, ((0, 0), (0, 1), (0, 0)))
        targets = (bits.sum(axis=-1) + incoming_carries(bits)) & 1
    return BitBatch(2.0 * bits.astype(jnp.float32) - 1.0, targets)


def incoming_carries(bits: jax.Array) -> jax.Array:
    """Returns the carry into each position, int32 [batch, length], of an addition of bits [batch, length, 2].

    A carry out of a position is that position's bit where both numbers have the same, else what came in: it is the
    bit of the last position that had two equal ones. A running maximum of 2 · index + bit finds it without a loop.
    """
    first, second = bits[..., 0], bits[..., 1]
    code = 2 * jnp.arange(1, bits.shape[1] + 1, dtype=jnp.int32)[None, :] + first
    outgoing = lax.cummax(jnp.where(first == second, code, 0), axis=1) & 1
    return jnp.pad(outgoing, ((0, 0), (1, 0)))[:, :-1]
