"""What a user means by "candidate", "champion", `models:/keirin/3` or a folder: weights, and who they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from pydantic import ValidationError

from curriculum.training_domain import TrainingDomain
from curriculum.worker import build_optimizer
from flows.artifacts import fingerprint_of
from flows.session import Session
from lopt.architectures import ARCHITECTURES
from lopt.contract import ArchitectureConfig
from lopt.registry import lookup
from lopt.types import Theta
from lopt.use.loading import INITIAL, theta_from_arrays
from lopt.use.loading import initial_theta as theta_before_training
from lopt.use.shipped import is_weights_file, read_arrays, read_initial_seed
from lopt.use.shipped import read_trained_on as trained_on_in_file
from storage.errors import AliasNotFoundError, StorageError
from storage.pytrees import restore
from storage.registry_reading import resolve_version
from storage.resolver import ARCHITECTURE, THETA, resolve_checkpoint

TRAINED_ON = "trained_on"
"""Where a checkpoint's metadata say what its phases may have drawn."""
INITIAL_SEED = "initial_seed"
"""Where they say which seed the first of these phases started with: theirs, where it is not said."""


@dataclass(frozen=True)
class OptimizerReference:
    """A learned optimizer with its weights.

    Attributes:
      ref: What the user wrote.
      version: Of the registered model; None for a folder.
      architecture: Its configuration, as JSON text.
      theta: The weights.
      initial_seed: Of the weights that its training started from; None if a file doesn't say.
      initial_theta: Those weights, of seed 0 then.
      fingerprint: Of architecture and weights, to the last bit.
      trained_on: What the phases of its training may draw; None if the checkpoint doesn't say.
    """

    ref: str
    version: int | None
    architecture: str
    theta: Theta
    initial_seed: int | None
    initial_theta: Theta
    fingerprint: str
    trained_on: tuple[TrainingDomain, ...] | None = None

    def config(self) -> dict[str, Any]:
        """Returns the architecture's configuration."""
        return dict(json.loads(self.architecture))


def resolve_optimizer(ref: str, session: Session) -> OptimizerReference:
    """Returns the learned optimizer behind `ref`.

    Args:
      ref: An alias, `models:/NAME/VERSION`, a checkpoint's folder, "shipped:NAME", a weights file's path (.npz)
        or "initial:ARCHITECTURE", untrained. Those in files need not say what they were trained on.
      session: Whose registry to ask.

    Raises:
      UnknownNameError: If no shipped weights, or no architecture, carry the name.
      FileNotFoundError: If there is no such weights file.
      AliasNotFoundError: If there is no such alias or version.
      CheckpointNotFoundError: If there is no such folder.
      CorruptCheckpointError: If its bytes are not those that were written.
    """
    if ref.startswith(INITIAL):
        return _untrained(ref)
    if is_weights_file(ref):
        return _from_file(ref)
    checkpoint = resolve_checkpoint(ref, session.workspace)
    try:
        config: dict[str, Any] = checkpoint.metadata[ARCHITECTURE]
        flat = checkpoint.trees[THETA]
    except KeyError as error:
        raise StorageError(
            f"{checkpoint.info} holds no learned optimizer: it has no {error.args[0]!r}. Name one that "
            "`keirin train` made: `keirin status` lists them."
        ) from error
    architecture = _canonical(config)
    initial_seed = initial_seed_of(checkpoint.metadata)
    initial = initial_theta(architecture, initial_seed)
    theta = jax.tree.map(np.asarray, restore(initial, flat))
    return OptimizerReference(
        ref=ref,
        version=_version(ref, session),
        architecture=architecture,
        theta=theta,
        initial_seed=initial_seed,
        initial_theta=jax.tree.map(np.asarray, initial),
        fingerprint=optimizer_fingerprint(architecture, theta),
        trained_on=read_trained_on(checkpoint.metadata),
    )


def read_config(architecture: Mapping[str, Any]) -> ArchitectureConfig:
    """Returns an architecture's configuration from JSON.

    Raises:
      UnknownNameError: If there is no architecture of that name.
    """
    found = lookup(ARCHITECTURES, str(architecture.get("architecture")), kind="architecture")
    return found.model_validate(dict(architecture))


def _untrained(ref: str) -> OptimizerReference:
    architecture = read_config({"architecture": ref.removeprefix(INITIAL)}).canonical_json()
    theta = jax.tree.map(np.asarray, initial_theta(architecture, 0))
    return OptimizerReference(
        ref=ref,
        version=None,
        architecture=architecture,
        theta=theta,
        initial_seed=0,
        initial_theta=theta,
        fingerprint=optimizer_fingerprint(architecture, theta),
        trained_on=(),
    )


def _from_file(ref: str) -> OptimizerReference:
    stored, arrays = read_arrays(ref)
    config = read_config(stored)
    architecture = config.canonical_json()
    theta = jax.tree.map(np.asarray, theta_from_arrays(config.build(), arrays))
    initial_seed = read_initial_seed(ref)
    return OptimizerReference(
        ref=ref,
        version=None,
        architecture=architecture,
        theta=theta,
        initial_seed=initial_seed,
        initial_theta=jax.tree.map(np.asarray, initial_theta(architecture, initial_seed or 0)),
        fingerprint=optimizer_fingerprint(architecture, theta),
        trained_on=read_trained_on({TRAINED_ON: trained_on_in_file(ref)}),
    )


def read_trained_on(metadata: Mapping[str, Any]) -> tuple[TrainingDomain, ...] | None:
    """Returns the domains that a checkpoint's metadata or a file record; None if none can be read."""
    try:
        return tuple(TrainingDomain.model_validate(domain) for domain in metadata[TRAINED_ON])
    except (KeyError, TypeError, ValidationError):
        return None


def initial_seed_of(metadata: Mapping[str, Any]) -> int:
    """Returns the seed that the first phase of a checkpoint's training started with."""
    return int(metadata.get(INITIAL_SEED, metadata.get("seed", 0)))


def initial_theta(architecture: str, seed: int) -> Theta:
    """Returns the weights that training with `seed` starts from."""
    return theta_before_training(build_optimizer(architecture), seed=seed)


def optimizer_fingerprint(architecture: str, theta: Theta) -> str:
    """Returns a fingerprint of an architecture and its weights, to the last bit."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(theta)]
    return fingerprint_of(
        [architecture, *([list(leaf.shape), str(leaf.dtype), leaf.tobytes().hex()] for leaf in leaves)]
    )


def _version(ref: str, session: Session) -> int | None:
    try:
        return resolve_version(session.workspace, ref).version
    except AliasNotFoundError:  # a folder
        return None


def _canonical(config: dict[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, separators=(",", ":"))
