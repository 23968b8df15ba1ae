"""The bytes of a published file: msgpack, as Flax's `to_bytes` writes it.

A tree is a map by name. An array is an extension of type 1 (a scalar: of type 3) that holds, in msgpack again, the
shape, the name of the dtype and the elements in C order. A checkpoint is the record {params, gen_id, step}; some
releases have the bare `params`. A named tuple is a map of its fields in their order; before 2022 it was
{name, fields, values}, with maps by index in the last two. That form is read, and the present one written.

Files come from strangers. Nothing is unpickled, no name is looked up, and what a header claims is checked against
what is there before anything of that size is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import msgpack
import numpy as np

from lopt.published.errors import MAX_LISTED, PublishedFileError, listed, shown

ARRAY, SCALAR = 1, 3
MAX_DEPTH = 8
MAX_ENTRIES = 1024
"""Of one map; the largest of the published ones has 19."""
MAX_RANK = 8
MAX_BYTES = 2**31 - 1
"""Of one value: msgpack's own. (Its reader would take the length of the file, and misname what is cut off.)"""
FIRST_BYTES = 24
"""How much of a file that is no msgpack is shown: enough to tell an archive, a page or a pointer."""
WEIGHT_DTYPES = {
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": jnp.bfloat16,
}
COUNT_DTYPES = {
    f"{kind}{bits}": np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
NAMED_TUPLE_ORDERS = (("hidden", "cell"),)
"""Fields of the named tuples in published trees: every other map is written in alphabetical order."""

Arrays = dict[str, np.ndarray]
"""By path: the names of the maps on the way to an array, joined by '/' (names may themselves contain it)."""


class Record(NamedTuple):
    """What a file holds."""

    arrays: Arrays
    gen_id: str | None
    """The training run's name for this generation of weights; None in a bare file."""
    step: int | None
    """Of meta-training; None in a bare file."""


def decode(data: bytes) -> Record:
    """Returns what the bytes of a file hold; arrays are float32.

    Half precisions are widened, exactly. float64 is rounded, as the published implementations do on loading.

    Raises:
      PublishedFileError: With every array that is damaged, has another dtype, or values that are not finite.
    """
    tree = _unpack(data)
    if not isinstance(tree, dict):
        raise PublishedFileError(
            f"holds a single value, not arrays by name; it begins with {data[:FIRST_BYTES]!r}"
        )
    gen_id, step, params = None, None, tree
    if "params" in tree:
        gen_id, step, params = _read_record(tree)
    if not isinstance(params, dict):
        raise PublishedFileError("has no map of arrays as `params`")
    arrays: Arrays = {}
    problems = []
    for name, value in _flatten(params, ()):
        if name in arrays:
            problems.append(f"`{shown(name)}` is there twice")
            continue
        try:
            arrays[name] = _weights(value)
        except PublishedFileError as error:
            problems.append(f"`{shown(name)}` {error}")
    if problems:
        raise PublishedFileError(f"has damaged arrays:{listed(problems)}")
    if not arrays:
        raise PublishedFileError("holds no arrays")
    return Record(arrays, gen_id, step)


def encode(arrays: Mapping[tuple[str, ...], np.ndarray], *, gen_id: str | None, step: int | None) -> bytes:
    """Returns the bytes of a file: the record, or without `gen_id` and `step` the bare arrays."""
    params = _nest(arrays)
    tree = params if gen_id is None or step is None else {"params": params, "gen_id": gen_id, "step": step}
    packed: bytes = msgpack.packb(tree, default=_pack_array, strict_types=True)
    return packed


def _unpack(data: bytes) -> Any:
    begins = f"it begins with {data[:FIRST_BYTES]!r}"
    try:
        # No part of the format is a list: a header that promises one of a billion is refused, not allocated.
        return msgpack.unpackb(
            data,
            object_pairs_hook=_without_duplicates,
            max_map_len=MAX_ENTRIES,
            max_array_len=0,
            max_str_len=MAX_BYTES,
            max_ext_len=MAX_BYTES,
            raw=False,
        )
    except PublishedFileError:
        raise
    except msgpack.ExtraData as error:
        raise PublishedFileError(
            f"is not a published file: after a complete value, {len(error.extra)} bytes are left over; {begins}"
        ) from error
    except (ValueError, msgpack.UnpackException) as error:
        if "incomplete" in str(error):
            raise PublishedFileError(f"ends early, after {len(data)} bytes: copy it again") from error
        raise PublishedFileError(
            f"is not a published file ({str(error) or type(error).__name__}); {begins}"
        ) from error


def _without_duplicates(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise PublishedFileError(
            f"has a map with a name twice, among {[shown(str(k)) for k, _ in pairs[:MAX_LISTED]]}"
        )
    return tree


def _read_record(tree: Mapping[Any, Any]) -> tuple[str, int, Any]:
    problems = [f"lacks `{field}`" for field in ("gen_id", "step") if field not in tree]
    problems += [
        f"has `{shown(str(name))}` besides" for name in tree if name not in ("params", "gen_id", "step")
    ]
    if problems:
        raise PublishedFileError(
            f"is not a record of `params`, `gen_id` and `step`: it {' and '.join(problems)}"
        )
    step = tree["step"]
    if isinstance(step, msgpack.ExtType):
        try:
            step = _array(step, COUNT_DTYPES)
        except PublishedFileError as error:
            raise PublishedFileError(f"has no whole number as `step`: it {error}") from error
        step = int(step) if step.ndim == 0 else None
    if type(step) is not int or not isinstance(tree["gen_id"], str):
        raise PublishedFileError("must have a text as `gen_id` and a whole number as `step`")
    return tree["gen_id"], step, tree["params"]


def _flatten(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict):
        yield "/".join(path), tree
        return
    if len(path) == MAX_DEPTH:
        raise PublishedFileError(f"nests maps deeper than {MAX_DEPTH}, at `{shown('/'.join(path))}`")
    for name, value in _present_form(tree, path).items():
        if not isinstance(name, str):
            raise PublishedFileError(f"has a name that is no text in `{shown('/'.join(path))}`")
        yield from _flatten(value, (*path, name))


def _present_form(tree: dict[Any, Any], path: tuple[str, ...]) -> dict[Any, Any]:
    """Returns a named tuple of the old form as a map of its fields, and anything else as it is."""
    if set(tree) != {"name", "fields", "values"}:
        return tree
    fields, values = tree["fields"], tree["values"]
    if isinstance(fields, dict) and isinstance(values, dict):
        indices = {str(i) for i in range(len(fields))}
        if set(fields) == set(values) == indices and len(set(map(str, fields.values()))) == len(fields):
            return {fields[i]: values[i] for i in fields}
    raise PublishedFileError(
        f"has a named tuple whose fields and values do not match, at `{shown('/'.join(path))}`"
    )


def _weights(value: Any) -> np.ndarray:
    """Returns an array as float32."""
    if not isinstance(value, msgpack.ExtType):
        raise PublishedFileError(f"is no array but {shown(repr(value))}")
    array = _array(value, WEIGHT_DTYPES)
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    if not np.isfinite(narrow).all():
        bad = int(np.sum(~np.isfinite(narrow)))
        raise PublishedFileError(f"has {bad} values, of {narrow.size}, that are not finite in float32")
    return narrow


def _array(value: msgpack.ExtType, dtypes: Mapping[str, Any]) -> np.ndarray:
    if value.code not in (ARRAY, SCALAR):
        raise PublishedFileError(f"is an extension of type {value.code}; an array is of type {ARRAY}")
    try:
        content = msgpack.unpackb(value.data, raw=True, max_array_len=MAX_RANK, max_map_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise PublishedFileError(
            f"is not readable as an array ({str(error) or type(error).__name__})"
        ) from error
    if not (
        isinstance(content, list)
        and len(content) == 3
        and isinstance(content[0], list)
        and all(type(length) is int and length >= 0 for length in content[0])
        and isinstance(content[1], bytes)
        and isinstance(content[2], bytes)
    ):
        raise PublishedFileError("is not an array's shape, dtype and elements")
    shape, dtype_name, elements = tuple(content[0]), content[1].decode("ascii", "replace"), content[2]
    if dtype_name not in dtypes:
        raise PublishedFileError(f"has dtype {shown(dtype_name)}; must be one of {', '.join(dtypes)}")
    if not (value.code == ARRAY or shape == ()):
        raise PublishedFileError(f"is an extension of type {SCALAR}, a scalar, but has shape {list(shape)}")
    dtype = np.dtype(dtypes[dtype_name])
    wanted = math.prod(shape) * dtype.itemsize
    if wanted != len(elements) or not wanted:
        need = f"{wanted} bytes" if wanted else "at least one element"
        raise PublishedFileError(
            f"has {len(elements)} bytes; its shape {list(shape)} of {dtype_name} needs {need}"
        )
    return np.frombuffer(elements, dtype).reshape(shape)


def _nest(arrays: Mapping[tuple[str, ...], np.ndarray]) -> dict[str, Any]:
    groups: dict[str, dict[tuple[str, ...], np.ndarray]] = {}
    for (name, *rest), array in arrays.items():
        groups.setdefault(name, {})[tuple(rest)] = array
    orders = [order for order in NAMED_TUPLE_ORDERS if set(order) == set(groups)]
    return {
        name: groups[name][()] if () in groups[name] else _nest(groups[name])
        for name in (orders[0] if orders else sorted(groups))
    }


def _pack_array(array: np.ndarray) -> msgpack.ExtType:
    return msgpack.ExtType(ARRAY, msgpack.packb((array.shape, array.dtype.name, array.tobytes("C"))))
