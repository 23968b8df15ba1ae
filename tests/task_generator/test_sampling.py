"""Drawing configurations: a function of seed and index, within the support, by the mixture's weights."""

from __future__ import annotations

import numpy as np
import pytest

from lopt.config import derive
from lopt.registry import UnknownNameError
from task_generator import (
    DISTRIBUTIONS,
    TaskDistribution,
    get_distribution,
    sample_task_config,
    sample_task_configs,
)
from task_generator.distributions import UniformInt
from task_generator.families import MlpConfig
from task_generator.sampling import MAX_REDRAWS

DEMO = DISTRIBUTIONS["demo"]
DISTINCT = {"four_small": 4, "broad": 20, "metz2018": 1, "metz2020": 90, "metz2020_embedded": 90}
"""Of a hundred draws: four tasks, twenty, one network, and families of a few functions; elsewhere, all but a few
(two where fields are fixed)."""


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_draws_lie_in_the_support_and_have_fingerprints_of_their_own(name: str) -> None:
    distribution = DISTRIBUTIONS[name]
    assert distribution.name == name
    configs = sample_task_configs(distribution, seed=0, count=100)
    assert all(distribution.could_sample(config) for config in configs)
    usual = 2 if distribution.fixed else 96
    assert len({config.fingerprint() for config in configs}) >= DISTINCT.get(name, usual)


def test_a_configuration_depends_on_seed_and_index_only() -> None:
    assert sample_task_configs(DEMO, 3, 5) == sample_task_configs(DEMO, 3, 9)[:5]
    assert sample_task_configs(DEMO, 3, 5) != sample_task_configs(DEMO, 4, 5)


def test_the_mixture_weights_and_the_whole_ranges_are_used() -> None:
    configs = sample_task_configs(DEMO, seed=1, count=800)
    families = [config.family.family for config in configs]
    assert abs(families.count("mlp") - 400) < 70  # five standard deviations
    assert {config.family.dataset for config in configs} == {"digits", "photo_patches"}
    sizes = [config.family.image_size for config in configs]
    assert (min(sizes), max(sizes)) == (4, 32)
    assert {config.family.num_layers for config in configs if config.family.family == "conv"} == {0, 1, 2, 3}
    assert {len(config.augmentations) for config in configs} == {0, 1}


def test_only_the_named_data_sets_are_drawn() -> None:
    digits = derive(DEMO, datasets=("digits",))
    configs = sample_task_configs(digits, seed=0, count=30)
    assert {config.family.dataset for config in configs} == {"digits"}
    assert not digits.could_sample(
        derive(configs[0], family={**configs[0].family.model_dump(), "dataset": "photo_patches"})
    )


def test_weights_must_sum_to_one() -> None:
    with pytest.raises(ValueError, match=r"sum to 1.*sum 1\.1"):
        derive(DEMO, families=(("mlp", 0.6), ("conv", 0.5)))


def test_unknown_names_come_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown task family 'mpl'.*Did you mean 'mlp'"):
        derive(DEMO, families=(("mpl", 1.0),))
    with pytest.raises(UnknownNameError, match=r"unknown augmentation 'reparametrise'.*'reparametrize'"):
        derive(DEMO, augmentations=("reparametrise",))
    with pytest.raises(UnknownNameError, match=r"unknown task distribution 'dmeo'.*Did you mean 'demo'"):
        get_distribution("dmeo")


def test_priors_that_no_check_admits_end_with_an_explanation(monkeypatch: pytest.MonkeyPatch) -> None:
    too_deep = {**MlpConfig.prior(), "num_layers": UniformInt(low=100, high=200)}
    monkeypatch.setattr(MlpConfig, "prior", classmethod(lambda cls: too_deep))
    distribution = TaskDistribution(name="broken", families=(("mlp", 1.0),), datasets=("digits",))
    with pytest.raises(RuntimeError, match=rf"{MAX_REDRAWS} draws from distribution 'broken'"):
        sample_task_config(distribution, np.random.default_rng(0))
