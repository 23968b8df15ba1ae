"""How meta-gradients travel from workers to the learner. One file each; registering one is one line here.

"auto" goes by bytes and by the learner's own time, both measured (docs/scaling.md):

- a theta of fewer than `LARGE` numbers: dense, since a message costs more than what it carries;
- a larger one with low-rank perturbations: seeds and losses, while drawing again costs no more than adding up;
- any other: partial sums where asynchronous, dense where synchronous.
"""

from __future__ import annotations

from curriculum.transports.base import Transport, num_bytes
from curriculum.transports.dense import Dense
from curriculum.transports.partial_sums import PartialSums
from curriculum.transports.seeds_and_losses import SeedsAndLosses
from lopt.estimators.evolution import EvolutionConfig, TasksConfig
from lopt.registry import lookup

TRANSPORTS: dict[str, Transport] = {
    "dense": Dense(),
    "seeds_and_losses": SeedsAndLosses(),
    "partial_sums": PartialSums(),
}

AUTO = "auto"
LARGE = 16_384
"""Meta-parameters from which the bytes of a gradient (64 kB) are more than a message's own cost."""

MAX_FACTORS = 16
"""Lanes × rank up to which drawing low-rank directions again takes the learner no longer than adding a dense
gradient does (2.3 million numbers, per unit: 3 ms at 8, 11 ms at 32; dense 5 ms. Full directions: 0.6 s at 8; as
processor time on a busy machine)."""


def choose(name: str, estimator: TasksConfig, mode: str, num_numbers: int) -> Transport:
    """Returns the transport of that name, or for "auto" what suits a theta of `num_numbers`.

    Raises:
      UnknownNameError: If there is none.
      ValueError: If the gradients of this estimator cannot travel so in this mode.
    """
    if name == AUTO:
        return TRANSPORTS[_by_size(estimator, mode, num_numbers)]
    transport = lookup(TRANSPORTS, name, kind="transport")
    refusal = transport.refusal(estimator, mode)
    if refusal:
        raise ValueError(refusal)
    return transport


def _by_size(estimator: TasksConfig, mode: str, num_numbers: int) -> str:
    if num_numbers < LARGE:
        return "dense"
    if _is_fast_to_draw(estimator):
        return "seeds_and_losses"
    return "partial_sums" if mode == "asynchronous" else "dense"


def _is_fast_to_draw(estimator: TasksConfig) -> bool:
    if not (isinstance(estimator, EvolutionConfig) and estimator.gives_combination):
        return False
    rank = estimator.perturbation.factor_rank
    return rank is not None and rank * estimator.num_tasks * estimator.num_pairs <= MAX_FACTORS


__all__ = ["AUTO", "LARGE", "TRANSPORTS", "Transport", "choose", "num_bytes"]
