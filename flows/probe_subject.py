"""What a user means by the optimizer to probe: a checkpoint, weights in a file, or an architecture's first ones."""

from __future__ import annotations

import jax
import numpy as np

from curriculum.probes import Subject
from flows.optimizer_reference import optimizer_fingerprint, read_config, resolve_optimizer
from flows.session import Session
from lopt.use.loading import INITIAL
from lopt.use.shipped import is_weights_file


def resolve_subject(reference: str, session: Session) -> Subject:
    """Returns the learned optimizer that `reference` names.

    Args:
      reference: What `resolve_optimizer` takes, whose errors are this function's.
      session: Whose registry to ask.
    """
    found = resolve_optimizer(reference, session)
    config = read_config(found.config())
    if reference.startswith(INITIAL):
        return Subject(f"{config.architecture}, first weights", config, found.theta)
    if is_weights_file(reference):
        return Subject(reference, config, found.theta)
    version = reference if found.version is None else f"v{found.version}"
    return Subject(f"{config.architecture} {version}", config, found.theta)


def subject_fingerprint(subject: Subject) -> str:
    """Returns the fingerprint of architecture and weights, to the last bit."""
    theta = jax.tree.map(np.asarray, subject.theta)
    return optimizer_fingerprint(subject.config.canonical_json(), theta)
