"""Pytrees as flat dictionaries of NumPy arrays, and back.

The name of a leaf is its path as `jax.tree_util.keystr` writes it (`"['layer']['w']"`, `".mu['w']"`), so it
is readable and does not depend on the order of registration. Typed PRNG keys become their key data under a
name that ends in `#key:<implementation>`. Values keep their dtype; nothing is cast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from storage.errors import TreeMismatchError

PyTree = Any
FlatTree = dict[str, np.ndarray]
_KEY_MARK = "#key:"
_MAX_LISTED = 8


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def flatten(tree: PyTree) -> FlatTree:
    """Returns the leaves of `tree` as host arrays by path.

    Args:
      tree: Leaves are JAX or NumPy arrays, typed PRNG keys, Python numbers or booleans.

    Raises:
      TypeError: If a leaf is something else (text, an object); names it.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    named: dict[str, Any] = {}
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        if _is_key(leaf):
            name, leaf = f"{name}{_KEY_MARK}{jax.random.key_impl(leaf)}", jax.random.key_data(leaf)
        if name in named:
            raise TypeError(f"two leaves are called {name!r}; give the nodes distinct key paths.")
        named[name] = leaf
    return {name: _as_array(name, leaf) for name, leaf in jax.device_get(named).items()}


def _as_array(name: str, leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype.kind not in "biufcV" or array.dtype.names is not None:
        got = f"{type(leaf).__name__} of dtype {array.dtype}"
        raise TypeError(f"leaf {name!r} must be a numeric array, got {got}.")
    return array


def restore(template: PyTree, arrays: Mapping[str, np.ndarray]) -> PyTree:
    """Returns a tree like `template` with the values of `arrays`.

    Args:
      template: Gives the structure, shapes, dtypes and kind of each leaf: a JAX array or
        `jax.ShapeDtypeStruct` is restored as a JAX array, a NumPy array as such, a Python number as such.
      arrays: What `flatten` returned for a tree of that structure.

    Raises:
      TreeMismatchError: If anything is missing, left over, or of another shape or dtype; lists all of it.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    remaining = dict(arrays)
    problems: list[str] = []
    values: list[Any] = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        stored = _take(remaining, name, is_key=_is_key(leaf))
        if stored is None:
            problems.append(f"{name or 'the leaf'} is missing")
            continue
        value = _like(leaf, *stored)
        problem = _difference(leaf, value)
        if problem:
            problems.append(f"{name or 'the leaf'} {problem}")
        values.append(value)
    problems += [f"{name} is left over" for name in remaining]
    if problems:
        raise TreeMismatchError(_summary(problems))
    return jax.tree_util.tree_unflatten(structure, values)


def _take(arrays: dict[str, np.ndarray], name: str, *, is_key: bool) -> tuple[np.ndarray, str | None] | None:
    if not is_key:
        return (arrays.pop(name), None) if name in arrays else None
    found = next((k for k in arrays if k.startswith(name + _KEY_MARK)), None)
    return None if found is None else (arrays.pop(found), found.rpartition(_KEY_MARK)[2])


def _like(leaf: Any, array: np.ndarray, key_implementation: str | None) -> Any:
    if key_implementation is not None:
        return jax.random.wrap_key_data(jnp.asarray(array), impl=key_implementation)
    if array.dtype != _dtype(leaf) or array.shape != np.shape(leaf):
        return array  # reported as a difference
    if isinstance(leaf, (bool, int, float, complex)):
        return type(leaf)(array[()])
    if isinstance(leaf, np.generic):
        return array[()]
    return array if isinstance(leaf, np.ndarray) else jnp.array(array)


def _difference(leaf: Any, value: Any) -> str:
    expected = (np.shape(leaf), str(_dtype(leaf)))
    got = (np.shape(value), str(_dtype(value)))
    if expected == got:
        return ""
    return f"must be {expected[1]}{list(expected[0])}, got {got[1]}{list(got[0])}"


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def _summary(problems: list[str]) -> str:
    listed = "; ".join(problems[:_MAX_LISTED])
    more = f"; and {len(problems) - _MAX_LISTED} more" if len(problems) > _MAX_LISTED else ""
    return (
        f"stored arrays do not fit the tree asked for: {listed}{more}. "
        "Build the template from the configuration that the checkpoint records."
    )
