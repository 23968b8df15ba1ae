"""Directions: unit variance and no correlation, sums that agree with what is written out, low rank where asked."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.perturbations import PERTURBATIONS, LowRankConfig
from lopt.perturbations.low_rank import LowRankMatrices, factored_shape

THETA = {
    "matrix": jnp.arange(48.0).reshape(6, 8),
    "bank": jnp.ones((4, 3, 5)),
    "vector": jnp.zeros((3,)),
    "scalar": jnp.float32(2.0),
}
LANES = 6


def sampled(name: str, lanes: int = LANES, seed: int = 0, **fields: Any) -> Any:
    return PERTURBATIONS[name].model_validate(fields).sample(THETA, jax.random.key(seed), lanes)


def flat(tree: Any, lead: int) -> np.ndarray:
    return np.concatenate(
        [np.asarray(x, np.float64).reshape(*x.shape[:lead], -1) for x in jax.tree.leaves(tree)], axis=-1
    )


@pytest.mark.parametrize("name", sorted(PERTURBATIONS))
def test_weighted_sums_agree_with_the_twins_written_out(name: str) -> None:
    """Σ u ε, less the leave-one-out mean where directions are independent, from the twins at σ = 1."""
    directions = sampled(name)
    twins = flat(directions.twins(THETA, 1.0), 2) - flat(THETA, 0)  # ε of both twins, [2, N, P]
    utilities = np.random.default_rng(0).normal(size=(LANES, 2))
    used = utilities
    if name == "independent":
        used = utilities - (utilities.sum() - utilities) / (utilities.size - 1)
    expected = np.einsum("nt,tnp->p", used, twins)
    weights = directions.weights(jnp.asarray(utilities, jnp.float32))
    np.testing.assert_allclose(weights, used, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(flat(directions.weighted_sum(weights), 0), expected, rtol=2e-4, atol=2e-4)
    assert float(directions.squared_norm(weights)) == pytest.approx(np.sum(expected**2), rel=1e-4)


@pytest.mark.parametrize("name", sorted(PERTURBATIONS))
def test_directions_have_unit_variance_and_no_correlation(name: str) -> None:
    lanes = 20_000
    twins = flat(sampled(name, lanes).twins(jax.tree.map(jnp.zeros_like, THETA), 1.0), 2)
    sample = twins[0]
    error = 1.0 / np.sqrt(lanes)
    np.testing.assert_allclose(sample.mean(axis=0), 0.0, atol=5 * error)
    covariance = (
        sample.T @ sample / lanes
    )  # a product of normals has kurtosis 9: three times a normal's error
    np.testing.assert_allclose(covariance, np.eye(sample.shape[1]), atol=5 * 3 * error)


@pytest.mark.parametrize("name", sorted(PERTURBATIONS))
def test_tasks_take_their_lanes(name: str) -> None:
    directions = sampled(name)
    utilities = jnp.asarray(np.random.default_rng(1).normal(size=(LANES, 2)), jnp.float32)
    per_task = jax.vmap(lambda d, u: d.weighted_sum(u))(directions.by_task(3), utilities.reshape(3, 2, 2))
    for task in range(3):
        lanes = slice(2 * task, 2 * task + 2)
        alone = jax.tree.map(lambda leaf, lanes=lanes: leaf[lanes], directions)
        got = jax.tree.map(lambda leaf, task=task: leaf[task], per_task)
        np.testing.assert_allclose(flat(got, 0), flat(alone.weighted_sum(utilities[lanes]), 0), atol=1e-5)


@pytest.mark.parametrize("name", sorted(PERTURBATIONS))
def test_the_gradient_of_a_linear_loss_is_found_on_average(name: str) -> None:
    """For L(θ) = c·θ any direction with unit covariance gives c: low rank is unbiased where L is linear."""
    lanes, slopes = 40_000, np.linspace(-1.0, 1.0, 112)
    directions = sampled(name, lanes, seed=3)
    twins = flat(directions.twins(jax.tree.map(jnp.zeros_like, THETA), 0.5), 2)
    losses = jnp.asarray((twins @ slopes[: twins.shape[-1]]).T, jnp.float32)
    gradient = flat(directions.weighted_sum(directions.weights(losses)), 0) / (2 * 0.5 * lanes)
    error = np.linalg.norm(slopes) / np.sqrt(lanes)
    np.testing.assert_allclose(gradient, slopes[: len(gradient)], atol=5 * 2 * error)


def test_low_rank_matrices_have_that_rank_and_vectors_are_dense() -> None:
    directions = sampled("low_rank", rank=2).directions
    dense = directions["matrix"].dense()
    assert dense.shape == (LANES, 6, 8)
    assert [int(np.linalg.matrix_rank(one)) for one in dense] == [2] * LANES
    np.testing.assert_allclose(
        dense[0], directions["matrix"].left[0] @ directions["matrix"].right[0].T, atol=1e-6
    )
    assert isinstance(directions["bank"], LowRankMatrices)
    assert directions["bank"].dense().shape == (LANES, 4, 3, 5)
    assert directions["vector"].shape == (LANES, 3)


def test_a_tensor_is_a_matrix_over_its_most_even_split() -> None:
    assert factored_shape((256, 30, 4), 1) == (256, 120)
    assert factored_shape((2, 4, 4), 1) == (8, 4)
    assert factored_shape((7,), 1) is None
    assert factored_shape((3, 3), 2) is None  # factors of 12 numbers for 9
    assert factored_shape((), 1) is None


def test_higher_rank_comes_closer_to_gaussian_directions() -> None:
    """The fourth moment of an entry is 3 + 6/r: 9 at rank 1, a normal's 3 in the limit."""
    for rank in (1, 4):
        matrix = {"w": jnp.zeros((24, 24))}
        draws = LowRankConfig(rank=rank).sample(matrix, jax.random.key(0), 4_000).dense().epsilon["w"]
        fourth = float(jnp.mean(draws**4))
        assert fourth == pytest.approx(3 + 6 / rank, rel=0.08)
