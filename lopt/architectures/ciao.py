"""`ciao`, the inner optimizer of LHOPT, as a learned optimizer: its hyper-parameters are theta.

The rule is that of `lopt.rules.ciao`. In the paper a controller sets its hyper-parameters while it runs; here theta
is their initial values, unconstrained: logarithms, or logits where 1 is the limit. The learning rate falls along a
cosine. That makes `transform(theta, num_steps=…)` an optimizer like any other, to be meta-trained or used as it is.
Hyper-parameters that are set along the way go to `update`; those of another run are replayed by
`lopt.use.schedule_player`.

[1] Almeida et al. 2021, "A Generalizable Approach to Learning Optimizers", Tables 7 and 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from pydantic import Field, model_validator

from lopt.contract import ArchitectureConfig, horizon
from lopt.features.progress import cosine_decay
from lopt.registry import lookup
from lopt.rules.ciao import CiaoHyperparameters, ciao
from lopt.rules.elementwise import StateDtype
from lopt.types import PRNGKey, Scalar, Theta


class Transform(NamedTuple):
    """An unconstrained form of hyper-parameters between 0 and `upper`."""

    name: str
    upper: float
    forward: Callable[[jax.Array], jax.Array]
    inverse: Callable[[jax.Array], jax.Array]


LOG = Transform("log", math.inf, jnp.log, jnp.exp)
LOGIT = Transform("logit", 1.0, jax.scipy.special.logit, jax.nn.sigmoid)

TRANSFORMS: dict[str, Transform] = {
    "learning_rate": LOG,
    "one_minus_beta1": LOGIT,
    "one_minus_beta2": LOGIT,
    "epsilon": LOG,
    "weight_decay": LOG,
    "clip_fraction": LOGIT,
    "one_minus_beta_clip": LOGIT,
    "minimum_trust": LOG,
    "one_minus_beta_trust": LOGIT,
}
"""What theta may hold."""

SCHEDULES: dict[str, Callable[[Scalar, Scalar], Scalar]] = {
    "constant": lambda num_updates, num_steps: jnp.ones_like(num_updates),
    "cosine": cosine_decay,
}
"""(updates so far, updates of the run) → factor on the learning rate."""


class CiaoConfig(ArchitectureConfig):
    """Initial hyper-parameters, which of them theta holds, and the schedule; the defaults are those of Table 7."""

    architecture: Literal["ciao"] = "ciao"
    learning_rate: float = Field(1e-3, ge=0)
    one_minus_beta1: float = Field(0.1, ge=0, le=1)
    one_minus_beta2: float = Field(1e-2, ge=0, le=1)
    epsilon: float = Field(1e-6, ge=0)
    weight_decay: float = Field(1e-2, ge=0)
    clip_fraction: float = Field(0.8, gt=0, le=1)
    """f; 1 never clips."""
    one_minus_beta_clip: float = Field(1e-2, ge=0, le=1)
    denominator: Literal["adamax", "adam"] = "adamax"
    """At run time `adamax`: Adamax from 0.5 on, Adam below."""
    trust_power: float = Field(1.0, ge=0)
    """p of tensors of two or more dimensions: 1 is LAMB, 0 no trust ratio."""
    vector_trust_power: float = Field(0.0, ge=0)
    """p of vectors and scalars."""
    minimum_trust: float = Field(1e-3, ge=0)
    one_minus_beta_trust: float = Field(0.05, ge=0, le=1)
    learned: tuple[str, ...] = tuple(name for name in TRANSFORMS if name != "minimum_trust")
    """What theta holds, by default what LHOPT acts on (Table 8); the other hyper-parameters stay as configured."""
    schedule: Literal["constant", "cosine"] = "cosine"
    clip_epsilon: float = Field(0.0, ge=0)
    """Added to ‖g‖ where the clipped gradient is divided by it; the released code adds 1e-6."""
    state_dtype: StateDtype = "float32"

    @classmethod
    def released(cls) -> CiaoConfig:
        """Returns the configuration whose updates are the released optimizer's while nobody sets anything."""
        return cls(clip_epsilon=1e-6, schedule="constant")

    @model_validator(mode="after")
    def _learned_are_learnable(self) -> CiaoConfig:
        for name in self.learned:
            transform = lookup(TRANSFORMS, name, kind="learnable hyper-parameter")
            if not 0 < getattr(self, name) < transform.upper:
                raise ValueError(
                    f"a learned hyper-parameter must start strictly between 0 and {transform.upper}, got "
                    f"{name}={getattr(self, name)}; change it, or leave {name!r} out of `learned`"
                )
        return self

    def hyperparameters(self) -> CiaoHyperparameters:
        """Returns the configured values as float32 scalars."""
        adamax = float(self.denominator == "adamax")
        values = {name: getattr(self, name) for name in CiaoHyperparameters._fields if name != "adamax"}
        return CiaoHyperparameters(
            **{k: jnp.float32(v) for k, v in values.items()}, adamax=jnp.float32(adamax)
        )

    def build(self) -> Ciao:
        """Returns the optimizer."""
        return Ciao(self)


class Ciao:
    """The learned optimizer that a `CiaoConfig` describes."""

    reads_loss = False

    def __init__(self, config: CiaoConfig):
        self.config = config

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns theta, the same for every key: one scalar per learned hyper-parameter, `log_…` or `logit_…`."""
        del key
        values = self.config.hyperparameters()
        return {
            _theta_name(name): TRANSFORMS[name].forward(getattr(values, name)) for name in self.config.learned
        }

    def hyperparameters(self, theta: Theta) -> CiaoHyperparameters:
        """Returns the values that `theta` stands for, before the schedule."""
        learned = {name: TRANSFORMS[name].inverse(theta[_theta_name(name)]) for name in self.config.learned}
        return self.config.hyperparameters()._replace(**learned)

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation for a run of `num_steps` updates: `ciao` on theta's schedule.

        Its `update` needs `params`, not the loss, and takes `hyperparameters`; see `lopt.rules.ciao.ciao`.

        Raises:
          ValueError: If `num_steps` is not a whole number of at least 1.
        """
        total = horizon(num_steps)
        values = self.hyperparameters(theta)
        factor = SCHEDULES[self.config.schedule]

        def planned(num_updates: Scalar) -> CiaoHyperparameters:
            return values._replace(learning_rate=values.learning_rate * factor(num_updates, total))

        return ciao(planned, clip_epsilon=self.config.clip_epsilon, state_dtype=self.config.state_dtype)


def _theta_name(name: str) -> str:
    return f"{TRANSFORMS[name].name}_{name}"
