"""Every baseline by name. One line each.

[1] Metz et al. 2022, "VeLO", Sec. 4.1.1, App. F.1. Others are named in their files.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import optax

from lopt.baselines import learning_rate_free as free
from lopt.baselines import scheduled_adam
from lopt.baselines.adam8p import NUM_TRIALS as NUM_ADAM8P_TRIALS
from lopt.baselines.adam8p import adam8p, sample_adam8p
from lopt.baselines.adamw_schedules import NUM_SETTINGS, adamw_schedules, schedule_setting
from lopt.baselines.baseline import (
    TUNED_LEARNING_RATE,
    Baseline,
    Factory,
    SearchSpace,
    Setting,
    nothing_to_tune,
    trained_params,
)
from lopt.baselines.learning_rate_tuned import FIFTEEN, RMSPROP_MOMENTUM, MakeOptimizer
from lopt.baselines.muon import muon
from lopt.baselines.nadamw import NUM_TRIALS, RELEASED, nadamw, sample_nadamw
from lopt.baselines.opt_list import TRIAL_ORDER, opt_list_entry
from lopt.baselines.schedule_free import eval_params, schedule_free_adamw
from lopt.baselines.shampoo import GRAFTINGS, shampoo
from lopt.baselines.wide_leaves import on_wide_leaves
from lopt.types import Params, Scalar


def _baseline(
    name: str,
    label: str,
    factory: Callable[[Setting, Scalar], optax.GradientTransformation],
    search_space: SearchSpace = TUNED_LEARNING_RATE,
    eval_params: Callable[[optax.OptState, Params], Params] = trained_params,
) -> Baseline:
    wide: Factory = lambda setting, num_steps: on_wide_leaves(factory(setting, num_steps))
    return Baseline(name, label, wide, search_space, eval_params)


def _constant_rate(make: MakeOptimizer) -> Callable[[Any, Scalar], optax.GradientTransformation]:
    return lambda learning_rate, num_steps: make(learning_rate)


LEARNING_RATE_TUNED: tuple[str, ...] = tuple(FIFTEEN)
"""The fifteen of [1], Tables 1-4, Shampoo apart."""
SHAMPOOS: tuple[str, ...] = tuple(f"shampoo_{grafting}" for grafting in GRAFTINGS)
"""Shampoo with the six graftings of [1]."""

_ALL: tuple[Baseline, ...] = (
    _baseline("adam", "tuned Adam", scheduled_adam.adam),
    _baseline("adamw_cosine", "tuned cosine AdamW", scheduled_adam.adamw_cosine),
    _baseline("adam_sqrt_decay", "tuned Adam, √ decay", scheduled_adam.adam_sqrt_decay),
    _baseline("adam_exp_decay", "tuned Adam, exponential decay", scheduled_adam.adam_exp_decay),
    *(_baseline(name, f"tuned {label}", _constant_rate(make)) for name, (label, make) in FIFTEEN.items()),
    _baseline("rmsprop_momentum", f"tuned {RMSPROP_MOMENTUM[0]}", _constant_rate(RMSPROP_MOMENTUM[1])),
    *(
        _baseline(
            f"shampoo_{grafting}",
            f"tuned Shampoo ({grafting.replace('_', ' ')})",
            _constant_rate(partial(shampoo, grafting=grafting)),
        )
        for grafting in GRAFTINGS
    ),
    _baseline("nadamw", "NAdamW search", nadamw, SearchSpace("random", NUM_TRIALS, sample_nadamw)),
    _baseline(
        "nadamw_released",
        "NAdamW search, as published",
        partial(nadamw, form=RELEASED),
        SearchSpace("random", NUM_TRIALS, sample_nadamw),
    ),
    _baseline("opt_list", "OptList", nadamw, SearchSpace("list", len(TRIAL_ORDER), opt_list_entry)),
    _baseline(
        "opt_list_released",
        "OptList, as published",
        partial(nadamw, form=RELEASED),
        SearchSpace("list", len(TRIAL_ORDER), opt_list_entry),
    ),
    _baseline(
        "adamw_schedules",
        "AdamW, five rates × seven schedules",
        adamw_schedules,
        SearchSpace("grid", NUM_SETTINGS, schedule_setting),
    ),
    _baseline("adam8p", "Adam8p search", adam8p, SearchSpace("random", NUM_ADAM8P_TRIALS, sample_adam8p)),
    _baseline(
        "schedule_free_adamw", "tuned schedule-free AdamW", schedule_free_adamw, eval_params=eval_params
    ),
    _baseline("muon", "tuned Muon", _constant_rate(muon)),
    _baseline("prodigy", "Prodigy", free.prodigy, nothing_to_tune(1.0)),
    _baseline("dadapt_adamw", "D-Adaptation AdamW", free.dadapt_adamw, nothing_to_tune(1.0)),
    _baseline("mechanic_adamw", "Mechanic AdamW", free.mechanic_adamw, nothing_to_tune(1.0)),
    _baseline("dog", "DoG", free.dog, nothing_to_tune(1.0)),
    _baseline("cocob", "COCOB", free.cocob, nothing_to_tune(1.0)),
    _baseline("momo", "MoMo", free.momo, nothing_to_tune(1.0)),
    _baseline("momo_adam", "MoMo-Adam", free.momo_adam, nothing_to_tune(1e-2)),
)
BASELINES: dict[str, Baseline] = {baseline.name: baseline for baseline in _ALL}
"""Every baseline by name."""
