"""What a user means by the optimizer to probe: a checkpoint, weights in a file, or an architecture's first ones."""

from __future__ import annotations

import jax
import numpy as np

from curriculum.probes import Subject
from flows.optimizer_reference import initial_theta, optimizer_fingerprint, read_config, resolve_optimizer
from flows.session import Session
from lopt.use.loading import INITIAL
from lopt.use.shipped import is_weights_file


def resolve_subject(reference: str, session: Session) -> Subject:
    """Returns the learned optimizer that `reference` names.

    Args:
      reference: "initial:ARCHITECTURE", or what `resolve_optimizer` takes: an alias, a `models:/` URI, a
        checkpoint's folder, "shipped:NAME", the path of a weights file (.npz).
      session: Whose registry to ask.

    Raises:
      UnknownNameError: If no architecture carries the name; and all errors of `resolve_optimizer`.
    """
    if reference.startswith(INITIAL):
        config = read_config({"architecture": reference.removeprefix(INITIAL)})
        label = f"{config.architecture}, first weights"
        return Subject(label, config, initial_theta(config.canonical_json(), 0))
    found = resolve_optimizer(reference, session)
    config = read_config(found.config())
    if is_weights_file(reference):
        return Subject(reference, config, found.theta)
    version = reference if found.version is None else f"v{found.version}"
    return Subject(f"{config.architecture} {version}", config, found.theta)


def subject_fingerprint(subject: Subject) -> str:
    """Returns the fingerprint of architecture and weights, to the last bit."""
    theta = jax.tree.map(np.asarray, subject.theta)
    return optimizer_fingerprint(subject.config.canonical_json(), theta)
