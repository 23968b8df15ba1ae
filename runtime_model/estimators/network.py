"""The paper's network: two deep sets over key/value pairs, one for log seconds and one for validity.

Squared error of log seconds over what ran, cross-entropy over everything; Adam on mini-batches; a part of the
rows, the same for both, chooses the step that is kept. All groups and members are fitted in one program. What the
network knows of keys, categories and ranges is its own group's: held-out rows add no row and no range.

Deviations from [1], App. C.4, and its release, beside those of the network itself (`runtime_model.network`) and of
what it reads (`runtime_model.features`):

- Minimum and maximum are those of all rows of the group at once, to which running ones converge.
- Log seconds are standardised by the group's mean and standard deviation.
- A learning rate that falls along a cosine, and far fewer, smaller and hotter steps than the release's thousands of
  512 rows at 1e-5: it has 10 000 timings per family, this is made for hundreds.
- Unless `per_family`, one fit serves all families, whose names are embedded like any other category, with decoupled
  weight decay and smaller layers. Of several members, in weights, batches and validation rows different, the
  disagreement joins the uncertainty; the paper has one network and no uncertainty.

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
from pydantic import Field

from lopt.types import Params, PRNGKey
from runtime_model.estimators.base import Arrays, EstimatorConfig, LogSeconds
from runtime_model.features import ConfigFeatures, Pair, Vocabulary, build_vocabulary, featurize
from runtime_model.network import NetworkConfig as Sizes
from runtime_model.network import forget_unmet
from runtime_model.table import TimingTable
from task_generator.task_config import TaskConfig

CHECKS = 20
"""How often the validation rows are looked at."""


class NetworkConfig(EstimatorConfig):
    """How to fit the networks."""

    per_family: bool = False
    num_members: int = Field(1, ge=1)
    num_steps: int = Field(1500, ge=1)
    batch_size: int = Field(64, ge=1)
    pair_size: int = Field(48, ge=1)
    set_size: int = Field(48, ge=1)
    learning_rate: float = Field(3e-3, ge=0.0)
    weight_decay: float = Field(1e-2, ge=0.0)
    validation_fraction: float = Field(0.15, gt=0.0, lt=1.0)

    @property
    def spans_families(self) -> bool:
        """Whether one fit serves all families."""
        return not self.per_family

    def sizes(self, *, num_keys: int, num_values: int) -> Sizes:
        """Returns the sizes of a network that reads a vocabulary of so many rows."""
        return Sizes(
            num_keys=num_keys, num_values=num_values, pair_size=self.pair_size, set_size=self.set_size
        )

    def fit(self, table: TimingTable, groups: Sequence[np.ndarray], *, seed: int) -> list[FittedNetwork]:
        """Fits `num_members` pairs of networks per group; same seed, same result."""
        vocabularies = [build_vocabulary(TaskConfig, table.rows(group).pairs) for group in groups]
        sizes = self.sizes(
            num_keys=max(vocabulary.num_keys for vocabulary in vocabularies),
            num_values=max(vocabulary.num_values for vocabulary in vocabularies),
        )
        jobs = self._jobs(table, groups, seed)
        by_group = [featurize(table.pairs, vocabulary) for vocabulary in vocabularies]
        features: Any = ConfigFeatures(*(np.stack(field) for field in zip(*by_group, strict=True)))
        features = jax.tree.map(jnp.asarray, features)
        fits = _fit_all(jobs, features, _targets(table), sizes=sizes, config=self)
        shape = (len(groups), self.num_members)
        networks, losses, scale = jax.tree.map(
            lambda leaf: np.asarray(leaf).reshape(*shape, *leaf.shape[1:]), (*fits, jobs.scale)
        )
        return [
            FittedNetwork(
                vocabulary,
                sizes,
                jax.tree.map(lambda leaf, g=g: leaf[g], networks),
                scale[g],
                np.sqrt(losses[g, :, 0]) * scale[g, :, 1],
            )
            for g, vocabulary in enumerate(vocabularies)
        ]

    def _jobs(self, table: TimingTable, groups: Sequence[np.ndarray], seed: int) -> _Jobs:
        """Returns the members of the first group, then those of the next."""
        rng = np.random.default_rng(seed)
        members = [group for group in range(len(groups)) for _ in range(self.num_members)]
        splits = [self._split(groups[group], table.is_timed, rng) for group in members]
        held = np.zeros((len(splits), len(table.pairs)), np.float32)
        for row, (_, validation) in zip(held, splits, strict=True):
            row[validation] = 1.0
        return _Jobs(
            key=jax.random.split(jax.random.key(seed), len(members)),
            group=jnp.asarray(members),
            order=jnp.asarray(np.stack([np.resize(train, len(table.pairs)) for train, _ in splits])),
            num_rows=jnp.asarray([len(train) for train, _ in splits]),
            held=jnp.asarray(held),
            scale=jnp.asarray(np.stack([_scale(table, groups[group]) for group in members])),
        )

    def _split(
        self, group: np.ndarray, known: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns training and validation rows; with and without known seconds, the same share."""
        train, validation = [], []
        for kind in (group & known, group & ~known):
            rows = rng.permutation(np.flatnonzero(kind))
            count = max(1, round(self.validation_fraction * len(rows)))
            train.append(rows[count:] if len(rows) > count else rows)
            validation.append(rows[:count])
        return np.concatenate(train), np.concatenate(validation)


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


