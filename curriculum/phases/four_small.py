"""Four small tasks, always the same: what architectures, estimators and modes are compared on.

    keirin train --curriculum four_small --architecture adafactor_mlp
    keirin train --curriculum four_small --architecture velo --mode asynchronous \\
      --architecture-config '{"lstm_hidden_size": 32, "mlp_bank_size": 8}'

About twenty minutes on two CPU cores. Networks of 32 units and of two convolutions, on digits and photographs, with
initial weights of random scale; docs/results.md shows runs. Nothing is drawn by predicted run time, so that two
machines train on the same tasks. Rates, σ and lengths are the defaults of
`examples/meta_train_an_architecture.py`.
"""

from __future__ import annotations

from curriculum.phase import Phase
from curriculum.theta_optimizer import ThetaOptimizerConfig
from lopt.estimators.full_es import FullEsConfig
from runtime_model.rejection import ProblemSizeThresholds

FOUR_SMALL_TASKS = Phase(
    name="four_small_tasks",
    summary="Four fixed small tasks, 30–300 inner steps.",
    distribution="four_small",
    problem_size=ProblemSizeThresholds(seconds=(1e-2,), probabilities=(1.0,)),
    num_static_configs=4,
    estimator=FullEsConfig(
        sigma=0.02,
        min_horizon=30,
        max_horizon=300,
        num_tasks=4,
        num_pairs=4,
        loss_cap=5.0,
        difference_clip=2.0,
        task_normalization="unit_norm",
    ),
    theta_optimizer=ThetaOptimizerConfig(learning_rate=3e-3, gradient_clip=1.0),
    outer_steps=330,
    validate_every=20,
    checkpoint_every=20,
)

FOUR_SMALL = (FOUR_SMALL_TASKS,)
