"""The fixed evaluation tasks: held out where they say so, the ones that past results are for, and learnable."""

from __future__ import annotations

import jax
import optax
import pytest

from lopt.inner_loop import train_curve
from lopt.registry import UnknownNameError
from task_generator import DISTRIBUTIONS, EVALUATION_SETS, EvaluationTask, get_evaluation_set
from task_generator.datasets.images import EMBEDDED_IMAGES
from task_generator.datasets.text import EMBEDDED_TEXTS
from task_generator.families import FAMILIES

DEMO = [task for name in ("heldout_demo", "indistribution_demo") for task in EVALUATION_SETS[name]]
EMBEDDED = EVALUATION_SETS["embedded24"]

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
    "embedded-mlp-digits": "b67a35c4756658f2",
    "embedded-mlp-photos": "b47addc928c98408",
    "embedded-mlp-digits-es": "044bb703875aa57c",
    "embedded-conv-photos": "af4d497f48657a8b",
    "embedded-autoencoder-photos": "34a6dff541d16356",
    "embedded-vae-digits": "c5bc8483f34bc40e",
    "embedded-resnet-digits": "1abf3494870fae55",
    "embedded-vit-digits": "d65f9272439fc571",
    "embedded-mixer-photos": "9b71c8600224ce24",
    "embedded-maf-digits": "78825fdfe7e48861",
    "embedded-real-nvp-digits": "f4fd27c07be8752f",
    "embedded-lstm-bytes": "1146eff942ae54da",
    "embedded-gru-subwords": "19b3cec652791461",
    "embedded-transformer-bytes": "32881a507a08c9bb",
    "embedded-text-classification": "3db4e1598d7ecfdf",
    "embedded-addition": "c07d2fba363210ef",
    "embedded-train-adam": "c6af0ba57894440e",
    "embedded-noisy-quadratic": "be262ff582849df3",
    "embedded-quadratic": "2427d8b76ed6f3cc",
    "embedded-rosenbrock": "cdc33ed52ab49a59",
    "embedded-logistic-regression": "e275257c745b92ae",
    "embedded-minibatch-quadratic": "97706c3afeede427",
    "embedded-valley": "d75dbf4b422827ce",
    "embedded-sum-of-problems": "7b64d0e68cc099c3",
}


@pytest.mark.parametrize("task", EVALUATION_SETS["heldout_demo"], ids=lambda t: t.name)
def test_the_demo_distribution_cannot_produce_a_held_out_task(task: EvaluationTask) -> None:
    assert not DISTRIBUTIONS["demo"].could_sample(task.config)


@pytest.mark.parametrize("task", EVALUATION_SETS["indistribution_demo"], ids=lambda t: t.name)
def test_the_demo_distribution_can_produce_the_in_distribution_tasks(task: EvaluationTask) -> None:
    assert DISTRIBUTIONS["demo"].could_sample(task.config)


def test_the_tasks_are_the_ones_that_past_results_are_for() -> None:
    assert {task.name: task.config.fingerprint() for task in (*DEMO, *EMBEDDED)} == FINGERPRINTS


def test_names_are_unique_and_kinds_differ() -> None:
    by_name: dict[str, EvaluationTask] = {}
    for task in (task for tasks in EVALUATION_SETS.values() for task in tasks):
        assert by_name.setdefault(task.name, task) == task  # VeLOdrome's sets share tasks
    heldout = EVALUATION_SETS["heldout_demo"]
    assert {task.config.family.family for task in heldout} == {"mlp", "conv", "autoencoder"}
    assert {task.config.family.dataset for task in heldout} == {"digits", "photo_patches"}


@pytest.mark.parametrize("task", DEMO, ids=lambda t: t.name)
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


def test_the_embedded_set_has_a_task_of_twenty_one_families_on_embedded_data() -> None:
    """All that there were when the set was fixed; a later family does not change it."""
    families = [task.config.family for task in EMBEDDED]
    assert len({family.family for family in families}) == 21
    assert {family.family for family in families} <= set(FAMILIES)
    embedded = {*EMBEDDED_IMAGES, *EMBEDDED_TEXTS, "generated"}
    assert {family.dataset for family in families if hasattr(family, "dataset")} <= embedded


@pytest.mark.slow
@pytest.mark.parametrize("task", EMBEDDED, ids=lambda t: t.name)
def test_adam_makes_progress_on_every_embedded_task(task: EvaluationTask) -> None:
    family = task.config.build()
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes types itself
        curve = jax.jit(
            lambda key: train_curve(
                family.task(family.sample_dynamic(key)),
                optax.with_extra_args_support(optax.adam(1e-2)),
                key,
                eval_every=100,
                num_points=2,
                splits=("train",),
                num_eval_batches=8,
            )
        )(jax.random.key(0))
    start, end = curve.losses["train"].tolist()
    assert end < start


def test_an_unknown_set_comes_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'heldout_demo'"):
        get_evaluation_set("held_out_demo")
