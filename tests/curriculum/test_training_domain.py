"""What was held out: declared by a phase, never drawn, remembered with the weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import ValidationError

from curriculum.phase_tasks import sample_phase_tasks
from curriculum.phases import get_phase
from curriculum.training_domain import TrainingDomain, domain_of, is_familiar, is_held_out
from lopt.config import derive
from runtime_model.prediction import Prediction
from runtime_model.rejection import ProblemSizeThresholds
from task_generator.evaluation_set import EVALUATION_SETS, EvaluationTask
from task_generator.held_out import HeldOut
from task_generator.known_distributions import DISTRIBUTIONS
from task_generator.sampling import sample_task_config
from task_generator.task_config import TaskConfig

PHASE = get_phase("short_horizon")
SEEN, UNSEEN = EVALUATION_SETS["indistribution_demo"], EVALUATION_SETS["heldout_demo"]
DIGITS = {"datasets": ("digits",)}
SET = {"evaluation_sets": ("indistribution_demo",)}


def predict(configs: Sequence[TaskConfig]) -> Prediction:
    """Everything runs, and fast."""
    return Prediction(np.full(len(configs), 1e-6), np.ones(len(configs)), np.zeros(len(configs)))


@pytest.mark.parametrize("task", UNSEEN, ids=lambda t: t.name)
def test_what_no_phase_of_the_training_draws_is_held_out(task: EvaluationTask) -> None:
    assert is_held_out(task.config, [domain_of(PHASE)]) is True


@pytest.mark.parametrize("task", SEEN, ids=lambda t: t.name)
def test_what_a_phase_draws_is_not_even_if_it_was_an_earlier_one(task: EvaluationTask) -> None:
    later = domain_of(derive(PHASE, name="later", distribution="wichrowska"))
    assert is_held_out(task.config, [later]) is True
    assert is_held_out(task.config, [domain_of(PHASE), later]) is False


def test_other_phases_of_the_registry_do_not_count() -> None:
    """VeLO's distribution draws what the demo holds out: that concerns only weights that were trained on it."""
    velo = DISTRIBUTIONS["phase_two_embedded"]
    drawn = sample_task_config(velo, np.random.default_rng(3))
    elsewhere = TrainingDomain(phase="x", distribution=velo.name, distribution_fingerprint=velo.fingerprint())
    assert is_held_out(drawn, [elsewhere]) is False
    assert is_held_out(drawn, []) is True


def test_what_is_not_known_is_not_claimed() -> None:
    config = UNSEEN[0].config
    changed = derive(domain_of(PHASE), distribution_fingerprint="0" * 16)
    assert is_held_out(config, None) is None
    assert is_held_out(config, [changed]) is None
    assert is_held_out(SEEN[0].config, [changed, domain_of(PHASE)]) is False  # one that draws it is enough


@pytest.mark.parametrize(
    ("held_out", "reason"),
    [
        (HeldOut(families=("mlp",)), "family mlp"),
        (HeldOut(datasets=("digits",)), "data set digits"),
        (HeldOut(shapes=(("image_size", 8),)), "image_size 8"),
        (HeldOut(evaluation_sets=("indistribution_demo",)), "a task of indistribution_demo"),
    ],
)
def test_a_declaration_holds_out(held_out: HeldOut, reason: str) -> None:
    config = next(
        t.config for t in SEEN if t.config.family.family == "mlp" and t.config.family.image_size == 8
    )
    if "data set" in reason:
        config = next(t.config for t in SEEN if t.config.family.dataset == "digits")
    assert held_out.reason(config) == reason
    phase = derive(PHASE, held_out=held_out.model_dump())
    assert is_held_out(config, [domain_of(phase)]) is True
    assert HeldOut().reason(config) is None


def test_what_is_held_out_is_never_drawn() -> None:
    """Half of the distribution are multi-layer perceptrons; twelve draws without one are no accident."""
    phase = derive(
        PHASE,
        held_out={"families": ("mlp",)},
        num_static_configs=12,
        problem_size=ProblemSizeThresholds(seconds=(1.0,), probabilities=(1.0,)),
        max_num_params=10**9,
    )
    drawn = sample_phase_tasks(phase, predict, seed=0)
    assert {config.family.family for config in drawn} == {"conv"}
    nothing = derive(phase, held_out={"families": ("mlp", "conv")})
    with pytest.raises(ValueError, match="narrow its `held_out`"):
        sample_phase_tasks(nothing, predict, seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"families": ("mpl",)},
        {"datasets": ("digit",)},
        {"shapes": (("image_sise", 8),)},
        {"evaluation_sets": ("embeded24",)},
    ],
)
def test_unknown_names_are_refused(wrong: dict[str, tuple]) -> None:
    with pytest.raises(KeyError, match="Did you mean"):
        HeldOut(**wrong)


