"""Every laptop phase makes outer steps: its tasks build, its estimator runs, theta moves by its own rule."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from curriculum.events import OuterStepDone, Validated
from curriculum.learner import init_learner
from curriculum.meta_train import meta_train
from curriculum.phase_tasks import sample_phase_tasks
from curriculum.phases import PHASES
from curriculum.scaling import with_outer_steps
from curriculum.worker import InProcessWorkerPool, init_states
from lopt.architectures.learnable_adam import LearnableAdamConfig
from tests.curriculum.test_phases import by_flops

STEPS = 4
OPTIMIZER = LearnableAdamConfig()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in PHASES if name.endswith("_laptop")))
def test_it_makes_outer_steps(name: str) -> None:
    """Four of them, on its first task: statistics fill in the first where the phase says so, then theta moves."""
    changes = {"num_static_configs": 1, "batch_size": None, "mode": "synchronous", "validate_every": STEPS}
    phase = with_outer_steps(PHASES[name], STEPS, **changes)
    tasks = sample_phase_tasks(phase, by_flops, seed=0)
    theta = OPTIMIZER.build().init_theta(jax.random.key(0))
    state = init_learner(phase, theta, init_states(tasks, phase.estimator, OPTIMIZER, theta))
    events = list(meta_train(phase, tasks, OPTIMIZER, state, InProcessWorkerPool(), seed=1))
    steps = [event for event in events if isinstance(event, OuterStepDone)]
    assert len(steps) == STEPS
    assert all(np.isfinite(step.meta_loss) and step.gradient_norm > 0 for step in steps)
    assert all(np.isfinite(event.meta_loss) for event in events if isinstance(event, Validated))
    horizons = [step.metrics["horizon"] for step in steps]
    assert phase.estimator.min_horizon <= min(horizons) <= max(horizons) <= phase.estimator.max_horizon
    thetas = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(s.state.theta)]) for s in steps]
    start = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(theta)])
    moved = [not np.array_equal(a, b) for a, b in zip([start, *thetas], thetas, strict=False)]
    waiting = phase.theta_optimizer.statistics_warm_up
    assert moved == [step >= waiting for step in range(STEPS)]
