"""Hand-designed optimizers to compare with, as data: a name, a factory, a search space.

    baseline = BASELINES["adamw_cosine"]
    for setting in baseline.search_space.settings():
        optimizer = baseline.factory(setting, num_steps)      # an optax transformation

Adding one is a factory in a file of its own and one line in `table`.

- Rates tuned: the fifteen of `LEARNING_RATE_TUNED`, Shampoo with its six graftings, scheduled Adams.
- Many hyper-parameters tuned: `nadamw` (1 000 trials), `opt_list` (the same, best first), `adam8p`.
- What LHOPT is measured against: `adamw_schedules`, 35 settings.
- What one would pick today: schedule-free AdamW, Muon, and the learning-rate-free ones.
"""

from __future__ import annotations

from lopt.baselines.adam8p import Adam8pSetting
from lopt.baselines.baseline import LEARNING_RATE_GRID, Baseline, SearchSpace, Setting
from lopt.baselines.nadamw import NAdamWSetting
from lopt.baselines.table import BASELINES, LEARNING_RATE_TUNED, SHAMPOOS

__all__ = [
    "BASELINES",
    "LEARNING_RATE_GRID",
    "LEARNING_RATE_TUNED",
    "SHAMPOOS",
    "Adam8pSetting",
    "Baseline",
    "NAdamWSetting",
    "SearchSpace",
    "Setting",
]