def test_a_family_is_familiar_if_a_phase_draws_it_in_whatever_size() -> None:
    held_out = {task.config.family.family: task.config for task in UNSEEN}
    demo, broad = domain_of(PHASE), domain_of(get_phase("broad_short"))
    assert is_held_out(held_out["mlp"], [demo]) is is_familiar(held_out["mlp"], [demo]) is True
    assert is_familiar(held_out["autoencoder"], [demo]) is False
    assert is_familiar(held_out["autoencoder"], [demo, broad]) is True  # one that draws it is enough
    assert is_familiar(held_out["mlp"], [domain_of(derive(PHASE, held_out={"families": ("mlp",)}))]) is False
    assert is_familiar(held_out["mlp"], []) is False


def test_what_families_were_drawn_is_not_always_known() -> None:
    config = UNSEEN[0].config
    changed = derive(domain_of(PHASE), distribution_fingerprint="0" * 16)
    assert is_familiar(config, None) is is_familiar(config, [changed]) is None
    assert is_familiar(config, [changed, domain_of(PHASE)]) is True
    unproved = derive(domain_of(PHASE), held_out={"families": (config.family.family,)}, held_out_tasks=None)
    assert is_familiar(config, [unproved]) is True


def test_a_domain_survives_json() -> None:
    domain = domain_of(derive(PHASE, held_out={"shapes": (("image_size", 16),)}))
    assert TrainingDomain.model_validate(domain.model_dump(mode="json")) == domain


def test_whole_tasks_are_held_out_too() -> None:
    """Of four tasks, two are on digits."""
    phase = derive(PHASE, distribution="four_small", held_out=DIGITS, num_static_configs=4)
    drawn = sample_phase_tasks(phase, predict, seed=0)
    assert {config.family.dataset for config in drawn} == {"photo_patches"}
    assert len(set(drawn)) == 2
    held_out = [is_held_out(config, [domain_of(phase)]) for config in DISTRIBUTIONS["four_small"].tasks]
    assert held_out == [config not in drawn for config in DISTRIBUTIONS["four_small"].tasks]
    with pytest.raises(
        ValidationError, match=r"all 4 tasks of distribution 'four_small' are held out by phase"
    ):
        derive(phase, held_out={"families": ("mlp", "conv")})


def test_no_draw_may_become_a_task_that_is_said_to_be_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution of one shape, on two data sets: on one it is a task of the set, but for what is left open."""
    task = SEEN[0].config
    sizes = ("hidden_size", "num_layers", "image_size", "batch_size")
    fixed = tuple((name, getattr(task.family, name)) for name in sizes)
    monkeypatch.setitem(
        DISTRIBUTIONS, "demo", derive(DISTRIBUTIONS["demo"], families=(("mlp", 1.0),), fixed=fixed)
    )
    phase = derive(PHASE, held_out=SET, num_static_configs=12, max_num_params=10**9)
    assert {c.family.dataset for c in sample_phase_tasks(phase, predict, seed=0)} == {"photo_patches"}
    assert is_held_out(task, [domain_of(phase)]) is True
    assert is_held_out(task, [domain_of(derive(phase, held_out={}))]) is False


def test_a_set_means_the_tasks_that_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights were trained when the set had its second task only; today it has others."""
    before, outside = SEEN[3], UNSEEN[0]
    monkeypatch.setitem(EVALUATION_SETS, "indistribution_demo", (before,))
    domain = TrainingDomain.model_validate_json(domain_of(derive(PHASE, held_out=SET)).model_dump_json())
    monkeypatch.setitem(EVALUATION_SETS, "indistribution_demo", (SEEN[0], outside))
    assert is_held_out(before.config, [domain]) is True
    assert is_held_out(SEEN[0].config, [domain]) is None  # it could have been drawn then
    assert is_held_out(outside.config, [domain]) is True  # its distribution never draws it
    assert is_held_out(SEEN[2].config, [domain]) is False


@pytest.mark.parametrize("held_out", [DIGITS, SET])
def test_a_declaration_that_was_not_kept_proves_nothing(held_out: dict[str, tuple]) -> None:
    """Domains without fingerprints are of a version that drew some of what it declared to hold out."""
    document = domain_of(derive(PHASE, held_out=held_out)).model_dump(mode="json")
    del document["held_out_tasks"]
    domain = TrainingDomain.model_validate(document)
    assert is_held_out(SEEN[0].config, [domain]) is None
    assert is_held_out(UNSEEN[0].config, [domain]) is True
