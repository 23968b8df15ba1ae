"""A Flax network trained on data: what every supervised family shares.

A family's configuration says which network, which data and which loss; the rest is here. Data are a pytree that the
family carries, and the family is a pytree too, so that a program takes them as an argument (see
`task_generator.datasets.images.ImageDataset`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from pydantic import Field

from lopt.types import Batch, Dynamic, PyTree, Scalar, Split, TaskState
from task_generator.dynamic import (
    NETWORK_AXES,
    NO_DYNAMIC_AXES,
    NOTHING_DRAWN,
    SAMPLED_ACTIVATIONS,
    SCALE_RANGE,
    Activation,
    ActivationName,
    NetworkDynamic,
    NoDynamic,
    resolve_activation,
    sample_network_dynamic,
)
from task_generator.families.base import DataFamilyConfig
from task_generator.initializers import (
    SAMPLED_INITIALIZERS,
    InitializerName,
    LeafInit,
    default_leaf_init,
    initialize,
    initialize_state,
)


class NetworkConfig(DataFamilyConfig):
    """The fields of a network trained on data. The last three override what a dynamic draw would choose."""

    activation: ActivationName | None = Field(None, description="Fixes the activation; None draws it.")
    initializer: InitializerName | None = Field(None, description="Fixes the initialiser; None draws it.")
    init_scale: float | None = Field(None, gt=0, description="Fixes the initial scale; None draws it.")

    def network(self) -> nn.Module:
        """Returns the module; it is called with (inputs, activation) and may use the rngs "dropout" and "noise"."""
        raise NotImplementedError

    def example_inputs(self) -> PyTree:
        """Returns the shapes and types of the inputs of one example (a batch of 1)."""
        raise NotImplementedError

    def load_data(self) -> PyTree:
        """Returns what `draw` draws from."""
        raise NotImplementedError

    def draw(self, data: PyTree, key: jax.Array, split: Split) -> Batch:
        """Returns a batch. Pure: the same key gives the same batch."""
        raise NotImplementedError

    def inputs(self, batch: Batch, dynamic: Dynamic) -> PyTree:
        """Returns what the network is given of a batch."""
        raise NotImplementedError

    def loss(self, outputs: PyTree, batch: Batch, dynamic: Dynamic) -> Scalar:
        """Returns the mean loss of a batch."""
        raise NotImplementedError

    def normalize(self, loss: Scalar, data: PyTree, dynamic: Dynamic) -> Scalar:
        """Returns the loss on a scale where chance is 1, capped (`families.base.cap`)."""
        raise NotImplementedError

    def leaf_init(self, path: str, shape: tuple[int, ...]) -> LeafInit:
        """Returns how the parameter at `path` ("Dense_0/kernel") starts."""
        return default_leaf_init(path, shape)

    def sample_dynamic(self, key: jax.Array) -> Dynamic:
        """Draws the C.2 choices."""
        return sample_network_dynamic(key)

    def dynamic_axes(self) -> Dynamic:
        """Returns None for what selects code, 0 for what is one per task."""
        return NETWORK_AXES

    def network_dynamic(self, dynamic: Dynamic) -> NetworkDynamic:
        """Returns the C.2 choices within a dynamic configuration."""
        return dynamic

    def activation_function(self, dynamic: Dynamic) -> Activation:
        """Returns the activation that the network is handed."""
        return resolve_activation(self.activation, self.network_dynamic(dynamic))

    def build(self) -> NetworkFamily:
        """Returns the family."""
        return NetworkFamily(self, self.load_data())

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether each override is the family's own, or names something that the C.2 priors draw."""
        low, high = SCALE_RANGE
        sampled = {
            "activation": self.activation in SAMPLED_ACTIVATIONS,
            "initializer": self.initializer in SAMPLED_INITIALIZERS,
            "init_scale": self.init_scale is not None and low <= self.init_scale <= high,
        }
        fields = type(self).model_fields
        return all(could or getattr(self, name) == fields[name].default for name, could in sampled.items())

    def overrides_label(self) -> str:
        """Returns what is overridden, in a few words."""
        fixed = (self.activation, self.initializer, self.init_scale)
        return " · ".join(str(value) for value in fixed if value is not None)


