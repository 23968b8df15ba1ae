"""What a learned optimizer may have been trained on: kept with its weights, asked when it is evaluated.

A checkpoint carries the domain of its own phase and of those that it started from. A task is held out for it only
if none of them could have drawn it. Distributions are asked by name, as they are defined now: one that is redefined
afterwards speaks for itself in the checkpoint's fingerprint of it, and the answer is then "unknown".
"""

from __future__ import annotations

from collections.abc import Sequence

from curriculum.phase import Phase
from lopt.config import FrozenConfig
from task_generator.held_out import HeldOut
from task_generator.known_distributions import DISTRIBUTIONS, get_distribution
from task_generator.task_config import TaskConfig


class TrainingDomain(FrozenConfig):
    """What one phase may draw."""

    phase: str
    distribution: str
    distribution_fingerprint: str
    held_out: HeldOut = HeldOut()

    def could_sample(self, config: TaskConfig) -> bool | None:
        """Returns whether the phase could have drawn a task like `config`; None if its distribution has changed."""
        if self.held_out.reason(config) is not None:
            return False
        known = DISTRIBUTIONS.get(self.distribution)
        if known is None or known.fingerprint() != self.distribution_fingerprint:
            return None
        return known.could_sample(config)


def domain_of(phase: Phase) -> TrainingDomain:
    """Returns the domain of a phase."""
    distribution = get_distribution(phase.distribution)
    return TrainingDomain(
        phase=phase.name,
        distribution=phase.distribution,
        distribution_fingerprint=distribution.fingerprint(),
        held_out=phase.held_out,
    )


def is_held_out(config: TaskConfig, trained_on: Sequence[TrainingDomain] | None) -> bool | None:
    """Returns whether none of the domains could have drawn a task like `config`.

    None: nothing is known of what the weights were trained on, or a distribution has changed since, and none of the
    others could have drawn it. Weights that were trained on nothing (an empty sequence) have everything held out.
    """
    if trained_on is None:
        return None
    answers = [domain.could_sample(config) for domain in trained_on]
    if any(answers):
        return False
    return None if None in answers else True
