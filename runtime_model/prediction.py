"""A fitted run-time model: predicts seconds per step and validity without compiling anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel

from lopt.config import FrozenConfig
from lopt.types import PyTree
from runtime_model.ensemble import Member, apply_member, base_log_seconds, init_member
from runtime_model.features import ConfigFeatures, Vocabulary, featurize
from runtime_model.kernel import coordinate_weights, coordinates, kernel
from runtime_model.network import NetworkConfig

FORMAT_VERSION = 1


class Prediction(NamedTuple):
    """Predictions for n configurations."""

    seconds: np.ndarray
    """[n] seconds per inner step and task."""
    valid_probability: np.ndarray
    """[n] probability that the configuration runs, within the time and memory limits of the timings."""


class RuntimeModelInfo(FrozenConfig):
    """Everything about a fitted model but its arrays."""

    format_version: int = FORMAT_VERSION
    vocabulary: Vocabulary
    network: NetworkConfig
    num_members: int
    num_timings: int
    seed: int
    hardware: str = ""
    jax_version: str = ""
    optimizer: str = ""


class ModelArrays(NamedTuple):
    """What prediction computes with."""

    points: jax.Array
    """[S, D] coordinates of the fitted configurations."""
    members: Member
    """Arrays with a leading axis of `num_members`."""


@dataclass(frozen=True)
class RuntimeModel:
    """An ensemble of (kernel regression + deep set) members; predicts with the mean over members."""

    info: RuntimeModelInfo
    arrays: ModelArrays

    @cached_property
    def weights(self) -> np.ndarray:
        """How much each coordinate counts [D]."""
        return coordinate_weights(self.info.vocabulary)

    def predict(self, configs: Sequence[BaseModel]) -> Prediction:
        """Predicts seconds and validity; an empty sequence gives empty arrays."""
        if not configs:
            return Prediction(np.zeros(0), np.zeros(0))
        features = _pad_rows(featurize(configs, self.info.vocabulary))
        log_seconds, probability = _predict(self.arrays, features, self.weights, self.info.network)
        count = len(configs)
        return Prediction(
            np.exp(np.asarray(log_seconds, np.float64)[:count]), np.asarray(probability, np.float64)[:count]
        )

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns the arrays by path and the rest as JSON data; `from_arrays` is the inverse."""
        leaves = jax.tree_util.tree_leaves_with_path(self.arrays)
        arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
        return arrays, self.info.model_dump(mode="json")

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> RuntimeModel:
        """Restores what `to_arrays` gave.

        Raises:
          ValueError: If the metadata is of another format, or arrays are missing, surplus or of another
            shape.
        """
        if meta.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"`meta` must have format_version {FORMAT_VERSION}, got {meta.get('format_version')!r}. Fit "
                "the run-time model again."
            )
        info = RuntimeModelInfo.model_validate(meta)
        return cls(info, _restore(jax.eval_shape(partial(_empty, info)), arrays))


def _empty(info: RuntimeModelInfo) -> ModelArrays:
    keys = jax.random.split(jax.random.key(0), info.num_members)
    members = jax.vmap(lambda key: init_member(info.network, info.num_timings, key))(keys)
    width = info.network.num_keys + info.network.num_values
    return ModelArrays(jnp.zeros((info.num_timings, width), jnp.float32), members)


def _restore(template: PyTree, arrays: dict[str, np.ndarray]) -> ModelArrays:
    paths, treedef = jax.tree_util.tree_flatten_with_path(template)
    wanted = {jax.tree_util.keystr(path): leaf for path, leaf in paths}
    wrong = [name for name, leaf in wanted.items() if name in arrays and arrays[name].shape != leaf.shape]
    missing, surplus = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    if wrong or missing or surplus:
        raise ValueError(
            f"`arrays` must match the run-time model's metadata, got {missing=}, {surplus=}, of another "
            f"shape: {wrong}. Fit the run-time model again."
        )
    leaves = [jnp.asarray(arrays[name]) for name in wanted]
    return cast(ModelArrays, jax.tree_util.tree_unflatten(treedef, leaves))


def _pad_rows(features: ConfigFeatures) -> ConfigFeatures:
    """Pads the configurations to a power of two, at least 64, so that few programs are ever compiled."""
    count = features.mask.shape[0]
    rows = max(64, 1 << (count - 1).bit_length())
    return ConfigFeatures(*(np.pad(array, ((0, rows - count), (0, 0))) for array in features))


@partial(jax.jit, static_argnames="network")
def _predict(
    arrays: ModelArrays, features: ConfigFeatures, weights: jax.Array, network: NetworkConfig
) -> tuple[jax.Array, jax.Array]:
    gram = kernel(coordinates(features, weights, network.num_keys), arrays.points)

    def one(member: Member) -> tuple[jax.Array, jax.Array]:
        return apply_member(member, base_log_seconds(member, gram), features, network)

    log_seconds, logit = jax.vmap(one)(arrays.members)
    return log_seconds.mean(axis=0), jax.nn.sigmoid(logit).mean(axis=0)
