"""Weights in one file: those that come with the package, and those that a user keeps outside any registry.

A file is an `.npz` of theta's arrays under their `jax.tree_util.keystr` paths, with the architecture's
configuration as JSON, and what is known of their training. Nothing in it is ever unpickled.
`lopt.load("shipped:pacer", num_steps=…)` reads a shipped one, `lopt.load("weights.npz", num_steps=…)` any other.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lopt.contract import ArchitectureConfig
from lopt.registry import lookup
from lopt.types import Theta

PREFIX = "shipped:"
FOLDER = Path(__file__).parents[1] / "weights"
_CONFIG, _NOTE, _TRAINED_ON = "__config__", "__note__", "__trained_on__"
_INITIAL_SEED = "__initial_seed__"


def shipped_names() -> tuple[str, ...]:
    """Returns the names of the weights that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.npz")))


def is_weights_file(reference: str) -> bool:
    """Whether `reference` names shipped weights or a weights file, rather than something in a registry."""
    return reference.startswith(PREFIX) or reference.endswith(".npz")


def read_arrays(reference: str) -> tuple[Mapping[str, Any], Mapping[str, np.ndarray]]:
    """Returns the architecture's configuration and theta's arrays by path.

    Args:
      reference: "shipped:NAME" or the path of a file that `write_weights` wrote.

    Raises:
      UnknownNameError: If no shipped weights carry the name.
      FileNotFoundError: If there is no such file.
      ValueError: If the file is damaged or not a weights file.
    """
    stored = _read(reference)
    return stored.config, stored.theta


def read_trained_on(reference: str) -> Sequence[Mapping[str, Any]] | None:
    """Returns what the phases of the weights' training may have drawn, as the file says; None: not known.

    Errors are those of `read_arrays`.
    """
    return _read(reference).trained_on


def read_initial_seed(reference: str) -> int | None:
    """Returns the seed of the theta that the weights' training started from; None where the file does not say.

    Errors are those of `read_arrays`.
    """
    return _read(reference).initial_seed


class _Stored(NamedTuple):
    config: Mapping[str, Any]
    trained_on: Sequence[Mapping[str, Any]] | None
    initial_seed: int | None
    theta: Mapping[str, np.ndarray]


def _read(reference: str) -> _Stored:
    if reference.startswith(PREFIX):
        files = {name: FOLDER / f"{name}.npz" for name in shipped_names()}
        path = lookup(files, reference.removeprefix(PREFIX), kind="shipped weights")
    else:
        path = Path(reference)
        if not path.is_file():
            raise FileNotFoundError(
                f"no weights file {str(path)!r}; shipped ones: {', '.join(shipped_names())}"
            )
    try:
        # Opened here: NumPy leaves a file open that turns out not to be an archive.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        config = json.loads(str(arrays.pop(_CONFIG)))
        trained_on = json.loads(str(arrays.pop(_TRAINED_ON, "null")))
        initial_seed = int(arrays.pop(_INITIAL_SEED)) if _INITIAL_SEED in arrays else None
        arrays.pop(_NOTE, None)
        return _Stored(config, trained_on, initial_seed, arrays)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged or not a weights file ({error}); write it again"
        ) from error


def write_weights(
    path: Path | str,
    config: ArchitectureConfig,
    theta: Theta,
    *,
    note: str = "",
    trained_on: Sequence[Mapping[str, Any]] | None = None,
    initial_seed: int | None = None,
) -> None:
    """Writes theta and its configuration to `path` (.npz), whole or not at all.

    Args:
      path: Must end in `.npz`; an existing file is replaced.
      config: The architecture's configuration.
      theta: Its meta-parameters.
      note: How they were made; kept in the file for its reader.
      trained_on: What each phase of their training may have drawn, as JSON: an evaluation asks it which tasks are
        held out. None: not known, and no task counts as held out.
      initial_seed: Of the theta that their training started from, which an evaluation compares them with; None: it
        started from another, or that is not known.

    Raises:
      ValueError: If the path ends otherwise.
      OSError: If it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"`path` must end in '.npz', got {str(path)!r}")
    leaves, _ = jax.tree_util.tree_flatten_with_path(theta)
    arrays: dict[str, Any] = {jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in leaves}
    arrays |= {_CONFIG: np.str_(config.canonical_json()), _NOTE: np.str_(note)}
    if initial_seed is not None:
        arrays[_INITIAL_SEED] = np.int64(initial_seed)
    if trained_on is not None:
        arrays[_TRAINED_ON] = np.str_(json.dumps(list(trained_on)))
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
