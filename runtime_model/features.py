"""Turns a nested configuration into key/value pairs that a network can read, without hashing anything.

A configuration of any pydantic class is flattened into pairs. The key is the path to the field, qualified
by the discriminator of every union on the way (`family[mlp].hidden_size`); the value is a category or a
number. Where a nested model has `approximate_cost()`, its numbers join as ordinary pairs
(`family.cost.flops_per_step`), shared by all families. The vocabulary comes from the JSON schema, extended
by what the fitted configurations hold (a plain `str` field lists no categories). Row 0 of both tables is
"unknown": a key or value that appears later is read as that row, never as some other key's.

Deviations from [1] and its release: no hashed ids and so no collisions; booleans are categories; all numbers are
log-scaled, then mapped by the minimum and maximum of the fitted rows to [-1, 1] and *not* clamped, so that a larger
network than any seen is still seen to be larger (the release lets a number widen the range that it is about to be
mapped by, at prediction too, which clamps it); padding is masked at fitting and at prediction.

[1] Metz et al. 2022, VeLO (arXiv:2211.09760), App. C.4
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from lopt.config import FrozenConfig
from runtime_model.schema import const_fields, schema_pairs

UNKNOWN = 0
"""Row of an unseen key, and of an unseen category."""
NUMBER = 1
"""Row of the value table that every number shares; its magnitude travels in `numbers`."""
Pair = tuple[str, str | float]


class ConfigFeatures(NamedTuple):
    """Key/value pairs of N configurations, padded to K pairs each.

    Shapes: every field [N, K]. `key_ids`, `value_ids` int32; `numbers` float32 (0 for a category); `mask`
    float32, 1 for a pair and 0 for padding.
    """

    key_ids: np.ndarray
    value_ids: np.ndarray
    numbers: np.ndarray
    mask: np.ndarray


def read_pairs(config: BaseModel) -> list[Pair]:
    """Returns the key/value pairs of `config`: categories as strings, numbers as floats.

    Raises:
      TypeError: If a field holds something that is neither a number, a category nor a container of those.
    """
    pairs: list[Pair] = []
    _walk("", config, pairs, with_cost=True)
    return pairs


def _walk(path: str, value: Any, pairs: list[Pair], *, with_cost: bool) -> None:
    if isinstance(value, str):
        pairs.append((path, value))
    elif value is None or isinstance(value, bool):  # before int: a bool is an int
        pairs.append((path, str(value).lower()))
    elif isinstance(value, int | float):
        pairs.append((path, float(value)))
    elif isinstance(value, BaseModel):
        prefix, names = _class_plan(path, type(value))
        cost = getattr(value, "approximate_cost", None) if with_cost else None
        if cost is not None:  # of the outermost model that knows its cost: it speaks for its parts
            pairs.extend((f"{prefix}cost.{name}", float(number)) for name, number in cost().items())
        for name, key in names:
            _walk(key, getattr(value, name), pairs, with_cost=with_cost and cost is None)
    elif isinstance(value, Mapping):
        for name, child in value.items():
            _walk(f"{path}.{name}", child, pairs, with_cost=with_cost)
    elif isinstance(value, tuple | list | frozenset | set):
        pairs.append((f"{path}#", float(len(value))))
        for child in value if isinstance(value, tuple | list) else sorted(value):
            _walk(path, child, pairs, with_cost=with_cost)
    else:
        raise TypeError(
            f"`{path}` must hold a number, a string, None or a container of those to be featurised, got "
            f"{type(value).__name__}. Give the configuration class a plain field instead."
        )


@lru_cache(maxsize=4096)
def _class_plan(path: str, cls: type[BaseModel]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Returns the prefix of shared keys, and (field, key) for each field of `cls` found at `path`."""
    consts = const_fields(cls)
    qualified = f"{path}[{','.join(consts)}]" if consts else path
    own = f"{qualified}." if qualified else ""
    return (f"{path}." if path else ""), tuple((name, own + name) for name in cls.model_fields)


def log_scale(number: float) -> float:
    """Returns sign(x) · log(1 + |x|), which is defined for zero layers and for negative numbers too."""
    return math.copysign(math.log1p(abs(number)), number)


class Vocabulary(FrozenConfig):
    """The keys and categories a fitted model knows, and each key's range of log-scaled numbers.

    Row numbers: `keys[i]` is row i + 1; `values[i]` ("key=category") is row i + 2.
    """

    keys: tuple[str, ...]
    values: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def num_keys(self) -> int:
        """Rows of the key table, with the unknown one."""
        return len(self.keys) + 1

    @property
    def num_values(self) -> int:
        """Rows of the value table, with the unknown one and the one of all numbers."""
        return len(self.values) + 2

    @cached_property
    def rows(self) -> tuple[dict[str, tuple[int, float, float]], dict[str, int]]:
        """Key → (row, offset, factor), and "key=category" → row."""
        keys = {}
        for row, (key, low, high) in enumerate(zip(self.keys, self.low, self.high, strict=True), start=1):
            width = high - low if high > low else 2.0  # a key seen with one number: offset only
            keys[key] = (row, (low + high) / 2, 2.0 / width)
        return keys, {value: row for row, value in enumerate(self.values, start=2)}


def build_vocabulary(config_type: type[BaseModel] | None, pairs: Iterable[Sequence[Pair]] = ()) -> Vocabulary:
    """Returns the vocabulary of a configuration class (if given) and of the configurations to fit."""
    schema_keys, schema_values = ([], []) if config_type is None else schema_pairs(config_type)
    keys, values = dict.fromkeys(schema_keys), dict.fromkeys(schema_values)
    numbers: dict[str, list[float]] = {}
    for key, value in (pair for config_pairs in pairs for pair in config_pairs):
        keys.setdefault(key)
        if isinstance(value, str):
            values.setdefault(f"{key}={value}")
        else:
            numbers.setdefault(key, []).append(log_scale(value))
    low = tuple(min(numbers.get(key, [0.0])) for key in keys)
    high = tuple(max(numbers.get(key, [0.0])) for key in keys)
    return Vocabulary(keys=tuple(keys), values=tuple(values), low=low, high=high)


def featurize(
    configs: Sequence[Sequence[Pair]] | Sequence[BaseModel], vocabulary: Vocabulary
) -> ConfigFeatures:
    """Returns the features of `configs` (configurations, or their pairs), padded to a multiple of 8 pairs."""
    keys, values = vocabulary.rows
    all_pairs = [read_pairs(c) if isinstance(c, BaseModel) else c for c in configs]
    width = -(-max((len(pairs) for pairs in all_pairs), default=1) // 8) * 8
    shape = (len(all_pairs), width)
    ids = np.zeros((2, *shape), np.int32)
    numbers, mask = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for i, pairs in enumerate(all_pairs):
        mask[i, : len(pairs)] = 1.0
        for k, (key, value) in enumerate(pairs):
            row, offset, factor = keys.get(key, (UNKNOWN, 0.0, 0.0))
            ids[0, i, k] = row
            if isinstance(value, str):
                ids[1, i, k] = values.get(f"{key}={value}", UNKNOWN)
            else:
                ids[1, i, k] = NUMBER
                numbers[i, k] = (log_scale(value) - offset) * factor
    return ConfigFeatures(ids[0], ids[1], numbers, mask)
