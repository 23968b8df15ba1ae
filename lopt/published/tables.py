"""What a published network's arrays are called in its files, and which of their lengths are sizes.

A `Table` is data: one `Entry` per array of theta, and for each size in the configuration the published axes that
have its length. Shapes are nowhere written down: they follow from `init_theta`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lopt.contract import ArchitectureConfig

Path = tuple[str, ...]
Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by a file's names."""
MAX_LAYERS = 16
"""Of a per-parameter network, in any file."""


class Entry(NamedTuple):
    """One array of theta, and the published arrays that it is made of."""

    ours: Path
    published: tuple[Path, ...]
    """One; or several, which follow one another along the next to last axis, the inputs'."""
    rows: tuple[int, ...] = ()
    """How many inputs each of several has."""


class Table(NamedTuple):
    """One architecture's format."""

    released: Callable[..., ArchitectureConfig]
    """Sizes → the configuration of the published network."""
    entries: Callable[[Any], list[Entry]]
    """Configuration → where each array is."""
    axes: Mapping[str, tuple[tuple[str, int], ...]]
    """Size → published arrays' axes of that length. Several, so that one wrong array doesn't hide all others."""
    layers: Callable[[Shapes], dict[str, Any]] = lambda shapes: {}
    """Shapes → the sizes that say how many layers there are."""
    is_record: bool = True
    """Whether the arrays come in a record with `gen_id` and `step`."""
    carried: Mapping[str, Any] = {}
    """Fields that only add arrays which nothing reads: where a configuration has less, `save` writes zeros."""
    not_in_file: tuple[str, ...] = ("state_dtype",)
    """Fields that are a choice of whoever uses the weights."""


def entry(ours: str, *published: str) -> Entry:
    """Returns the entry of one array; `ours` is '/'-joined, `published` is the name of each map on the way."""
    return Entry(tuple(ours.split("/")), (published,))


def linear(ours: str, *published: str) -> list[Entry]:
    """Returns the entries of a linear layer, `w` and `b` in both."""
    return [entry(f"{ours}/{kind}", *published, kind) for kind in ("w", "b")]


def count_layers(shapes: Shapes, *names: str) -> int:
    """Returns the number of layers, given `names` of arrays of layer `{}`; a gap is a missing array, no end."""
    return max((i + 1 for i in range(MAX_LAYERS) for name in names if name.format(i) in shapes), default=0)


def count_hidden(shapes: Shapes, *names: str) -> int:
    """Returns the number of layers before the last, or 0 where there is none at all."""
    return max(count_layers(shapes, *names) - 1, 0)


def hidden_sizes(shapes: Shapes, layer: str) -> tuple[int, ...]:
    """Returns the sizes of all linear layers but the last, given the name of layer `{}`."""
    weight, bias = f"{layer}/w", f"{layer}/b"
    sizes = []
    for i in range(count_hidden(shapes, weight, bias)):
        shape = shapes.get(bias.format(i)) or shapes.get(weight.format(i)) or (1,)
        sizes.append(shape[-1])
    return tuple(sizes)
