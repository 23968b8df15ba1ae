"""Per-parameter features on five time-scales: momenta, second moments and what hand-designed rules make of them.

Named groups, each one array per decay, in the order in which the published RNN-MLP's weights expect them.

[1] Metz et al. 2020, "Tasks, stability, architecture, and compute", App. C.2.1 and `compute_per_param_features`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lopt.features.published import PUBLISHED_FEATURES, Accumulators, Decays, Feature, FeatureInputs

ROLLING_DECAYS = (0.5, 0.9, 0.99, 0.999, 0.9999)


def rolling_decays(decays: Sequence[float]) -> Decays:
    """Returns decays of which each has a momentum and a second moment, and none a factored one.

    Rounded to float32 *before* 1 − β is taken, as in the published network: for 0.9999 that is 1.7e-4 more.
    """
    rounded = tuple(np.float32(decay) for decay in decays)
    return Decays(momentum=rounded, second_moment=rounded, factored=())


def _scaled_momentum(x: FeatureInputs) -> list[jax.Array]:
    return [m * r for m, r in zip(x.acc.momenta, x.inverse_roots, strict=True)]


ROLLING_FEATURES: dict[str, Feature] = {
    "gradient": PUBLISHED_FEATURES["gradient"],
    "param": PUBLISHED_FEATURES["param"],
    "log_param": lambda x: [jnp.log(jnp.abs(x.param) + 1e-8)],
    "momentum": PUBLISHED_FEATURES["momentum"],
    "second_moment": PUBLISHED_FEATURES["second_moment"],
    "scaled_momentum": _scaled_momentum,
    "inverse_root": PUBLISHED_FEATURES["inverse_root"],
}
"""Name → feature group. `scaled_momentum` is each momentum over the root of the second moment of its own decay."""


def rolling_features(
    names: Sequence[str], param: jax.Array, grad: jax.Array, acc: Accumulators
) -> list[jax.Array]:
    """Returns the named groups' arrays in the order of `names`, elementwise: all of the shape of `param`.

    `grad` and the float32 momenta and second moments of `acc`, brought forward by it, have that shape, too.
    """
    roots = tuple(jax.lax.rsqrt(v + 1e-6) for v in acc.second_moments)
    inputs = FeatureInputs(param, grad, acc, (), (), (), roots)
    return [array for name in names for array in ROLLING_FEATURES[name](inputs)]


def rolling_feature_sizes(num_decays: int) -> dict[str, int]:
    """Returns how many arrays each feature group has."""
    single = ("gradient", "param", "log_param")
    return {name: 1 if name in single else num_decays for name in ROLLING_FEATURES}
