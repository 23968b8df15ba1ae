"""Sums of meta-gradients instead of each: a worker does several units at one theta and answers once.

Bytes per unit, and the learner's time per unit, fall by the number of units in a message, and so do messages. All
units of a message began with the same theta, so their sum is as old as each of them. In return theta is
older by those units when the sum comes in, and a worker that dies takes more with it.

For asynchronous training. A synchronous outer step has one unit per task, which many workers share; its sum must be
added in the tasks' order to be the same bits for any number of workers, whoever did which.
"""

from __future__ import annotations

from curriculum.transports.dense import Dense
from lopt.estimators.evolution import TasksConfig


class PartialSums(Dense):
    """Sends sums of eight, as many as a worker keeps programs."""

    name = "partial_sums"
    units_per_message = 8

    def refusal(self, estimator: TasksConfig, mode: str) -> str:
        """Returns "" for asynchronous training."""
        del estimator
        if mode == "asynchronous":
            return ""
        return (
            "transport 'partial_sums' is for `mode: asynchronous`: a synchronous sum is added in the tasks' order, "
            "whoever computed what. Use 'dense' or 'seeds_and_losses', or leave it at 'auto'."
        )