class _Jobs(NamedTuple):
    """What L pairs of networks are fitted to; leading axis L."""

    key: PRNGKey
    group: jax.Array
    """Index of the features."""
    order: jax.Array
    """[N]: the training rows, repeated."""
    num_rows: jax.Array
    """How many there are."""
    held: jax.Array
    """[N]: 1 for a validation row."""
    scale: jax.Array


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
    jobs: _Jobs, features: ConfigFeatures, targets: _Targets, *, sizes: Sizes, config: NetworkConfig
) -> tuple[Networks, jax.Array]:
    """Fits one pair of networks per job to its group's `features` [G, N, K].

    Returns the networks kept, leading axis L, and their validation losses [L, 2].
    """
    per_check = max(1, config.num_steps // CHECKS)
    schedule = optax.cosine_decay_schedule(config.learning_rate, per_check * CHECKS, alpha=0.02)
    optimizer = optax.adamw(schedule, weight_decay=config.weight_decay)

    def fit_one(job: _Jobs) -> tuple[Networks, jax.Array]:
        own = jax.tree.map(lambda leaf: leaf[job.group], features)

        def step(carry: Any, key: PRNGKey) -> tuple[Any, None]:
            networks, state = carry
            rows = job.order[jax.random.randint(key, (config.batch_size,), 0, job.num_rows)]
            batch = jax.tree.map(lambda leaf: leaf[rows], (own, targets))
            ones = jnp.ones(config.batch_size, jnp.float32)
            grads = jax.grad(lambda n: _losses(n, batch[0], batch[1], ones, job.scale, sizes).sum())(networks)
            with jax.numpy_dtype_promotion("standard"):  # optax's Adam raises a float to an integer count
                updates, state = optimizer.update(grads, state, networks)
            return (optax.apply_updates(networks, updates), state), None

        def check(carry: Any, key: PRNGKey) -> tuple[Any, None]:
            state, best, best_losses = carry
            state, _ = jax.lax.scan(step, state, jax.random.split(key, per_check))
            now = _losses(state[0], own, targets, job.held, job.scale, sizes)
            better = now < best_losses
            best = Networks(
                *(
                    jax.tree.map(lambda new, old, won=won: jnp.where(won, new, old), fresh, kept)
                    for won, fresh, kept in zip(better, state[0], best, strict=True)
                )
            )
            return (state, best, jnp.minimum(now, best_losses)), None

        init_key, key = jax.random.split(job.key)
        train = jax.tree.map(lambda leaf: leaf[job.order], own)
        networks = Networks(*(forget_unmet(params, train) for params in _init(sizes, init_key)))
        start = ((networks, optimizer.init(networks)), networks, jnp.full(2, jnp.inf, jnp.float32))
        (_, best, losses), _ = jax.lax.scan(check, start, jax.random.split(key, CHECKS))
        return best, losses

    return cast(tuple[Networks, jax.Array], jax.lax.map(fit_one, jobs))


@partial(jax.jit, static_argnames="sizes")
def _apply(networks: Networks, features: ConfigFeatures, sizes: Sizes) -> Networks:
    network = sizes.build()
    return Networks(*(jax.vmap(network.apply, in_axes=(0, None))(params, features) for params in networks))


def _pad(features: ConfigFeatures) -> ConfigFeatures:
    """Pads the configurations to a power of two, at least 64, so that few programs are ever compiled."""
    count = features.mask.shape[0]
    rows = max(64, 1 << (count - 1).bit_length())
    return ConfigFeatures(*(np.pad(array, ((0, rows - count), (0, 0))) for array in features))
