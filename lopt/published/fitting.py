"""Holding arrays against an architecture: which sizes they have, and what about them does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import ValidationError

from lopt.contract import ArchitectureConfig
from lopt.published.errors import PublishedFileError, listed, shown
from lopt.published.per_architecture import TABLES
from lopt.published.tables import Entry, Path, Shapes, Table
from lopt.types import Theta


def shapes_of(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array."""
    return {name: array.shape for name, array in arrays.items()}


def fit(architecture: str, shapes: Shapes) -> ArchitectureConfig:
    """Returns the configuration whose published arrays have these names and shapes.

    Raises:
      PublishedFileError: With every array that is missing, surplus or mis-shaped, and the architectures that fit.
    """
    config, problems = _compare(architecture, shapes)
    if config is not None and not problems:
        return config
    fitting = [name for name in TABLES if name != architecture and _compare(name, shapes)[1] == []]
    hint = (
        f"; it is a file of {' or '.join(map(repr, fitting))}: pass it as `architecture`" if fitting else ""
    )
    sizes = f" with {_sizes_text(architecture, config)}" if config is not None else ""
    raise PublishedFileError(f"does not fit {architecture!r}{sizes}{hint}:{listed(problems)}")


def published_shapes(entries: list[Entry], theta: Theta) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of the file that would hold `theta`, which may be abstract."""
    shapes: dict[str, tuple[int, ...]] = {}
    for item in entries:
        shape = at(theta, item.ours).shape
        pieces = [(*shape[:-2], rows, shape[-1]) for rows in item.rows] if item.rows else [shape]
        shapes |= {"/".join(path): piece for path, piece in zip(item.published, pieces, strict=True)}
    return shapes


def theta_from_published(config: ArchitectureConfig, arrays: Mapping[str, np.ndarray]) -> Theta:
    """Returns theta, float32, from published arrays that fit the configuration."""
    theta: dict[str, Any] = {}
    for item in TABLES[config.architecture].entries(config):
        pieces = [arrays["/".join(path)] for path in item.published]
        array = np.concatenate(pieces, axis=-2) if item.rows else pieces[0]
        *parents, name = item.ours
        parent = theta
        for key in parents:
            parent = parent.setdefault(key, {})
        parent[name] = jnp.asarray(array, jnp.float32)
    return theta


def published_from_theta(config: ArchitectureConfig, theta: Theta) -> dict[Path, np.ndarray]:
    """Returns the published arrays, by the names of the maps on the way, of a theta that fits the configuration."""
    arrays: dict[Path, np.ndarray] = {}
    for item in TABLES[config.architecture].entries(config):
        array = np.asarray(at(theta, item.ours))
        pieces = np.split(array, np.cumsum(item.rows)[:-1], axis=-2) if item.rows else [array]
        arrays |= dict(zip(item.published, pieces, strict=True))
    return arrays


def template(config: ArchitectureConfig) -> Theta:
    """Returns theta's structure, shapes and dtypes."""
    return jax.eval_shape(config.build().init_theta, jax.random.key(0))


def differences(found: Shapes, wanted: Shapes) -> Iterator[str]:
    """Yields what is missing in `found`, surplus or mis-shaped, in words."""
    for name, shape in wanted.items():
        if name not in found:
            yield f"missing `{name}`, wanted {list(shape)}"
    for name, shape in found.items():
        if name not in wanted:
            yield f"surplus `{shown(name)}`, found {list(shape)}"
    for name, shape in wanted.items():
        if name in found and found[name] != shape:
            yield f"mis-shaped `{name}`, found {list(found[name])}, wanted {list(shape)}"


def at(tree: Any, path: Path) -> Any:
    """Returns what is at a path in nested dictionaries."""
    for key in path:
        tree = tree[key]
    return tree


def inferred_sizes(table: Table, shapes: Shapes) -> dict[str, Any]:
    """Returns the sizes that most of the arrays agree on; those that no array shows are left out."""
    sizes = {field: size for field, size in table.layers(shapes).items() if size}
    for field, axes in table.axes.items():
        lengths = [shapes[name][axis] for name, axis in axes if len(shapes.get(name, ())) > axis]
        if lengths:
            sizes[field] = Counter(lengths).most_common(1)[0][0]
    return sizes


def _compare(architecture: str, shapes: Shapes) -> tuple[ArchitectureConfig | None, list[str]]:
    """Returns the nearest configuration, None where its sizes are out of range, and what does not fit."""
    table = TABLES[architecture]
    try:
        config = table.released(**inferred_sizes(table, shapes))
    except ValidationError as error:
        return None, [
            f"`{'.'.join(map(str, problem['loc']))}` would be {problem['input']}: {problem['msg']}"
            for problem in error.errors()
        ]
    wanted = published_shapes(table.entries(config), template(config))
    return config, list(differences(shapes, wanted))


def _sizes_text(architecture: str, config: ArchitectureConfig) -> str:
    table = TABLES[architecture]
    fields = [*table.axes, *table.layers({})]
    return ", ".join(f"{field}={getattr(config, field)}" for field in fields)
