"""Weights in the published on-disk formats: read from files of the releases, and written for them.

    config, theta = lopt.published.load("velo.msgpack", architecture="velo")
    optimizer = config.build().transform(theta, num_steps=10_000)        # an optax transformation

A file holds arrays by name and nothing else: sizes are inferred from them, and everything else in the configuration
is as published (`VeloConfig.released` and its like).

    msgpack_format     bytes ⇄ arrays by name
    per_architecture   each architecture's names and sizes, as data
    fitting            arrays ⇄ theta, and what does not fit
    files              reading, and writing so that a crash leaves the old file or the new one
"""

from __future__ import annotations

import os
from typing import Any, Literal

import jax
import numpy as np

from lopt.config import derive
from lopt.contract import ArchitectureConfig
from lopt.published import files, fitting, msgpack_format
from lopt.published.errors import PublishedFileError, listed
from lopt.published.per_architecture import TABLES
from lopt.published.tables import Table
from lopt.registry import lookup
from lopt.types import Theta

__all__ = ["PublishedArchitecture", "PublishedFileError", "load", "save"]

PublishedArchitecture = Literal["adafactor_mlp", "celo2", "per_parameter_mlp", "rnn_mlp", "velo"]


def load(
    path: str | os.PathLike[str], *, architecture: PublishedArchitecture
) -> tuple[ArchitectureConfig, Theta]:
    """Reads published weights.

        config, theta = lopt.published.load("velo.msgpack", architecture="velo")
        optimizer = config.build().transform(theta, num_steps=10_000)    # an optax transformation

    The file may be a record {params, gen_id, step} or the bare arrays, and may have LSTM states in the form that
    was written before 2022. Arrays in half precision are widened; float64 is rounded, as the releases do.

    A file does not say with which settings it is to be used. Where they are not the published ones, change them:
    `derive(config, loss_horizon=10)` for VeLO checkpoints from before the loss features knew the number of steps,
    `derive(config, variant="orthogonalized")` for Celo2, which is loaded as Celo2-base.

    Args:
      path: A local file. It may come from anywhere: nothing in it is executed.
      architecture: What the weights are for.

    Returns:
      The published network's configuration in the file's sizes, and float32 theta.

    Raises:
      PublishedFileError: If the file is damaged, has values that are not finite, or doesn't fit: the message names
        each array that is missing, surplus or mis-shaped, and the architectures that do fit.
      UnknownNameError: If there is no published format of that architecture.
      OSError: If the file can't be read.
    """
    lookup(TABLES, architecture, kind="published architecture")
    file = files.check_path(path)
    data = files.read_file(file)
    try:
        arrays = msgpack_format.decode(data).arrays
        config = fitting.fit(architecture, fitting.shapes_of(arrays))
    except PublishedFileError as error:
        raise PublishedFileError(f"`{file}` {error}") from error
    return config, fitting.theta_from_published(config, arrays)


def save(
    path: str | os.PathLike[str], config: ArchitectureConfig, theta: Theta, *, gen_id: str = "", step: int = 0
) -> None:
    """Writes weights so that the published implementation reads them; `load` gives back the same bits.

        lopt.published.save("theta.state", config, theta)

    What VeLO's and Celo2's files carry though nothing reads it (a layer, two outputs) is written as zeros where
    theta hasn't got it. A file appears whole or not at all; one that is there already stays as it is until then.

    Args:
      path: A local file in a folder that exists.
      config: The architecture, with the published settings: what else it says would be lost. Exempt are choices
        that were never part of a file, such as `state_dtype`.
      theta: Its meta-parameters, float32 and finite.
      gen_id: The record's name for this generation of weights; not written where the format has no record (celo2).
      step: The record's step of meta-training.

    Raises:
      UnknownNameError: If there is no published format of that architecture.
      ValueError: If the format can't express the configuration, or theta doesn't fit it; says every field or array.
      OSError: If the file can't be written.
    """
    table = lookup(TABLES, config.architecture, kind="published architecture")
    file = files.check_path(path)
    if not isinstance(gen_id, str) or type(step) is not int or not 0 <= step < 2**63:
        raise ValueError(
            f"`gen_id` must be a text and `step` a whole number of at least 0, got {gen_id=}, {step=}"
        )
    _require_published_settings(config, table)
    _require_theta(config, theta)
    published = derive(config, **table.carried)
    arrays = fitting.published_from_theta(published, _filled_up(theta, fitting.template(published)))
    shapes = fitting.shapes_of({"/".join(name): array for name, array in arrays.items()})
    try:
        fitting.fit(config.architecture, shapes)
    except PublishedFileError as error:
        raise ValueError(f"the file to be written could not be read again: it {error}") from error
    record = {"gen_id": gen_id, "step": step} if table.is_record else {"gen_id": None, "step": None}
    files.replace_file(file, msgpack_format.encode(arrays, **record))


def _require_published_settings(config: ArchitectureConfig, table: Table) -> None:
    wanted = table.released().model_dump()
    free = {*table.axes, *table.layers({}), *table.carried, *table.not_in_file}
    wrong = [
        f"`{field}` must be {wanted[field]!r}, got {value!r}"
        for field, value in config.model_dump().items()
        if field not in free and value != wanted[field]
    ]
    values = {field: getattr(config, field) for field in table.carried}
    wrong += [
        f"`{field}` must be at most {most}, got {values[field]}"
        for field, most in table.carried.items()
        if values[field] > most
    ]
    if wrong:
        raise ValueError(
            f"a published {config.architecture!r} file holds weights alone, so `config` must have the published "
            f"settings; if the weights are meant for those, `lopt.derive` them:{listed(wrong)}"
        )


def _require_theta(config: ArchitectureConfig, theta: Theta) -> None:
    found = _by_name(theta)
    wanted = {name: leaf.shape for name, leaf in _by_name(fitting.template(config)).items()}
    problems = list(fitting.differences({name: np.shape(leaf) for name, leaf in found.items()}, wanted))
    for name, leaf in found.items():
        dtype = getattr(leaf, "dtype", type(leaf).__name__)
        if dtype != np.float32:
            problems.append(f"`{name}` must be float32, got {dtype}")
        elif not np.isfinite(np.asarray(leaf)).all():
            problems.append(f"`{name}` has values that are not finite")
    if problems:
        raise ValueError(
            f"theta does not fit the configuration of {config.architecture!r}:{listed(problems)}"
        )


def _filled_up(theta: Theta, template: Theta) -> Theta:
    """Returns theta in the template's shapes, which are nowhere smaller, with zeros for what it hasn't got."""
    found = _by_name(theta)

    def fill(path: Any, leaf: Any) -> np.ndarray:
        array = np.asarray(found.get(_name(path), np.zeros([0] * len(leaf.shape), np.float32)))
        return np.pad(array, [(0, want - have) for want, have in zip(leaf.shape, array.shape, strict=True)])

    return jax.tree_util.tree_map_with_path(fill, template)


def _by_name(theta: Theta) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(theta)
    return {_name(path): leaf for path, leaf in leaves}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
