"""The terms of Adam on several time-scales: each decay's momentum m, second moment v, r = (v + ε)^(−1/2), and r·m.

Named groups on the accumulators of `lopt.features.published`; a momentum goes with the second moment of its own
decay. All are elementwise, so they may be computed for any part of a tensor.

[1] Metz et al. 2018, "Understanding and correcting pathologies in the training of learned optimizers", App. C.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import jax
import numpy as np

from lopt.features.published import PUBLISHED_FEATURES, Accumulators, Decays, Feature, FeatureInputs

ADAM_DECAYS = (0.5, 0.9, 0.99, 0.999, 0.9999)
"""Those of [1]."""
ROOT_EPSILON = 1e-6


def _scaled_momentum(x: FeatureInputs) -> list[jax.Array]:
    return [m * r for m, r in zip(x.acc.momenta, x.inverse_roots, strict=True)]


ADAM_TERMS: dict[str, Feature] = {
    **{name: PUBLISHED_FEATURES[name] for name in ("gradient", "param", "momentum", "second_moment")},
    "scaled_momentum": _scaled_momentum,
    "inverse_root": PUBLISHED_FEATURES["inverse_root"],
}
"""Name → feature group: one array, or one per decay."""


def adam_decays(names: Collection[str], decays: Sequence[float]) -> Decays:
    """Returns the decays of the accumulators that the named groups need, and of no others.

    Rounded to float32 *before* 1 − β is taken, as in the published networks: for 0.9999 that is 1.7e-4 more.
    """
    rounded = tuple(np.float32(decay) for decay in decays)
    needs = lambda *groups: rounded if set(groups) & set(names) else ()
    return Decays(
        momentum=needs("momentum", "scaled_momentum"),
        second_moment=needs("second_moment", "scaled_momentum", "inverse_root"),
        factored=(),
    )


def adam_terms(names: Sequence[str], param: jax.Array, grad: jax.Array, acc: Accumulators) -> list[jax.Array]:
    """Returns the named groups' arrays in the order of `names`, all of the shape of `param`.

    Args:
      names: Which groups.
      param: Parameters.
      grad: Their gradients, as the accumulators saw them; of the same shape, like the next.
      acc: Float32 accumulators brought forward by `grad`.
    """
    roots = tuple(jax.lax.rsqrt(v + ROOT_EPSILON) for v in acc.second_moments)
    inputs = FeatureInputs(param, grad, acc, (), (), (), roots)
    return [array for name in names for array in ADAM_TERMS[name](inputs)]


def adam_term_sizes(num_decays: int) -> dict[str, int]:
    """Returns how many arrays each feature group has."""
    return {name: 1 if name in ("gradient", "param") else num_decays for name in ADAM_TERMS}
