"""Round trips of every kind of leaf, and errors that name every misfit at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from storage.errors import TreeMismatchError
from storage.pytrees import flatten, restore


class State(NamedTuple):
    mean: jax.Array
    count: jax.Array


TREES: dict[str, Any] = {
    "nested": {"b": jnp.arange(6.0).reshape(2, 3), "a": [jnp.int32(3), np.arange(3, dtype=np.uint8)]},
    "namedtuple": State(jnp.ones(2), jnp.zeros((), jnp.int32)),
    "single leaf": jnp.float32(2.5),
    "empty": {"nothing": (), "no rows": np.zeros((0, 3), np.float32)},
    "bfloat16": {"w": jnp.array([1.5, -0.0, jnp.inf], jnp.bfloat16)},
    "non-finite": {"w": np.array([np.nan, np.inf, -0.0], np.float32)},
    "keys": {"one": jax.random.key(3), "many": jax.random.split(jax.random.key(0), 4)},
    "other key": jax.random.key(3, impl="rbg"),
    "numbers": {"int": 3, "float": 0.1, "bool": True, "numpy": np.float64(0.1)},
    "optax state": optax.adam(1e-3).init({"w": jnp.ones((2, 2))}),
}


def bits(leaf: Any) -> tuple[str, tuple[int, ...], bytes]:
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    array = np.asarray(leaf)
    return str(array.dtype), array.shape, array.tobytes()


@pytest.mark.parametrize("name", TREES)
def test_restoring_a_flattened_tree_gives_it_back_bit_for_bit(name: str) -> None:
    tree = TREES[name]
    restored = restore(tree, flatten(tree))
    assert jax.tree.structure(restored) == jax.tree.structure(tree)
    for before, after in zip(jax.tree.leaves(tree), jax.tree.leaves(restored), strict=True):
        assert bits(before) == bits(after)
        assert isinstance(after, jax.Array) == isinstance(before, jax.Array)


def test_names_are_paths_and_keys_say_their_implementation() -> None:
    flat = flatten({"theta": {"w": jnp.ones(2)}, "key": jax.random.key(0)})
    assert sorted(flat) == ["['key']#key:threefry2x32", "['theta']['w']"]


def test_a_shape_template_suffices() -> None:
    tree = {"w": jnp.ones((2, 3)), "key": jax.random.key(5)}
    restored = restore(jax.eval_shape(lambda: tree), flatten(tree))
    assert bits(restored["key"]) == bits(tree["key"])
    assert isinstance(restored["w"], jax.Array)


def test_all_misfits_are_listed() -> None:
    template = {"a": jnp.ones(2), "b": jnp.ones(3), "c": jnp.ones(4)}
    arrays = flatten({"a": jnp.ones(2, jnp.int32), "b": jnp.ones((3, 1)), "extra": jnp.ones(1)})
    with pytest.raises(TreeMismatchError) as caught:
        restore(template, arrays)
    message = str(caught.value)
    assert "['a'] must be float32[2], got int32[2]" in message
    assert "['b'] must be float32[3], got float32[3, 1]" in message
    assert "['c'] is missing" in message
    assert "['extra'] is left over" in message


def test_another_key_implementation_does_not_fit() -> None:
    with pytest.raises(TreeMismatchError, match=r"key<fry>.*key<rbg>"):
        restore(jax.random.key(0), flatten(jax.random.key(0, impl="rbg")))


@pytest.mark.parametrize("leaf", ["text", object(), np.array(["a"]), np.array([(1, 2)], dtype="i4,i4")])
def test_what_is_no_numeric_array_is_refused_by_name(leaf: Any) -> None:
    with pytest.raises(TypeError, match=r"\['bad'\]"):
        flatten({"good": 1, "bad": leaf})


def test_restored_arrays_do_not_alias_the_stored_ones() -> None:
    flat = {"['w']": np.ones(64, np.float32)}
    restored = restore({"w": jnp.zeros(64)}, flat)
    flat["['w']"][:] = 7.0
    assert float(restored["w"][0]) == 1.0
