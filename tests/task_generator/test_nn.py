"""The blocks of small networks: patches against XLA's own convolution, shapes, and the network without layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from task_generator.families.network import variable_shapes
from task_generator.nn import ConvNet, Mlp, extract_patches


@pytest.mark.parametrize("side", [2, 5, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_patches_times_kernel_is_the_convolution(side: int, stride: int) -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (2, side, side, 3))
    kernel = jax.random.normal(keys[1], (3, 3, 3, 4))
    expected = lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(extract_patches(x, stride) @ kernel.reshape(27, 4), expected, atol=1e-5)


def test_parameter_shapes() -> None:
    images = jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.float32)
    shapes, others = variable_shapes(Mlp((5,), 3), images)
    assert not others
    assert jax.tree.map(lambda s: s.shape, shapes) == {
        "Dense_0": {"kernel": (32, 5), "bias": (5,)},
        "Dense_1": {"kernel": (5, 3), "bias": (3,)},
    }
    conv = jax.tree.map(lambda s: s.shape, variable_shapes(ConvNet((6, 6), (2, 1), 3), images)[0])
    assert conv["Conv3x3_1"] == {"kernel": (3, 3, 6, 6), "bias": (6,)}
    assert conv["Dense_0"] == {"kernel": (6, 3), "bias": (3,)}


def test_a_network_without_layers_is_linear() -> None:
    params = {"Dense_0": {"kernel": jnp.ones((4, 2)), "bias": jnp.array([0.0, 1.0])}}
    out = Mlp((), 2).apply({"params": params}, jnp.ones((1, 2, 2, 1)), jnp.tanh)
    np.testing.assert_allclose(out, [[4.0, 5.0]])
