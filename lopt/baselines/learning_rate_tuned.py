"""The fifteen optimizers of which [1] tunes the learning rate, as it ran them: optax's, with these constants.

They are the rows of its tables. RMSProp with momentum was run too, but its results went into RMSProp's folder and
have no row of their own; here it is a baseline apart. "SM3 with momentum" of the text is `sm3_beta2_999`: both SM3
have momentum, and differ in whether the accumulators forget.

[1] Metz et al. 2022, "VeLO", Sec. 4.1.1, App. F.1 and Tables 1-4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lopt.types import Scalar

MakeOptimizer = Callable[[Scalar], optax.GradientTransformation]
"""learning rate → transformation."""


def sm3(learning_rate: Scalar, *, b2: float) -> optax.GradientTransformation:
    """Returns SM3 with momentum 0.9; scalars are treated as vectors of one element, which optax leaves out.

    Args:
      learning_rate: The rate; may be traced.
      b2: Decay of the accumulators; 1 for a sum that never forgets.
    """
    base = optax.chain(optax.scale_by_sm3(b1=0.9, b2=b2), optax.scale_by_learning_rate(learning_rate))
    vectors: Callable[[Any], Any] = partial(jax.tree.map, jnp.atleast_1d)

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        del params  # SM3 does not look at them
        updates, state = base.update(vectors(grads), state)
        return jax.tree.map(lambda u, g: u.reshape(g.shape), updates, grads), state

    return optax.GradientTransformation(lambda params: base.init(vectors(params)), update)


FIFTEEN: dict[str, tuple[str, MakeOptimizer]] = {
    "sgd": ("SGD", optax.sgd),
    "sgdm": ("SGD with momentum", partial(optax.sgd, momentum=0.9)),
    "adam_eps_root": ("Adam with ε under the root", partial(optax.adam, eps_root=1e-8)),
    "adamw": ("AdamW", partial(optax.adamw, weight_decay=1e-4)),
    "rmsprop": ("RMSProp", partial(optax.rmsprop, decay=0.9, eps=1e-8)),
    "adabelief": ("AdaBelief", partial(optax.adabelief, eps=1e-16, eps_root=1e-16)),
    "sm3": ("SM3", partial(sm3, b2=1.0)),
    "sm3_beta2_999": ("SM3 with decay 0.999", partial(sm3, b2=0.999)),
    "yogi": ("Yogi", partial(optax.yogi, eps=1e-3)),
    "radam": ("RAdam", partial(optax.radam, threshold=5.0)),
    "lamb": ("LAMB", partial(optax.lamb, eps=1e-6)),
    "lars": ("LARS", partial(optax.lars, trust_coefficient=1e-3, eps=0.0, momentum=0.9)),
    "fromage": ("Fromage", partial(optax.fromage, min_norm=1e-6)),
    "adafactor": ("Adafactor", optax.adafactor),
    "adagrad": ("AdaGrad", partial(optax.adagrad, initial_accumulator_value=0.1, eps=1e-7)),
}
"""name → (what plots call it, learning rate → transformation)."""

RMSPROP_MOMENTUM: tuple[str, MakeOptimizer] = (
    "RMSProp with momentum",
    partial(optax.rmsprop, decay=0.9, eps=1e-8, momentum=0.9),
)
