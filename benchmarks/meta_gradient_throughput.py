"""Inner steps per second through a whole meta-gradient, against Adam on the same tasks in the same process.

    python benchmarks/meta_gradient_throughput.py [--steps 100]

Eight tasks x one antithetic pair of a 32-unit network on 8x8 digits at batch 128; both twins are counted.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lopt.architectures.pacer import PacerConfig
from lopt.estimators.full_es import FullEsConfig
from lopt.types import LearnedOptimizer
from task_generator.families import MlpConfig
from task_generator.task_config import TaskConfig


class AdamAtTheta:
    """Adam as a learned optimizer with one number, so that both go through the same program."""

    def init_theta(self, key: jax.Array) -> Any:
        return {"log_rate": jnp.float32(-6.9)}

    def transform(self, theta: Any, *, num_steps: Any) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(optax.adam(jnp.exp(theta["log_rate"])))


def throughput(learned: LearnedOptimizer, steps: int) -> tuple[float, float]:
    """Returns inner steps per second and seconds to the first meta-gradient."""
    task = TaskConfig(
        family=MlpConfig(
            hidden_size=32,
            num_layers=1,
            image_size=8,
            batch_size=128,
            dataset="digits",
            activation="relu",
            initializer="normal",
        )
    )
    config = FullEsConfig(sigma=0.03, min_horizon=steps, max_horizon=steps, num_tasks=8, num_pairs=1)
    estimator = config.build(task.build(), learned)
    theta = learned.init_theta(jax.random.key(0))
    program = jax.jit(lambda t, k: estimator.estimate(t, (), k)[0])
    start = time.perf_counter()
    jax.block_until_ready(program(theta, jax.random.key(0)))
    first = time.perf_counter() - start
    rates = []
    for seed in range(1, 4):
        start = time.perf_counter()
        result = jax.block_until_ready(program(theta, jax.random.key(seed)))
        rates.append(float(result.num_inner_steps) / (time.perf_counter() - start))
    return sorted(rates)[1], first


def main() -> None:
    """Prints both figures and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100, help="inner steps of each unroll")
    options = parser.parse_args()
    adam, _ = throughput(AdamAtTheta(), options.steps)
    pacer, first = throughput(PacerConfig().build(), options.steps)
    print(
        f"{options.steps} steps: pacer {pacer:,.0f} inner steps/s, first meta-gradient after {first:.1f} s; "
        f"Adam on the same tasks {adam:,.0f}/s ({adam / pacer:.1f}x)"
    )


if __name__ == "__main__":
    main()
