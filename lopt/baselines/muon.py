"""Muon: momentum whose singular values are all made one, for matrices; AdamW for everything else.

optax's Muon by default takes tensors of exactly two axes. Here convolution kernels are matrices too, (height ·
width · in) × out, as Muon's author has them. Updates are scaled to a root mean square of 0.2 [2], so that one rate
serves both the matrices and AdamW.

SOAP, which one would look for next to it, is not here: there is no kept implementation for JAX (optax has none, and
the packages that have it are for PyTorch).

[1] Jordan 2024, "Muon". [2] Liu et al. 2025, "Muon is scalable for LLM training".
"""

from __future__ import annotations

import jax
import optax

from lopt.types import Params, Scalar

UPDATE_RMS = 0.2


def muon(learning_rate: Scalar) -> optax.GradientTransformation:
    """Returns Muon with momentum 0.95 and weight decay 1e-4; the rate may be traced."""
    return optax.contrib.muon(
        learning_rate,
        beta=0.95,
        weight_decay=1e-4,
        adam_weight_decay=1e-4,
        consistent_rms=UPDATE_RMS,
        muon_weight_dimension_numbers=_as_matrices,
    )


def _as_matrices(params: Params) -> Params:
    def one(leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        if leaf.ndim < 2:
            return None
        return optax.contrib.MuonDimensionNumbers(
            reduction_axis=tuple(range(leaf.ndim - 1)), output_axis=leaf.ndim - 1
        )

    return jax.tree.map(one, params)
