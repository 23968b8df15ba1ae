"""Weights that are not written out per twin give what written-out ones give."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lopt.perturbations.shared as shared
from lopt import nn
from lopt.architectures import ARCHITECTURES
from lopt.perturbations import PERTURBATIONS
from lopt.perturbations.shared import PerturbedWeight, lane_thetas

LANES, SIGMA = 3, 0.1
THETA = {"matrix": jnp.arange(40.0).reshape(5, 8) / 40, "bank": jnp.ones((5, 3, 4)), "bias": jnp.ones(8)}
X = jnp.asarray(np.random.default_rng(0).normal(size=(LANES, 2, 5)), jnp.float32)  # of every lane and twin


class Sharing:
    reads_loss = False
    product_weights = ("['matrix']", "['bank']")


def outputs(learned: Any, strategy: str, **fields: Any) -> tuple[list[np.ndarray], list[type]]:
    """Returns x·matrix + bias and x·bank of every lane and twin, and what the weights were made of."""
    directions = PERTURBATIONS[strategy].model_validate(fields).sample(THETA, jax.random.key(1), LANES)
    lanes = lane_thetas(learned, THETA, directions, SIGMA)
    kinds: list[type] = []

    def apply(theta: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        kinds.extend(type(theta[name]) for name in ("matrix", "bank"))
        return nn.linear({"w": theta["matrix"], "b": theta["bias"]}, x), nn.product(x, theta["bank"])

    twins = jax.vmap(apply, in_axes=(lanes.twin_axes, 0))
    results = jax.vmap(twins, in_axes=(lanes.lane_axes, 0))(lanes.thetas, X)
    return [np.asarray(result) for result in results], kinds


@pytest.mark.parametrize(
    ("strategy", "fields"), [("antithetic", {}), ("low_rank", {"rank": 1}), ("low_rank", {"rank": 2})]
)
def test_shared_products_are_those_of_weights_written_out(
    strategy: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    written, kinds = outputs(Sharing(), strategy, **fields)  # too small to be shared
    assert PerturbedWeight not in kinds
    monkeypatch.setattr(shared, "MIN_SIZE", 1)
    together, kinds = outputs(Sharing(), strategy, **fields)
    assert kinds == [PerturbedWeight] * 2
    for first, second in zip(written, together, strict=True):
        np.testing.assert_allclose(first, second, rtol=2e-5, atol=2e-5)
    assert np.abs(written[0][:, 0] - written[0][:, 1]).min() > 0  # twins differ


@pytest.mark.parametrize(("learned", "strategy"), [(object(), "antithetic"), (Sharing(), "independent")])
def test_what_cannot_be_shared_is_written_out(
    learned: Any, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "MIN_SIZE", 1)
    assert PerturbedWeight not in outputs(learned, strategy)[1]


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_named_weights_are_there(name: str) -> None:
    learned = ARCHITECTURES[name].model_validate({}).build()
    shapes = jax.eval_shape(learned.init_theta, jax.random.key(0))
    paths = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)}
    assert set(getattr(learned, "product_weights", ())) <= paths
