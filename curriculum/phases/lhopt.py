"""LHOPT's outer-step counts: 16 000 updates of about fifteen inner problems each, judged at the end only.

    keirin train --curriculum lhopt_laptop --architecture ciao

The paper trains a controller by PPO: 16 000 iterations, fewer than 244 000 inner problems, every task four
times, the final validation loss as the only reward, 2 to 128 decisions per problem.

Deviations: there is no controller and no PPO here; full ES trains what the named architecture learns (`ciao`:
the hyper-parameters of the paper's inner optimizer) on the same final loss. A unit is one task trained four
times (two pairs), an outer step four units. A hundred inner steps per decision give the horizons; the paper
prints the decisions only. σ, rate and clip are ours.

[1] Almeida et al. 2021, "A generalizable approach to learning optimizers", arXiv:2106.00958, 3.4, 4 and App. H.
"""

from __future__ import annotations

from curriculum.phase import Phase
from curriculum.phases.laptop import on_a_laptop
from curriculum.theta_optimizer import ThetaOptimizerConfig
from lopt.estimators.full_es import FullEsConfig
from runtime_model.rejection import ProblemSizeThresholds

STEPS_PER_DECISION = 100

LHOPT_FINAL_LOSS = Phase(
    name="lhopt_final_loss",
    summary="The final validation loss of small classifiers and language models.",
    distribution="lhopt",
    problem_size=ProblemSizeThresholds(seconds=(0.1,), probabilities=(1.0,)),
    num_workers=4,
    num_static_configs=64,
    estimator=FullEsConfig(
        sigma=0.05,
        min_horizon=2 * STEPS_PER_DECISION,
        max_horizon=128 * STEPS_PER_DECISION,
        num_tasks=1,
        num_pairs=2,
        split="inner_valid",
    ),
    theta_optimizer=ThetaOptimizerConfig(learning_rate=3e-4, gradient_clip=1.0, averaging=0.0),
    outer_steps=16_000,
    validate_every=160,
    checkpoint_every=160,
    mode="asynchronous",
    batch_size=4,
    resample_probability=1.0,
)

LHOPT = (LHOPT_FINAL_LOSS,)
LHOPT_LAPTOP = (
    on_a_laptop(
        LHOPT_FINAL_LOSS,
        summary="The final validation loss of very small classifiers and language models.",
        distribution="lhopt_embedded",
        seconds=(2e-4,),
        outer_steps=40,
        learning_rate=2e-2,
        estimator={"min_horizon": 20, "max_horizon": 100},
        min_num_params=1,
        max_num_params=10_000,
        batch_size=6,
        resample_probability=0.0,
    ),
)
