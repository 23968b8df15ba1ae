"""Windows of 240 to 360 steps, then all of them unbiased: Metz et al. 2020.

    keirin train --curriculum metz2020_laptop --architecture rnn_mlp

Three stages in two phases: truncated ES; then, from its theta, Adam's statistics are filled for 300 outer
steps at learning rate 0, and persistent ES goes on. `metz2020_growing` has the paper's alternative to the
latter: a truncation that grows from 300 to 10 000 steps over 10 000 outer steps. Adam at a constant rate
(5e-4, F.1), every number clipped at 0.1, staleness 5, a batch as large as there are workers.

The outer loss is that of five outer-validation batches per step, relative to what Adam reaches on the task, which
every worker measures before a task's first window (`lopt.baseline_loss`). Not printed, so ours: the lengths of the
stages, and which baseline that is.

[1] Metz et al. 2020, "Tasks, stability, architecture, and compute: training more effective learned optimizers, and
    using them to train themselves", arXiv:2009.11243, 3.1 and App. B, F.1.
"""

from __future__ import annotations

from curriculum.phase import Phase
from curriculum.phases.laptop import on_a_laptop
from curriculum.theta_optimizer import ThetaOptimizerConfig
from curriculum.update_rules import AdamConfig
from lopt.config import derive
from lopt.estimators.persistent_es import PersistentEsConfig
from lopt.estimators.truncated_es import TruncatedEsConfig
from lopt.outer_schedule import PiecewiseLinear
from runtime_model.rejection import ProblemSizeThresholds

METZ2020_TRUNCATED = Phase(
    name="metz2020_truncated",
    summary="Windows of 240 to 360 steps in unrolls of 10 000.",
    distribution="metz2020",
    problem_size=ProblemSizeThresholds(seconds=(0.1,), probabilities=(1.0,)),
    num_workers=1024,
    num_static_configs=1024,
    estimator=TruncatedEsConfig(
        sigma=0.01,
        min_horizon=10_000,
        max_horizon=10_000,
        unroll_length=300,
        length_jitter=0.2,
        num_tasks=1,
        num_pairs=1,
        aggregate="mean",
        split="outer_valid",
        num_step_batches=5,
        meta_loss_scale="baseline",
    ),
    theta_optimizer=ThetaOptimizerConfig(
        learning_rate=5e-4,
        schedule="constant",
        warm_up=0,
        update_rule=AdamConfig(b2=0.999),
        gradient_clip=0.1,
        clip="elementwise",
        averaging=0.0,
    ),
    outer_steps=10_000,
    validate_every=100,
    checkpoint_every=100,
    mode="asynchronous",
    batch_size=1024,
    max_staleness=5,
)
_shared = {
    name: value
    for name, value in METZ2020_TRUNCATED.estimator.model_dump().items()
    if name in PersistentEsConfig.model_fields and name != "estimator"
}

METZ2020_PERSISTENT = derive(
    METZ2020_TRUNCATED,
    name="metz2020_persistent",
    summary="The same windows without bias, after 300 outer steps at learning rate 0.",
    estimator=PersistentEsConfig(**_shared),
    theta_optimizer=derive(METZ2020_TRUNCATED.theta_optimizer, statistics_warm_up=300),
    start_from="metz2020_truncated",
)

METZ2020_GROWING = derive(
    METZ2020_TRUNCATED,
    name="metz2020_growing",
    summary="Windows that grow from 300 to 10 000 steps, after 300 outer steps at learning rate 0.",
    estimator=derive(
        METZ2020_TRUNCATED.estimator,
        unroll_length=10_000,
        unroll_limit=PiecewiseLinear(points=((300, 300), (10_300, 10_000))),
    ),
    theta_optimizer=derive(METZ2020_TRUNCATED.theta_optimizer, statistics_warm_up=300),
    outer_steps=12_000,
    start_from="metz2020_truncated",
)

METZ2020 = (METZ2020_TRUNCATED, METZ2020_PERSISTENT)
METZ2020_WITH_GROWTH = (METZ2020_TRUNCATED, METZ2020_GROWING)

WINDOWS = {"min_horizon": 100, "max_horizon": 100, "sigma": 0.03, "num_tasks": 4}
_truncated = on_a_laptop(
    METZ2020_TRUNCATED,
    summary="Windows of 8 to 12 steps in unrolls of 100.",
    distribution="demo",
    outer_steps=60,
    learning_rate=4e-3,
    estimator={**WINDOWS, "unroll_length": 10},
    batch_size=6,
)
METZ2020_LAPTOP = (
    _truncated,
    on_a_laptop(
        METZ2020_PERSISTENT,
        summary="The same windows without bias, after 15 outer steps at learning rate 0.",
        distribution="demo",
        outer_steps=60,
        learning_rate=1e-3,
        estimator={**WINDOWS, "unroll_length": 10},
        batch_size=6,
    ),
)
METZ2020_WITH_GROWTH_LAPTOP = (
    _truncated,
    on_a_laptop(
        METZ2020_GROWING,
        summary="Windows that grow from 10 to 100 steps, after 10 outer steps at learning rate 0.",
        distribution="demo",
        outer_steps=40,
        learning_rate=1e-3,
        estimator={
            **WINDOWS,
            "unroll_length": 100,
            "unroll_limit": PiecewiseLinear(points=((10, 10), (35, 100))),
        },
        batch_size=6,
    ),
)
