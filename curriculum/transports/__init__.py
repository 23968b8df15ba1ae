"""How meta-gradients travel from workers to the learner. One file each; registering one is one line here."""

from __future__ import annotations

from curriculum.transports.base import Transport, num_bytes
from curriculum.transports.dense import Dense
from curriculum.transports.partial_sums import PartialSums
from curriculum.transports.seeds_and_losses import SeedsAndLosses
from lopt.estimators.evolution import TasksConfig
from lopt.registry import lookup

TRANSPORTS: dict[str, Transport] = {
    "dense": Dense(),
    "seeds_and_losses": SeedsAndLosses(),
    "partial_sums": PartialSums(),
}

AUTO = "auto"
LARGE = 16_384
"""Meta-parameters from which the bytes of a gradient (64 kB) are more than a message's own cost."""


def choose(name: str, estimator: TasksConfig, mode: str, num_numbers: int) -> Transport:
    """Returns the transport of that name, or for "auto" what suits a theta of `num_numbers`.

    Raises:
      UnknownNameError: If there is none.
      ValueError: If the gradients of this estimator cannot travel so in this mode.
    """
    if name == AUTO:
        return TRANSPORTS["partial_sums" if mode == "asynchronous" and num_numbers >= LARGE else "dense"]
    transport = lookup(TRANSPORTS, name, kind="transport")
    refusal = transport.refusal(estimator, mode)
    if refusal:
        raise ValueError(refusal)
    return transport


__all__ = ["AUTO", "LARGE", "TRANSPORTS", "Transport", "choose", "num_bytes"]
