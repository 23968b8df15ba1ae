"""What to compare with, by name: which baselines, and how many trials each may have per task.

    expand(("lr15", "nadamw100"))     # sixteen baselines: fifteen with 15 learning rates each, one with 100 trials

A budget names baselines; a baseline may be named by itself. Adding a budget is one line.

[1] Metz et al. 2022, "VeLO", Sec. 4.1.1, F.1, Tables 1-4.
[2] Metz et al. 2020, App. E: 1, 10, 100 and 1 000 trials.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lopt.baselines import BASELINES, LEARNING_RATE_TUNED, SHAMPOOS, Setting
from lopt.registry import lookup


class Trials(NamedTuple):
    """A baseline, and its first trials."""

    baseline: str
    num_trials: int

    def settings(self) -> tuple[Setting, ...]:
        """Returns the hyper-parameters of every trial."""
        return BASELINES[self.baseline].search_space.settings(self.num_trials)

    @property
    def label(self) -> str:
        """What tables call it."""
        return BASELINES[self.baseline].label


def _all_trials(*names: str) -> tuple[Trials, ...]:
    return tuple(Trials(name, BASELINES[name].search_space.num_settings) for name in names)


EXTENDED_NORMALIZER = ("adam", "radam", "adam_sqrt_decay", "adam_exp_decay")
"""The harder normaliser of [1], F.1: the best of four tuned optimizers."""
TWICE_AS_LONG = ("adamw_schedules",)
"""Baselines that are given twice the steps and are no row of a table: see `curriculum.evaluation.twice_as_fast`."""
_FREE = tuple(name for name, baseline in BASELINES.items() if baseline.search_space.kind == "none")

BUDGETS: dict[str, tuple[Trials, ...]] = {
    "quick": _all_trials("adam", "adamw_cosine"),
    "lr15": _all_trials(*LEARNING_RATE_TUNED),
    "shampoo": _all_trials(*SHAMPOOS),
    "extended": _all_trials(*EXTENDED_NORMALIZER),
    "modern": _all_trials("adamw_cosine", "schedule_free_adamw", "muon"),
    "free": _all_trials(*_FREE),
    "nadamw10": (Trials("nadamw", 10),),
    "nadamw100": (Trials("nadamw", 100),),
    "nadamw1000": (Trials("nadamw", 1000),),
    "optlist10": (Trials("opt_list", 10),),
    "adam8p100": (Trials("adam8p", 100),),
    "lhopt35": _all_trials("adamw_schedules"),
}


def expand(names: Iterable[str]) -> tuple[Trials, ...]:
    """Returns what budgets and baselines amount to, each baseline once with the most trials asked for.

    Args:
      names: Of budgets, or of single baselines, which get all of their trials.

    Raises:
      UnknownNameError: If a name is neither; says the nearest.
    """
    known = {**{name: _all_trials(name) for name in BASELINES}, **BUDGETS}
    most: dict[str, int] = {}
    for name in names:
        for baseline, num_trials in lookup(known, name, kind="budget or baseline"):
            most[baseline] = max(num_trials, most.get(baseline, 0))
    return tuple(Trials(baseline, num_trials) for baseline, num_trials in most.items())


def setting_text(trials: Trials, index: int) -> str:
    """Returns what a trial is called: "learning rate 0.003", "trial 17 of 100"; nothing where none was chosen."""
    kind = BASELINES[trials.baseline].search_space.kind
    if kind == "none":
        return ""
    if kind == "grid" and isinstance(setting := trials.settings()[index], float):
        return f"learning rate {setting:g}"
    return f"trial {index + 1} of {trials.num_trials}"
