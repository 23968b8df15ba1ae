"""The deep set is the published function of a set of pairs: order, padding and what it never met leave it alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.types import Params
from runtime_model.estimators import COMPARED
from runtime_model.estimators.network import NetworkConfig as EstimatorConfig
from runtime_model.features import NUMBER, UNKNOWN, ConfigFeatures
from runtime_model.network import NetworkConfig, forget_unmet

SIZES = NetworkConfig(num_keys=6, num_values=5, pair_size=8, set_size=12)
LAST_KEY, LAST_VALUE = 5, 4
"""Rows that no pair of `features` has."""


@pytest.fixture(scope="module")
def features() -> ConfigFeatures:
    """Three configurations of 7, 5 and 4 pairs, padded to 8; keys 1 and 2 hold numbers, 3 and 4 categories."""
    rng = np.random.default_rng(0)
    mask = (np.arange(8) < np.asarray([[7], [5], [4]])).astype(np.float32)
    key_ids = np.where(mask > 0, rng.integers(1, LAST_KEY, (3, 8)), 0).astype(np.int32)
    key_ids[:, :4] = np.arange(1, 5)
    is_number = (key_ids == 1) | (key_ids == 2)
    value_ids = np.where(is_number, NUMBER, 2 + key_ids % 2) * (mask > 0)
    numbers = np.where(is_number, rng.normal(size=(3, 8)), 0.0) * mask
    return ConfigFeatures(key_ids, value_ids.astype(np.int32), numbers.astype(np.float32), mask)


@pytest.fixture(scope="module")
def params(features: ConfigFeatures) -> Params:
    """Every weight and bias at random: initial biases are zero and would hide what they do."""
    shapes = jax.eval_shape(lambda key: SIZES.build().init(key, features), jax.random.key(0))
    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [0.5 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return forget_unmet(jax.tree.unflatten(structure, drawn), jax.tree.map(jnp.asarray, features))


@jax.jit
def _apply(params: Params, features: ConfigFeatures) -> jax.Array:
    return SIZES.build().apply(params, features)


def _published(params: Params, features: ConfigFeatures) -> np.ndarray:
    """The release's forward pass, pair by pair; it widens every pair, then takes the mean."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    relu = lambda x: np.maximum(x, 0.0)
    layer = lambda x, of: x @ of["kernel"] + of["bias"]
    block, out = p["mixing_0"], []
    for keys, values, numbers, mask in zip(*features, strict=True):
        pairs = [
            p["key_table"][k] + p["value_table"][v] + relu(x * p["slope_table"][k] + p["bias_table"][k])
            for k, v, x, kept in zip(keys, values, numbers, mask, strict=True)
            if kept
        ]
        pairs = [relu(layer(pair, block["pair"])) for pair in pairs]
        mean = relu(layer(np.mean(pairs, axis=0), block["mean"]))
        maximum = relu(layer(np.max(pairs, axis=0), block["maximum"]))
        mixed = [(relu(layer(pair, block["own"])) + mean + maximum) / 3.0 for pair in pairs]
        hidden = np.mean([layer(pair, p["widen"]) for pair in mixed], axis=0)
        hidden = relu(layer(relu(layer(hidden, p["set_0"])), p["set_1"]))
        out.append(layer(hidden, p["out"])[0])
    return np.asarray(out)


def test_the_network_is_the_published_function(params: Params, features: ConfigFeatures) -> None:
    np.testing.assert_allclose(_apply(params, features), _published(params, features), rtol=1e-4)


def test_the_order_of_pairs_does_not_matter(params: Params, features: ConfigFeatures) -> None:
    order = np.random.default_rng(1).permutation(8)
    moved = ConfigFeatures(*(field[:, order] for field in features))
    np.testing.assert_allclose(_apply(params, moved), _apply(params, features), rtol=1e-5)


def test_padding_does_not_matter_whatever_it_holds(params: Params, features: ConfigFeatures) -> None:
    wider = ConfigFeatures(*(np.pad(field, ((0, 0), (0, 8))) for field in features))
    np.testing.assert_allclose(_apply(params, wider), _apply(params, features), rtol=1e-5)
    padding = features.mask == 0.0
    key_ids = np.where(padding, 2, features.key_ids)
    odd = ConfigFeatures(
        key_ids, np.where(padding, 3, features.value_ids), features.numbers + 9 * padding, features.mask
    )
    np.testing.assert_array_equal(_apply(params, odd), _apply(params, features))


@pytest.mark.parametrize("key", [UNKNOWN, LAST_KEY])
def test_a_key_that_was_never_met_contributes_nothing(
    params: Params, features: ConfigFeatures, key: int
) -> None:
    key_ids, value_ids, numbers, mask = (field.copy() for field in features)
    key_ids[:, 7], value_ids[:, 7], numbers[:, 7], mask[:, 7] = key, NUMBER, 3.0, 1.0
    novel = ConfigFeatures(key_ids, value_ids, numbers, mask)
    np.testing.assert_allclose(_apply(params, novel), _apply(params, features), rtol=1e-5)


def test_a_category_or_a_number_that_was_never_met_leaves_only_its_key(
    params: Params, features: ConfigFeatures
) -> None:
    """Key 3 is met with a category only: another category is as good as none, and a number has no slope."""
    results = []
    for value, number in ((UNKNOWN, 0.0), (LAST_VALUE, 0.0), (UNKNOWN, 5.0)):
        value_ids, numbers = features.value_ids.copy(), features.numbers.copy()
        value_ids[:, 2], numbers[:, 2] = value, number  # the third pair's key is 3
        results.append(_apply(params, features._replace(value_ids=value_ids, numbers=numbers)))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    assert not np.allclose(results[0], _apply(params, features))


def test_what_was_never_met_gets_no_gradient(params: Params, features: ConfigFeatures) -> None:
    gradients = jax.grad(lambda p: _apply(p, features).sum())(params)["params"]
    for name, row in (("key_table", LAST_KEY), ("bias_table", LAST_KEY), ("value_table", LAST_VALUE)):
        table = np.asarray(gradients[name])
        assert table[:row].any()
        assert not table[[UNKNOWN, row]].any()
    assert not np.asarray(gradients["slope_table"])[3:].any()


def test_the_papers_network_has_the_sizes_of_its_release(features: ConfigFeatures) -> None:
    """128 per pair, one block of four layers, then 512 three times, then the number."""
    estimator = COMPARED["paper"]
    assert isinstance(estimator, EstimatorConfig)
    sizes = estimator.sizes(num_keys=6, num_values=5)
    shapes = jax.eval_shape(lambda key: sizes.build().init(key, features), jax.random.key(0))["params"]
    kernels = [leaf.shape for leaf in jax.tree.leaves(shapes) if leaf.ndim == 2]
    assert sorted(kernels) == sorted(
        [*[(6, 128)] * 3, (5, 128), *[(128, 128)] * 4, (128, 512), *[(512, 512)] * 2, (512, 1)]
    )
    assert estimator.num_members == 1
    assert not estimator.spans_families
