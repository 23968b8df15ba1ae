"""Heavy-tailed lengths, log objective, RMSProp: Wichrowska et al. 2017.

    keirin train --curriculum wichrowska2017_laptop --architecture hierarchical_gru

Back-propagation with second derivatives through windows whose lengths are 50 + Exp(200), in unrolls of 1 +
Exp(40) of them; the mean of log losses; asynchronous RMSProp at rate 1e-6 on 1 000 workers, 40 million outer
steps of one problem each. The text shows the lengths as histograms; the numbers are the release's, as are
RMSProp's and the clip.

Deviations: not the number of windows is drawn, but the number of steps, with the same mean, 41 · 250, and an
exponential tail too (a geometric number of exponential lengths adds up to one); the tails are cut, at 5 and
at 4 scales. An outer step is made of one window. A problem is held for 205 of them on average, five unrolls,
as in the release. Nothing is dropped as stale.

[1] Wichrowska et al. 2017, "Learned optimizers that scale and generalize", arXiv:1703.04813, 4.2-4.5.
[2] tensorflow/models, research/learned_optimizer (Apache-2.0): facts only.
"""

from __future__ import annotations

from curriculum.phase import Phase
from curriculum.phases.laptop import on_a_laptop
from curriculum.theta_optimizer import ThetaOptimizerConfig
from curriculum.update_rules import RmsPropConfig
from lopt.estimators.unrolled_backprop import UnrolledBackpropConfig
from lopt.lengths import ExponentialConfig
from runtime_model.rejection import ProblemSizeThresholds

WICHROWSKA2017_HEAVY_TAILS = Phase(
    name="wichrowska2017_heavy_tails",
    summary="Heavy-tailed windows and horizons, back-propagated.",
    distribution="wichrowska",
    problem_size=ProblemSizeThresholds(seconds=(1.0,), probabilities=(1.0,)),
    num_workers=1000,
    num_static_configs=1000,
    estimator=UnrolledBackpropConfig(
        min_horizon=250,
        max_horizon=40_000,
        horizons=ExponentialConfig(scale=10_000.0),
        min_unroll_length=50,
        unroll_length=1_050,
        window_lengths=ExponentialConfig(scale=200.0),
        num_tasks=1,
        aggregate="log_mean",
        second_derivatives=True,
    ),
    theta_optimizer=ThetaOptimizerConfig(
        learning_rate=1e-6,
        schedule="constant",
        warm_up=0,
        update_rule=RmsPropConfig(decay=0.9, eps=1e-20),
        gradient_clip=1e4,
        clip="elementwise",
        averaging=0.0,
    ),
    outer_steps=40_000_000,
    validate_every=10_000,
    checkpoint_every=10_000,
    mode="asynchronous",
    batch_size=1,
    max_staleness=1_000_000,
    resample_probability=1 / 205,
)

WICHROWSKA2017 = (WICHROWSKA2017_HEAVY_TAILS,)
WICHROWSKA2017_LAPTOP = (
    on_a_laptop(
        WICHROWSKA2017_HEAVY_TAILS,
        summary="Heavy-tailed windows of 5 to 30 steps, back-propagated.",
        distribution="wichrowska",
        seconds=(1.5e-4,),
        outer_steps=200,
        learning_rate=1e-3,
        estimator={
            "min_horizon": 10,
            "max_horizon": 160,
            "horizons": ExponentialConfig(scale=40.0),
            "min_unroll_length": 5,
            "unroll_length": 30,
            "window_lengths": ExponentialConfig(scale=5.0),
            "num_tasks": 4,
        },
        min_num_params=1,
        resample_probability=0.0,
    ),
)
