"""Growing truncation with jitter: Metz et al. 2018, on training or on validation loss.

    keirin train --curriculum metz2018_laptop --architecture per_parameter_mlp

Windows grow linearly from 50 to 10 000 steps over 5 000 outer steps, each shifted by up to 20 %; the inner
state is carried on; the reparameterisation and ES gradients are merged by their variances; Adam with β₁ =
0.5.

Deviations: a batch of 128 samples is 32 units of four pairs, because here variances are those of a unit's
pairs; the paper takes them over the batch. Not printed: the number of outer steps (here twice the growth), a
clip (here none that could be reached) and a limit on staleness (five, as in their next paper).

[1] Metz et al. 2018, "Understanding and correcting pathologies in the training of learned optimizers",
    arXiv:1810.10180, 4.3 and App. B, C.
"""

from __future__ import annotations

from curriculum.phase import Phase
from curriculum.phases.laptop import on_a_laptop
from curriculum.theta_optimizer import ThetaOptimizerConfig
from curriculum.update_rules import AdamConfig
from lopt.config import derive
from lopt.estimators.combined import CombinedConfig
from lopt.outer_schedule import PiecewiseLinear
from runtime_model.rejection import ProblemSizeThresholds

METZ2018_TRAINING = Phase(
    name="metz2018_training",
    summary="Windows that grow from 50 to 10 000 steps, on training loss.",
    distribution="metz2018",
    problem_size=ProblemSizeThresholds(seconds=(1.0,), probabilities=(1.0,)),
    num_workers=128,
    num_static_configs=1,
    estimator=CombinedConfig(
        sigma=0.01,
        min_horizon=10_000,
        max_horizon=10_000,
        unroll_length=10_000,
        unroll_limit=PiecewiseLinear.linear(50, 10_000, num_steps=5_000),
        length_jitter=0.2,
        num_tasks=1,
        num_pairs=4,
        aggregate="mean",
        meta_loss_scale="linear",
    ),
    theta_optimizer=ThetaOptimizerConfig(
        learning_rate=3e-3,
        schedule="constant",
        warm_up=0,
        update_rule=AdamConfig(b1=0.5, b2=0.999),
        gradient_clip=1e6,
        averaging=0.0,
    ),
    outer_steps=10_000,
    validate_every=100,
    checkpoint_every=100,
    mode="asynchronous",
    batch_size=32,
    max_staleness=5,
    unit_timeout=3600.0,
)

METZ2018_VALIDATION = derive(
    METZ2018_TRAINING,
    name="metz2018_validation",
    summary="Windows that grow from 50 to 10 000 steps, on validation loss.",
    estimator=derive(METZ2018_TRAINING.estimator, split="outer_valid"),
    theta_optimizer=derive(METZ2018_TRAINING.theta_optimizer, learning_rate=3e-4),
)

METZ2018 = (METZ2018_TRAINING,)
METZ2018_ON_VALIDATION = (METZ2018_VALIDATION,)
METZ2018_LAPTOP = (
    on_a_laptop(
        METZ2018_TRAINING,
        summary="Windows that grow from 5 to 100 steps, on training loss.",
        distribution="demo",
        outer_steps=40,
        learning_rate=3e-3,
        estimator={
            "min_horizon": 100,
            "max_horizon": 100,
            "unroll_length": 100,
            "unroll_limit": PiecewiseLinear.linear(5, 100, num_steps=20),
        },
        num_static_configs=4,
        batch_size=4,
    ),
)