class NothingDrawn:
    """Mixed in before the other bases: a network whose configuration makes all the choices of C.2 itself."""

    def sample_dynamic(self, key: jax.Array) -> NoDynamic:
        """Draws nothing."""
        del key
        return NoDynamic()

    def dynamic_axes(self) -> NoDynamic:
        """Returns the axes of nothing."""
        return NO_DYNAMIC_AXES

    def network_dynamic(self, dynamic: NoDynamic) -> NetworkDynamic:
        """Returns no choices."""
        del dynamic
        return NOTHING_DRAWN


def variable_shapes(network: nn.Module, example: PyTree) -> tuple[PyTree, PyTree]:
    """Returns the shapes of a network's parameters and of its other collections, without computing anything."""
    rngs = {name: jax.random.key(0) for name in ("params", "dropout", "noise")}
    variables = jax.eval_shape(lambda x: network.init(rngs, x, lambda y: y), example)
    return variables["params"], {name: tree for name, tree in variables.items() if name != "params"}


@dataclasses.dataclass(frozen=True)
class NetworkFamily:
    """A network on a data set; activation, initialiser and scale are dynamic."""

    config: NetworkConfig
    data: PyTree

    def sample_dynamic(self, key: jax.Array) -> Dynamic:
        """Draws one dynamic configuration."""
        return self.config.sample_dynamic(key)

    def dynamic_axes(self) -> Dynamic:
        """Returns the `vmap` axis of each field of a dynamic configuration."""
        return self.config.dynamic_axes()

    def task(self, dynamic: Dynamic) -> NetworkTask:
        """Returns the problem that `dynamic` selects."""
        return NetworkTask(self.config, self.data, dynamic)


@dataclasses.dataclass(frozen=True)
class NetworkTask:
    """One network, one data set, one dynamic configuration."""

    config: NetworkConfig
    data: PyTree
    dynamic: Dynamic

    def init(self, key: jax.Array) -> TaskState:
        """Returns fresh parameters, and the network's other collections as its model state."""
        config, choices = self.config, self.config.network_dynamic(self.dynamic)
        params, collections = variable_shapes(config.network(), config.example_inputs())
        kind: str | jax.Array = choices.initializer if config.initializer is None else config.initializer
        scale: float | jax.Array = choices.init_scale if config.init_scale is None else config.init_scale
        drawn = initialize(params, key, kind, scale, config.leaf_init)
        return TaskState(drawn, initialize_state(collections) if collections else ())

    def batch(self, key: jax.Array, split: Split = "train") -> Batch:
        """Returns a batch drawn with replacement."""
        return self.config.draw(self.data, key, split)

    def loss(self, state: TaskState, key: jax.Array, batch: Batch) -> tuple[jax.Array, TaskState]:
        """Returns the mean loss, float32, and the state with its model state brought forward.

        The network is always in training mode, as in the release: dropout drops, batch statistics are the batch's.
        """
        config = self.config
        activation = config.activation_function(self.dynamic)
        collections: dict[str, Any] = state.model_state or {}
        outputs, updated = config.network().apply(
            {"params": state.params, **collections},
            config.inputs(batch, self.dynamic),
            activation,
            rngs={"dropout": key, "noise": jax.random.fold_in(key, 1)},
            mutable=list(collections),
        )
        loss = config.loss(outputs, batch, self.dynamic).astype(jnp.float32)
        return loss, state._replace(model_state=dict(updated) if collections else ())

    def normalize(self, loss: jax.Array) -> jax.Array:
        """Returns the loss on the family's common scale."""
        return self.config.normalize(loss, self.data, self.dynamic)


jax.tree_util.register_dataclass(NetworkFamily, data_fields=["data"], meta_fields=["config"])
