"""The papers' task distributions, as data."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lopt.config import derive
from task_generator import DISTRIBUTIONS, sample_task_config, sample_task_configs
from task_generator.augmentations import ReparametrizeConfig
from task_generator.evaluation_set import EVALUATION_SETS
from task_generator.families import FAMILIES
from task_generator.known_distributions import LARGE, SMALL
from task_generator.sampling import TaskDistribution


def test_phase_one_has_the_paper_s_budgets_normalised() -> None:
    budgets = DISTRIBUTIONS["phase_one"].budgets
    assert [budget.seconds for budget in budgets] == [2e-5, 1e-4, 4e-4, 1e-3]
    np.testing.assert_allclose(
        [budget.probability for budget in budgets], [0.65 / 1.1, 0.3 / 1.1, 0.1 / 1.1, 0.05 / 1.1]
    )
    assert [len(budget.families) for budget in budgets] == [5, 9, 9, 9]


def test_phase_two_has_the_paper_s_budgets() -> None:
    budgets = DISTRIBUTIONS["phase_two"].budgets
    assert [budget.seconds for budget in budgets] == [1e-4, 4e-4, 1e-3, 3e-3]
    np.testing.assert_allclose([budget.probability for budget in budgets], [0.4, 0.2, 0.2, 0.2])


def test_a_budget_decides_which_families_are_offered() -> None:
    phase_one = DISTRIBUTIONS["phase_one_embedded"]
    rng = np.random.default_rng(0)
    short = {sample_task_config(phase_one, rng, seconds=2e-5).family.family for _ in range(60)}
    long = {sample_task_config(phase_one, rng, seconds=5e-4).family.family for _ in range(120)}
    assert short == set(SMALL)
    assert long == set(SMALL + LARGE)
    tiny = {sample_task_config(phase_one, rng, seconds=1e-9).family.family for _ in range(20)}
    assert tiny <= set(SMALL)


def test_augmentations_come_with_the_paper_s_probabilities_where_they_make_sense() -> None:
    configs = sample_task_configs(DISTRIBUTIONS["phase_two_embedded"], seed=0, count=1500)
    counts = Counter(a.augmentation for config in configs for a in config.augmentations)
    expected = {
        "reparametrize": 5 / 7,
        "es_gradients": 0.08,
        "low_precision": 0.2,
        "normalized_gradient": 0.05,
        "subsampled_directions": 0.08,
        "delayed_gradients": 0.05,
    }
    for name, p in expected.items():  # four standard deviations of a binomial
        assert abs(counts[name] - 1500 * p) < 4 * np.sqrt(1500 * p * (1 - p)), name
    with_examples = [config for config in configs if FAMILIES[config.family.family].has_examples]
    reduced = [c for c in configs if any(a.augmentation == "reduced_batch" for a in c.augmentations)]
    assert all(config.family.family != "lopt_training" for config in reduced)
    assert abs(len(reduced) - 0.2 * len(with_examples)) < 4 * np.sqrt(0.16 * len(with_examples))


@pytest.mark.parametrize("name", [n for n in DISTRIBUTIONS if n.endswith("_embedded")])
def test_embedded_distributions_draw_embedded_data_only(name: str) -> None:
    configs = sample_task_configs(DISTRIBUTIONS[name], seed=1, count=150)
    families = [getattr(config.family, "inner_task", config.family) for config in configs]
    drawn = {family.dataset for family in families if hasattr(family, "dataset")}
    assert drawn <= {"digits", "photo_patches", "english_bytes", "english_subwords", "generated"}
    assert len(drawn) > 1


def test_celo2_is_four_small_networks_with_one_scale_each() -> None:
    configs = sample_task_configs(DISTRIBUTIONS["celo2"], seed=0, count=60)
    assert len(set(configs)) == 4
    for config in configs:
        family = config.family
        assert (family.family, family.hidden_size, family.num_layers) == ("mlp", 32, 1)
        assert family.image_size == 8
        assert [a.level for a in config.augmentations] == ["global"]


def test_a_named_prior_is_used_where_a_family_has_one() -> None:
    configs = sample_task_configs(DISTRIBUTIONS["lhopt_embedded"], seed=0, count=200)
    digits = [config.family for config in configs if config.family.family == "mlp"]
    assert len({family.loss_kind for family in digits}) == 4
    assert len({family.normalization for family in digits}) == 3
    assert {family.activation for family in digits} == {
        "relu",
        "leaky_relu",
        "very_leaky_relu",
        "elu",
        "prelu",
    }


def test_a_distribution_needs_data_for_its_families() -> None:
    with pytest.raises(ValueError, match=r"must name one that RnnLmConfig learns from, got \('digits',\)"):
        TaskDistribution(name="x", families=(("mlp", 0.5), ("rnn_lm", 0.5)), datasets=("digits",))


def test_families_and_budgets_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="either `tasks` or `families` or `budgets`"):
        derive(DISTRIBUTIONS["phase_one"], families=(("mlp", 1.0),))


def test_whole_tasks_are_all_that_is_drawn() -> None:
    four = DISTRIBUTIONS["four_small"]
    assert set(sample_task_configs(four, seed=0, count=60)) == set(four.tasks)
    assert all(four.could_sample(task) for task in four.tasks)
    scaled = derive(four.tasks[0], augmentations=(ReparametrizeConfig(level="global", low=0.1, high=10.0),))
    assert not four.could_sample(scaled)
    with pytest.raises(ValueError, match="`tasks` are whole configurations: datasets would not be read"):
        derive(four, datasets=("digits",))


def test_the_broad_tasks_leave_embedded24_and_eight_of_its_families_alone() -> None:
    broad, evaluated = DISTRIBUTIONS["broad"], EVALUATION_SETS["embedded24"]
    assert not any(broad.could_sample(task.config) for task in evaluated)
    unseen = {task.config.family.family for task in evaluated} - {task.family.family for task in broad.tasks}
    assert unseen == {
        "algorithmic",
        "lopt_training",
        "maf",
        "minibatch_quadratic",
        "resnet",
        "slow_convergence",
        "sum_of_problems",
        "vit",
    }
    assert len({task.fingerprint() for task in broad.tasks}) == 20
