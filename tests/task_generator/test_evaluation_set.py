from __future__ import annotations

import jax
import pytest

from lopt.registry import UnknownNameError
from task_generator import DISTRIBUTIONS, EVALUATION_SETS, EvaluationTask, get_evaluation_set

TASKS = [task for tasks in EVALUATION_SETS.values() for task in tasks]

# A changed fingerprint means that results under the old name no longer compare: give the task a new name.
FINGERPRINTS = {
    "mlp-wide": "47c890d29ef10b2d",
    "mlp-deep": "cc854c1a166da7ba",
    "mlp-elu": "961ea048c1b40ab8",
    "conv-narrow-deep": "e95effcb082471a5",
    "autoencoder-digits": "779e96bb2c9768fc",
    "autoencoder-photos": "a365021d0703dc18",
    "mlp-digits": "f65c506d8181823f",
    "mlp-digits-tensor-scale": "2c56df9bae593d5b",
    "mlp-photos": "a8b32ebe5738f3d7",
    "conv-digits": "8f63df04f70e5b2b",
}


@pytest.mark.parametrize("task", EVALUATION_SETS["heldout_demo"], ids=lambda t: t.name)
def test_the_demo_distribution_cannot_produce_a_held_out_task(task: EvaluationTask) -> None:
    assert not DISTRIBUTIONS["demo"].could_sample(task.config)


@pytest.mark.parametrize("task", EVALUATION_SETS["indistribution_demo"], ids=lambda t: t.name)
def test_the_demo_distribution_can_produce_the_in_distribution_tasks(task: EvaluationTask) -> None:
    assert DISTRIBUTIONS["demo"].could_sample(task.config)


def test_the_tasks_are_the_ones_that_past_results_are_for() -> None:
    assert {task.name: task.config.fingerprint() for task in TASKS} == FINGERPRINTS


def test_names_are_unique_and_kinds_differ() -> None:
    assert len({task.name for task in TASKS}) == len(TASKS)
    heldout = EVALUATION_SETS["heldout_demo"]
    assert {task.config.family.family for task in heldout} == {"mlp", "conv", "autoencoder"}
    assert {task.config.family.dataset for task in heldout} == {"digits", "photo_patches"}


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_each_is_small_and_means_the_same_for_every_seed(task: EvaluationTask) -> None:
    assert task.config.approximate_cost()["flops_per_step"] < 2e7
    family = task.config.build()
    key = jax.random.key(0)

    @jax.jit
    def first_loss(seed_key: jax.Array) -> jax.Array:
        problem = family.task(family.sample_dynamic(seed_key))
        return problem.loss(problem.init(key), key, problem.batch(key))[0]

    # Re-parameterisation draws other scales, which leave the function what it is, up to rounding.
    first, second = (float(first_loss(jax.random.key(seed))) for seed in (1, 2))
    assert first == pytest.approx(second, rel=1e-5 if task.config.augmentations else 0)


def test_an_unknown_set_comes_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'heldout_demo'"):
        get_evaluation_set("held_out_demo")
