"""LHOPT's metric: on which tasks an optimizer ends lower than every AdamW setting does after twice the steps.

The baselines are told that they have twice the steps: their schedules end there. So "twice as fast" means it of
what one would have done with the double budget, and of the best of all settings, chosen in hindsight per task.

[1] Almeida et al. 2021, "A Generalizable Approach to Learning Optimizers" (LHOPT), Sec. 4.1. Losses are training
    losses, means over seeds, like everything else in an evaluation; [1] does not say which theirs are.
"""

from __future__ import annotations

import numpy as np

from curriculum.evaluation.speedup import seed_mean

FACTOR = 2
"""How many times longer the baselines run."""


def is_twice_as_fast(final: np.ndarray, baselines: np.ndarray) -> bool:
    """Returns whether an optimizer ended lower than all baselines, in the mean over seeds.

    Args:
      final: Losses [S] of the optimizer at its horizon. Where one is not finite, the answer is no.
      baselines: Losses [H, S] of the settings, after `FACTOR` times as many steps. One that diverged is beaten.
    """
    ours, theirs = seed_mean(np.asarray(final)), seed_mean(np.asarray(baselines))
    return bool(np.isfinite(ours) and np.all((ours < theirs) | ~np.isfinite(theirs)))
