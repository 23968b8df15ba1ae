"""VeLO's four phases.

    keirin train --curriculum velo_laptop --phase velo_small_tasks_laptop --architecture velo
    keirin train --curriculum velo --phase velo_small_tasks --architecture velo --scheduler tcp://…

About four thousand accelerators for a month: here as data, to be read and derived from; `velo_laptop` takes
minutes on two cores. A unit of work is one static configuration with eight dynamic ones, a pair of twins
each. A batch of phase one is 2 048 gradients of 8 static × 8 dynamic configurations = 131 072 tasks; of phase
two 5 120 × 8; then twice that.

The text says nothing about clipping (elementwise, 3), the number of final batches (100), outer steps and
re-sampling (0.001 per configuration and gradient sent, 0.005 in phase four): these are the release's. Where
the two differ, the text is followed: tasks' gradients have unit norm (released: the sign of their loss
difference), horizons start at 200 (100 in phase one), gradients of more than 10 outer steps ago are dropped
(25, 5, 25, 25).

Deviations: what a worker re-samples there, the learner re-samples here, with the same probability per unit; a
unit is one configuration in phase one too, where the paper averages eight before sending. Phase four draws
from phase two's distribution, as in the release: the text says "even larger problems" and not which. The
public data sets have to be prepared first (`keirin data list`).

[1] Metz et al. 2022, VeLO (arXiv:2211.09760), App. D and E.  [2] Released: large_scale_phase1 to 4.
"""

from __future__ import annotations

from curriculum.phase import Phase
from curriculum.phases.laptop import on_a_laptop
from curriculum.theta_optimizer import ThetaOptimizerConfig
from curriculum.update_rules import AdamConfig
from lopt.config import derive
from lopt.estimators.full_es import FullEsConfig
from runtime_model.rejection import ProblemSizeThresholds

VELO_SMALL_TASKS = Phase(
    name="velo_small_tasks",
    summary="The smallest problems, batches of 131 072 tasks.",
    distribution="phase_one",
    problem_size=ProblemSizeThresholds.normalized(
        seconds=(2e-5, 1e-4, 4e-4, 1e-3), probabilities=(0.65, 0.3, 0.1, 0.05)
    ),
    num_workers=4096,
    num_static_configs=8 * 4096,
    estimator=FullEsConfig(
        sigma=0.01,
        min_horizon=200,
        max_horizon=20_000,
        num_tasks=8,
        num_pairs=1,
        num_final_batches=100,
        task_normalization="unit_norm",
    ),
    theta_optimizer=ThetaOptimizerConfig(
        learning_rate=3e-4,
        schedule="constant",
        warm_up=0,
        update_rule=AdamConfig(b2=0.999, eps_root=1e-8),
        gradient_clip=3.0,
        clip="elementwise",
        averaging=0.0,
    ),
    outer_steps=25_000,
    validate_every=250,
    checkpoint_every=25,
    mode="asynchronous",
    batch_size=2048 * 8,
    max_staleness=10,
    resample_probability=0.001,
)

VELO_LARGER_TASKS = derive(
    VELO_SMALL_TASKS,
    name="velo_larger_tasks",
    summary="Mid-sized problems, batches of 40 960 tasks.",
    distribution="phase_two",
    problem_size=ProblemSizeThresholds(seconds=(1e-4, 4e-4, 1e-3, 3e-3), probabilities=(0.4, 0.2, 0.2, 0.2)),
    outer_steps=10_000,
    batch_size=5120,
    resample_probability=0.008,
    start_from="velo_small_tasks",
)

VELO_LARGER_BATCHES = derive(
    VELO_LARGER_TASKS,
    name="velo_larger_batches",
    summary="Twice the batch, from before the divergence that showed.",
    outer_steps=5_000,
    batch_size=2 * 5120,
    start_from="velo_larger_tasks",
)

VELO_LONG_HORIZONS = derive(
    VELO_LARGER_BATCHES,
    name="velo_long_horizons",
    summary="Horizons up to 200 000 steps.",
    estimator=derive(VELO_LARGER_BATCHES.estimator, max_horizon=200_000),
    resample_probability=0.04,
    start_from="velo_larger_batches",
)

VELO = (VELO_SMALL_TASKS, VELO_LARGER_TASKS, VELO_LARGER_BATCHES, VELO_LONG_HORIZONS)

SHORT = {"min_horizon": 20, "max_horizon": 100, "sigma": 0.03, "num_final_batches": 4}
VELO_LAPTOP = (
    on_a_laptop(
        VELO_SMALL_TASKS,
        summary="Small problems, horizons of 20 to 100.",
        distribution="demo",
        outer_steps=40,
        learning_rate=4e-3,
        estimator=SHORT,
        batch_size=8,
    ),
    on_a_laptop(
        VELO_LARGER_TASKS,
        summary="Larger problems of more kinds.",
        distribution="phase_two_embedded",
        seconds=(9e-5, 2e-4),
        outer_steps=30,
        learning_rate=2e-3,
        estimator=SHORT,
        batch_size=6,
    ),
    on_a_laptop(
        VELO_LARGER_BATCHES,
        summary="Twice the batch.",
        distribution="phase_two_embedded",
        seconds=(9e-5, 2e-4),
        outer_steps=20,
        learning_rate=2e-3,
        estimator=SHORT,
        batch_size=12,
    ),
    on_a_laptop(
        VELO_LONG_HORIZONS,
        summary="Horizons up to 400 steps.",
        distribution="phase_two_embedded",
        seconds=(9e-5, 2e-4),
        outer_steps=20,
        learning_rate=1e-3,
        estimator={**SHORT, "max_horizon": 400},
        batch_size=12,
    ),
)
