"""Many kinds of small task on embedded data, from short runs to longer ones: what the shipped weights come from.

    keirin train --curriculum broad --architecture pacer     # three times: its phases, one after the other
    keirin train --curriculum broad --architecture velo \\
      --architecture-config '{"lstm_hidden_size": 32, "mlp_bank_size": 8}'

Thirteen families, none of whose draws is a task of `embedded24`, so that the set can be evaluated on; eight of its
families are not drawn at all. docs/embedded24.md shows what came of it.
"""

from __future__ import annotations

from curriculum.phase import Phase
from curriculum.theta_optimizer import ThetaOptimizerConfig
from lopt.config import derive
from lopt.estimators.full_es import FullEsConfig
from runtime_model.rejection import ProblemSizeThresholds
from task_generator.held_out import HeldOut

BROAD_SHORT = Phase(
    name="broad_short",
    summary="Many kinds of small task, 20–100 inner steps.",
    distribution="broad",
    held_out=HeldOut(evaluation_sets=("embedded24",)),
    problem_size=ProblemSizeThresholds(seconds=(1e-2,), probabilities=(1.0,)),
    num_static_configs=20,
    estimator=FullEsConfig(
        sigma=0.03,
        min_horizon=20,
        max_horizon=100,
        num_tasks=4,
        num_pairs=2,
        loss_cap=5.0,
        difference_clip=2.0,
        task_normalization="unit_norm",
    ),
    theta_optimizer=ThetaOptimizerConfig(learning_rate=4e-3, gradient_clip=1.0),
    outer_steps=300,
    validate_every=20,
    checkpoint_every=20,
)

BROAD_LONG = derive(
    BROAD_SHORT,
    name="broad_long",
    summary="The same kinds, 60–400 inner steps.",
    estimator=derive(BROAD_SHORT.estimator, min_horizon=60, max_horizon=400),
    theta_optimizer=derive(BROAD_SHORT.theta_optimizer, learning_rate=2e-3),
    outer_steps=160,
    start_from="broad_short",
)

BROAD_LONGER = derive(
    BROAD_LONG,
    name="broad_longer",
    summary="The same kinds, 100–2 000 inner steps.",
    # Trainings are four times as long as in the phase before, on average: a quarter of the tasks at a time.
    estimator=derive(BROAD_LONG.estimator, min_horizon=100, max_horizon=2000, num_tasks=1),
    outer_steps=100,
    start_from="broad_long",
)
"""What one has learned in at most 400 steps need not hold in 2 000: the losses of `velo` rose again."""

BROAD = (BROAD_SHORT, BROAD_LONG, BROAD_LONGER)
