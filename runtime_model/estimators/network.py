"""The paper's network: two deep sets over key/value pairs, one for log seconds and one for validity.

Squared error of log seconds over what ran, cross-entropy over everything; Adam on mini-batches; a part of the
rows, the same for both, chooses the step that is kept. All groups and members are fitted in one program.

Deviations from [1] and its release: a vocabulary instead of hashes (`runtime_model.features`); several members,
whose disagreement joins the uncertainty; one fit serves all families, whose names are embedded like any other
category, unless `per_family` asks for the paper's one per family.

[1] Metz et al. 2022, VeLO (arXiv:2211.09760), App. C.4
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.types import Params, PRNGKey
from runtime_model.estimators.base import Arrays, EstimatorConfig, LogSeconds
from runtime_model.features import ConfigFeatures, Pair, Vocabulary, build_vocabulary, featurize
from runtime_model.network import NetworkConfig as Sizes
from runtime_model.table import TimingTable
from task_generator.task_config import TaskConfig

CHECKS = 20
"""How often the validation rows are looked at."""


class NetworkConfig(EstimatorConfig):
    """How to fit the networks."""

    per_family: bool = False
    num_members: int = 1
    num_steps: int = 1500
    batch_size: int = 64
    hidden_size: int = 48
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    validation_fraction: float = 0.15

    @property
    def spans_families(self) -> bool:
        """Whether one fit serves all families."""
        return not self.per_family

    def fit(self, table: TimingTable, groups: Sequence[np.ndarray], *, seed: int) -> list[FittedNetwork]:
        """Fits `num_members` pairs of networks per group; same seed, same result."""
        vocabulary = build_vocabulary(TaskConfig, table.pairs)
        sizes = Sizes(
            num_keys=vocabulary.num_keys, num_values=vocabulary.num_values, hidden_size=self.hidden_size
        )
        rng = np.random.default_rng(seed)
        splits = [self._split(group, rng) for group in groups for _ in range(self.num_members)]
        order = np.stack([np.resize(train, len(table.pairs)) for train, _ in splits])
        held = np.zeros((len(splits), len(table.pairs)), np.float32)
        for row, (_, validation) in zip(held, splits, strict=True):
            row[validation] = 1.0
        scale = np.stack([_scale(table, group) for group in groups for _ in range(self.num_members)])
        kept, losses = _fit_all(
            jax.random.split(jax.random.key(seed), len(splits)),
            jnp.asarray(order),
            jnp.asarray([len(train) for train, _ in splits]),
            jnp.asarray(held),
            jnp.asarray(scale),
            jax.tree.map(jnp.asarray, featurize(table.pairs, vocabulary)),
            _targets(table),
            sizes=sizes,
            config=self,
        )
        shape = (len(groups), self.num_members)
        params, losses = (
            jax.tree.map(lambda leaf: np.asarray(leaf).reshape(*shape, *leaf.shape[1:]), tree)
            for tree in (kept, losses)
        )
        return [
            FittedNetwork(
                vocabulary,
                sizes,
                jax.tree.map(lambda leaf, g=g: leaf[g], params),
                scale.reshape(*shape, 2)[g],
                np.sqrt(losses[g, :, 0]) * scale.reshape(*shape, 2)[g, :, 1],
            )
            for g in range(len(groups))
        ]

    def _split(self, group: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        rows = rng.permutation(np.flatnonzero(group))
        count = max(1, round(self.validation_fraction * len(rows)))
        return rows[count:] if len(rows) > count else rows, rows[:count]


class Networks(NamedTuple):
    """Parameters of both deep sets."""

    time: Params
    validity: Params


@dataclass(frozen=True)
class FittedNetwork:
    """M members; predicts with the mean over them."""

    vocabulary: Vocabulary
    sizes: Sizes
    networks: Networks
    """Leading axis M."""
    scale: np.ndarray
    """[M, 2]: mean and standard deviation of the fitted log seconds."""
    residual: np.ndarray
    """[M]: root mean square error of log seconds on the validation rows."""

    def predict(self, pairs: Sequence[Sequence[Pair]]) -> LogSeconds:
        """Predicts; the members' disagreement joins the residual."""
        outputs = self._outputs(pairs).time * self.scale[:, 1:] + self.scale[:, :1]
        std = np.sqrt(np.mean(self.residual**2) + outputs.var(axis=0))
        return LogSeconds(outputs.mean(axis=0), std)

    def valid_probability(self, pairs: Sequence[Sequence[Pair]]) -> np.ndarray:
        """Returns the probability [n] of running within the limits of the timings."""
        logits = self._outputs(pairs).validity
        probability: np.ndarray = (1.0 / (1.0 + np.exp(-logits))).mean(axis=0)
        return probability

    def to_arrays(self) -> tuple[Arrays, dict[str, Any]]:
        """Returns every leaf by its path, and what the leaves belong to."""
        leaves = jax.tree_util.tree_leaves_with_path(self.networks)
        arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
        info = {"vocabulary": self.vocabulary.model_dump(mode="json"), "sizes": self.sizes.model_dump()}
        return {**arrays, "scale": self.scale, "residual": self.residual}, info

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], info: Mapping[str, Any]) -> Self:
        """Restores what `to_arrays` gave."""
        vocabulary = Vocabulary.model_validate_json(json.dumps(info["vocabulary"]))
        sizes = Sizes.model_validate(info["sizes"])
        template = jax.eval_shape(lambda key: _init(sizes, key), jax.random.key(0))
        networks = jax.tree_util.tree_map_with_path(
            lambda path, _: np.asarray(arrays[jax.tree_util.keystr(path)]), template
        )
        return cls(vocabulary, sizes, networks, arrays["scale"], arrays["residual"])

    def _outputs(self, pairs: Sequence[Sequence[Pair]]) -> Networks:
        """Returns both networks' outputs [M, n]."""
        features = _pad(featurize(pairs, self.vocabulary))
        outputs = _apply(self.networks, features, self.sizes)
        return Networks(*(np.asarray(out, np.float64)[:, : len(pairs)] for out in outputs))


