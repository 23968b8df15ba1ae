"""What a learned optimizer may have been trained on: kept with its weights, asked when it is evaluated.

A checkpoint carries the domain of its own phase and of those that it started from. A task is held out for it only
if none of them could have drawn it. Distributions are asked by name, as they are defined now: one that is redefined
afterwards speaks for itself in the checkpoint's fingerprint of it, and the answer is then "unknown". Of evaluation
sets that were held out every task is kept, because a set may get others afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

from curriculum.phase import Phase
from lopt.config import FrozenConfig
from task_generator.held_out import HeldOut
from task_generator.known_distributions import DISTRIBUTIONS, get_distribution
from task_generator.sampling import TaskDistribution
from task_generator.task_config import TaskConfig


class TrainingDomain(FrozenConfig):
    """What one phase may draw."""

    phase: str
    distribution: str
    distribution_fingerprint: str
    held_out: HeldOut = HeldOut()
    held_out_tasks: tuple[str, ...] | None = None
    """Fingerprints of the tasks of `held_out.evaluation_sets` when the phase was trained. None: it was trained by a
    version that drew some of what it declared to hold out, so the declaration proves nothing."""

    def could_sample(self, config: TaskConfig) -> bool | None:
        """Returns whether the phase could have drawn a task like `config`.

        None, not known: its distribution has changed, or it is declared to hold out what may have been drawn: by a
        set that the task was not in then, or before declarations were kept.
        """
        if self._was_refused(config):
            return False
        known = self._known_distribution()
        if known is None:
            return None
        could = known.could_sample(config)
        return None if could and self.held_out.reason(config) is not None else could

    def draws_family(self, family: str) -> bool | None:
        """Returns whether the phase could have drawn tasks of that family; None, not known: see `could_sample`."""
        if self.held_out_tasks is not None and family in self.held_out.families:
            return False
        known = self._known_distribution()
        return None if known is None else family in known.family_names()

    def _known_distribution(self) -> TaskDistribution | None:
        """Returns the distribution, if it still is the one that the phase drew from."""
        known = DISTRIBUTIONS.get(self.distribution)
        return known if known is not None and known.fingerprint() == self.distribution_fingerprint else None

    def _was_refused(self, config: TaskConfig) -> bool:
        """Whether the phase refused every draw that might have become this task."""
        if self.held_out_tasks is None:
            return False
        return config.fingerprint() in self.held_out_tasks or self.held_out.reason_by_kind(config) is not None


def domain_of(phase: Phase) -> TrainingDomain:
    """Returns the domain of a phase."""
    distribution = get_distribution(phase.distribution)
    return TrainingDomain(
        phase=phase.name,
        distribution=phase.distribution,
        distribution_fingerprint=distribution.fingerprint(),
        held_out=phase.held_out,
        held_out_tasks=phase.held_out.fingerprints(),
    )


def is_held_out(config: TaskConfig, trained_on: Sequence[TrainingDomain] | None) -> bool | None:
    """Returns whether none of the domains could have drawn a task like `config`.

    None: nothing is known of what the weights were trained on, or a distribution has changed since, and none of the
    others could have drawn it. Weights that were trained on nothing (an empty sequence) have everything held out.
    """
    seen = None if trained_on is None else _any_known([domain.could_sample(config) for domain in trained_on])
    return None if seen is None else not seen


def is_familiar(config: TaskConfig, trained_on: Sequence[TrainingDomain] | None) -> bool | None:
    """Returns whether any of the domains draws tasks of `config`'s family, other sizes included; None: not known.

    A task can be held out and familiar: then it says how the weights do on other sizes and data of what they know.
    """
    family = config.family.family
    return None if trained_on is None else _any_known([domain.draws_family(family) for domain in trained_on])


def _any_known(answers: Sequence[bool | None]) -> bool | None:
    """Returns whether any answer is yes; None if none is and not all are known."""
    if any(answers):
        return True
    return None if None in answers else False
