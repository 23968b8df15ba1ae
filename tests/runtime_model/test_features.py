"""The featuriser reads nested configurations without collisions, clamping or guessing what it never saw."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field, create_model

from lopt.config import FrozenConfig
from runtime_model.features import NUMBER, UNKNOWN, build_vocabulary, featurize, read_pairs
from task_generator.task_config import TaskConfig, parse_task_config


class Dense(FrozenConfig):
    """A family with its own cost."""

    family: Literal["dense"] = "dense"
    width: int = 8
    wide: bool = False
    kind: Literal["a", "b"] | None = None

    def approximate_cost(self) -> dict[str, float]:
        """Returns a number that no other field holds."""
        return {"flops_per_step": 7.0 * self.width}


class Sparse(FrozenConfig):
    """A family with a field of the same name, and a list."""

    family: Literal["sparse"] = "sparse"
    width: float = 0.5
    sizes: tuple[int, ...] = ()


class Nested(FrozenConfig):
    """A configuration with a union, as `TaskConfig` is one."""

    family: Annotated[Dense | Sparse, Field(discriminator="family")]
    dataset: str = "digits"


def test_pairs_follow_the_nesting_and_tell_types_apart() -> None:
    assert dict(read_pairs(Nested(family=Dense(width=16, wide=True)))) == {
        "family.cost.flops_per_step": 112.0,
        "family[dense].family": "dense",
        "family[dense].width": 16.0,
        "family[dense].wide": "true",  # a category: not the number 1
        "family[dense].kind": "none",
        "dataset": "digits",
    }
    pairs = read_pairs(Nested(family=Sparse(sizes=(3, 4))))
    assert ("family[sparse].sizes#", 2.0) in pairs
    assert [value for key, value in pairs if key == "family[sparse].sizes"] == [3.0, 4.0]


def test_vocabulary_comes_from_the_schema_and_has_a_row_for_every_key_and_category() -> None:
    vocabulary = build_vocabulary(Nested)
    assert {"family[dense].width", "family[sparse].width", "family[sparse].sizes#"} <= set(vocabulary.keys)
    assert {
        "family[dense].kind=a",
        "family[dense].kind=b",
        "family[dense].kind=none",
        "family[dense].wide=true",
        "family[sparse].family=sparse",
    } <= set(vocabulary.values)
    keys, values = vocabulary.rows
    assert sorted(row for row, _, _ in keys.values()) == list(range(1, vocabulary.num_keys))
    assert sorted(values.values()) == list(range(2, vocabulary.num_values))


def test_schema_of_the_real_configuration_covers_what_configurations_give() -> None:
    config = _mlp()
    vocabulary = build_vocabulary(TaskConfig)
    keys, values = vocabulary.rows
    for key, value in read_pairs(config):
        if not key.startswith("cost."):  # methods are not in a schema
            assert key in keys
        if isinstance(value, str):
            assert f"{key}={value}" in values


def test_numbers_are_log_scaled_to_the_fitted_range_and_not_clamped() -> None:
    seen = [read_pairs(Nested(family=Sparse(width=w))) for w in (0.0, math.e - 1.0)]  # log1p: 0 and 1
    vocabulary = build_vocabulary(Nested, seen)
    widths = (0.0, math.sqrt(math.e) - 1.0, math.e - 1.0, math.e**3 - 1.0)
    features = featurize([Nested(family=Sparse(width=w)) for w in widths], vocabulary)
    column = vocabulary.rows[0]["family[sparse].width"][0]
    numbers = features.numbers[features.key_ids == column]
    np.testing.assert_allclose(
        numbers, [-1.0, 0.0, 1.0, 5.0], atol=1e-6
    )  # log1p 3 is twice the range above 1


def test_what_the_vocabulary_lacks_is_unknown_and_padding_is_masked() -> None:
    vocabulary = build_vocabulary(Nested, [read_pairs(Nested(family=Dense()))])
    other: Any = create_model("Other", __base__=FrozenConfig, novel=(int, 3), dataset=(str, "moon"))
    features = featurize([other(), Nested(family=Dense())], vocabulary)
    assert features.key_ids[0, :2].tolist() == [UNKNOWN, vocabulary.rows[0]["dataset"][0]]
    assert features.value_ids[0, :2].tolist() == [NUMBER, UNKNOWN]
    assert features.numbers[0, 0] == 0.0
    assert features.mask.sum(axis=1).tolist() == [2.0, 6.0]
    assert features.mask.shape == (2, 8)


def test_a_value_without_features_is_refused_by_name() -> None:
    odd: Any = create_model("Odd", __base__=FrozenConfig, shape=(complex, 1j))
    with pytest.raises(TypeError, match=r"`shape` must hold a number.*got complex"):
        read_pairs(odd())


def test_features_do_not_depend_on_the_batch_they_are_computed_in() -> None:
    configs = [Nested(family=Dense(width=w)) for w in (4, 8)] + [Nested(family=Sparse(sizes=(1,) * 9))]
    vocabulary = build_vocabulary(Nested, [read_pairs(c) for c in configs])
    together, alone = featurize(configs, vocabulary), featurize(configs[:1], vocabulary)
    for whole, part in zip(together, alone, strict=True):
        np.testing.assert_array_equal(whole[0, : part.shape[1]], part[0])
        assert not whole[0, part.shape[1] :].any()


def _mlp() -> TaskConfig:
    family = {"family": "mlp", "hidden_size": 8, "num_layers": 1, "image_size": 4, "batch_size": 4}
    return parse_task_config({"family": {**family, "dataset": "digits"}})