NetworkConfig.fitted_type = FittedNetwork


class _Targets(NamedTuple):
    log_seconds: jax.Array
    is_timed: jax.Array
    is_valid: jax.Array


def _targets(table: TimingTable) -> _Targets:
    known = table.is_timed
    columns = np.where(known, table.log_seconds, 0.0), known, table.is_valid
    return _Targets(*(jnp.asarray(column, jnp.float32) for column in columns))


def _scale(table: TimingTable, group: np.ndarray) -> np.ndarray:
    known = table.log_seconds[group & table.is_timed]
    return np.asarray([known.mean(), max(float(known.std()), 1e-3)], np.float32)


def _init(sizes: Sizes, key: PRNGKey) -> Networks:
    row = np.zeros((1, 1))
    features = ConfigFeatures(
        row.astype(np.int32), row.astype(np.int32), row.astype(np.float32), row.astype(np.float32)
    )
    keys = jax.random.split(key)
    return Networks(*(sizes.build().init(each, features) for each in keys))


def _losses(
    networks: Networks,
    features: ConfigFeatures,
    targets: _Targets,
    weight: jax.Array,
    scale: jax.Array,
    sizes: Sizes,
) -> jax.Array:
    """Returns [2]: mean squared error of standardised log seconds, and mean cross-entropy."""
    timed = weight * targets.is_timed
    wanted = (targets.log_seconds - scale[0]) / scale[1]
    squared = timed * (sizes.build().apply(networks.time, features) - wanted) ** 2
    logit = sizes.build().apply(networks.validity, features)
    entropy = weight * optax.sigmoid_binary_cross_entropy(logit, targets.is_valid)
    return jnp.stack(
        [squared.sum() / jnp.maximum(timed.sum(), 1.0), entropy.sum() / jnp.maximum(weight.sum(), 1.0)]
    )


@partial(jax.jit, static_argnames=("sizes", "config"))
def _fit_all(
    keys: PRNGKey,
    order: jax.Array,
    counts: jax.Array,
    held: jax.Array,
    scale: jax.Array,
    features: ConfigFeatures,
    targets: _Targets,
    *,
    sizes: Sizes,
    config: NetworkConfig,
) -> tuple[Networks, jax.Array]:
    """Fits one pair of networks per key: rows `order[:count]` [L, N] train, `held` [L, N] marks validation rows.

    Returns the networks kept, leading axis L, and their validation losses [L, 2].
    """
    per_check = max(1, config.num_steps // CHECKS)
    schedule = optax.cosine_decay_schedule(config.learning_rate, per_check * CHECKS, alpha=0.02)
    optimizer = optax.adamw(schedule, weight_decay=config.weight_decay)

    def fit_one(
        key: PRNGKey, order: jax.Array, count: jax.Array, held: jax.Array, scale: jax.Array
    ) -> tuple[Networks, jax.Array]:
        def step(carry: Any, key: PRNGKey) -> tuple[Any, None]:
            networks, state = carry
            rows = order[jax.random.randint(key, (config.batch_size,), 0, count)]
            batch = jax.tree.map(lambda leaf: leaf[rows], (features, targets))
            ones = jnp.ones(config.batch_size, jnp.float32)
            grads = jax.grad(lambda n: _losses(n, batch[0], batch[1], ones, scale, sizes).sum())(networks)
            with jax.numpy_dtype_promotion("standard"):  # optax's Adam raises a float to an integer count
                updates, state = optimizer.update(grads, state, networks)
            return (optax.apply_updates(networks, updates), state), None

        def check(carry: Any, key: PRNGKey) -> tuple[Any, None]:
            state, best, best_losses = carry
            state, _ = jax.lax.scan(step, state, jax.random.split(key, per_check))
            now = _losses(state[0], features, targets, held, scale, sizes)
            better = now < best_losses
            best = Networks(
                *(
                    jax.tree.map(lambda new, old, won=won: jnp.where(won, new, old), fresh, kept)
                    for won, fresh, kept in zip(better, state[0], best, strict=True)
                )
            )
            return (state, best, jnp.minimum(now, best_losses)), None

        init_key, key = jax.random.split(key)
        networks = _init(sizes, init_key)
        start = ((networks, optimizer.init(networks)), networks, jnp.full(2, jnp.inf, jnp.float32))
        (_, best, losses), _ = jax.lax.scan(check, start, jax.random.split(key, CHECKS))
        return best, losses

    return cast(
        tuple[Networks, jax.Array], jax.lax.map(lambda one: fit_one(*one), (keys, order, counts, held, scale))
    )


@partial(jax.jit, static_argnames="sizes")
def _apply(networks: Networks, features: ConfigFeatures, sizes: Sizes) -> Networks:
    network = sizes.build()
    return Networks(*(jax.vmap(network.apply, in_axes=(0, None))(params, features) for params in networks))


def _pad(features: ConfigFeatures) -> ConfigFeatures:
    """Pads the configurations to a power of two, at least 64, so that few programs are ever compiled."""
    count = features.mask.shape[0]
    rows = max(64, 1 << (count - 1).bit_length())
    return ConfigFeatures(*(np.pad(array, ((0, rows - count), (0, 0))) for array in features))
