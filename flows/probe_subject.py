"""What a user means by the optimizer to probe: a checkpoint, weights in a file, or an architecture's first ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from curriculum.probes import Subject
from flows.optimizer_reference import initial_theta, optimizer_fingerprint, resolve_optimizer
from flows.session import Session
from lopt.architectures import ARCHITECTURES
from lopt.contract import ArchitectureConfig
from lopt.registry import lookup
from lopt.use.loading import theta_from_arrays
from lopt.use.shipped import is_weights_file, read_arrays

INITIAL = "initial:"
"""Before an architecture's name: the weights that meta-training starts from."""


def resolve_subject(reference: str, session: Session) -> Subject:
    """Returns the learned optimizer that `reference` names.

    Args:
      reference: "shipped:NAME", the path of a weights file (.npz), "initial:ARCHITECTURE", or what
        `resolve_optimizer` takes: an alias, a `models:/` URI, a checkpoint's folder.
      session: Whose registry to ask.

    Raises:
      UnknownNameError: If no architecture or no shipped weights carry the name.
      FileNotFoundError: If there is no such weights file.
      AliasNotFoundError, CheckpointNotFoundError, CorruptCheckpointError: From `resolve_optimizer`.
    """
    if reference.startswith(INITIAL):
        config = _config({"architecture": reference.removeprefix(INITIAL)})
        label = f"{config.architecture}, first weights"
        return Subject(label, config, initial_theta(config.canonical_json(), 0))
    if is_weights_file(reference):
        architecture, arrays = read_arrays(reference)
        config = _config(architecture)
        return Subject(reference, config, theta_from_arrays(config.build(), arrays))
    found = resolve_optimizer(reference, session)
    config = _config(json.loads(found.architecture))
    version = reference if found.version is None else f"v{found.version}"
    return Subject(f"{config.architecture} {version}", config, found.theta)


def _config(architecture: Mapping[str, Any]) -> ArchitectureConfig:
    found = lookup(ARCHITECTURES, str(architecture.get("architecture")), kind="architecture")
    return found.model_validate(dict(architecture))


def subject_fingerprint(subject: Subject) -> str:
    """Returns the fingerprint of architecture and weights, to the last bit."""
    theta = jax.tree.map(np.asarray, subject.theta)
    return optimizer_fingerprint(subject.config.canonical_json(), theta)
