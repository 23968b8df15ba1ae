"""An evaluation's curves: only what is missing is computed, under the data and the code that it comes from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pyarrow.parquet as pq
import pytest
from dataset_files import write_mnist
from prepared_datasets import prepare_mnist
from rich.console import Console
from spied_curves import SpyPool, compute, optimizer, task_on

import flows.evaluation.curves
import flows.evaluation.unit_size
import flows.evaluation.versions
from curriculum.evaluation.baseline_budgets import Trials
from curriculum.evaluation.curves import EVALUATION_SPLITS, CurveBatch, CurveUnit
from curriculum.evaluation.summary import EvaluationConfig
from flows.evaluation.curves import CurveJob, compute_curves, plan_baselines, plan_jobs
from flows.evaluation.missing_curves import MissingCurves, missing_curves
from flows.evaluation.parquet import export_curves, import_curves
from flows.evaluation.records import settings_fingerprint
from flows.evaluation.settings import evaluation_spec
from flows.evaluation.versions import CURVES_VERSION, data_versions
from flows.progress import Reporter
from flows.session import Session
from flows.settings import RuntimeSettings
from lopt.config import derive
from storage.datasets import WorkspaceReader
from storage.errors import StorageError
from storage.workspace import Workspace
from task_generator.datasets.prepared import use_reader
from task_generator.families import FAMILIES
from task_generator.task_config import TaskConfig

CONFIG = EvaluationConfig(
    horizon=10, points_per_horizon=2, normalizer_factor=1, num_seeds=3, baselines=("adam",)
)
made_up_units = pytest.mark.usefixtures("made_up")


DIGITS = task_on("digits")


@pytest.fixture
def spy() -> SpyPool:
    return SpyPool()


@pytest.fixture
def session(tmp_path: Path, spy: SpyPool) -> Session:
    settings = RuntimeSettings(home=tmp_path / "home")
    return Session(settings, Reporter(Console(quiet=True)), open_pool=lambda _: spy)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units in no time: each curve tells its setting and seed."""

    def curves(unit: CurveUnit, settings: Sequence[Any]) -> CurveBatch:
        firsts = [float(np.ravel(jax.tree.leaves(setting)[0])[0]) for setting in settings]
        ends = np.asarray([[first + 1000 * seed for seed in unit.seeds] for first in firsts])
        losses = {split: np.stack([ends, ends], axis=-1) for split in EVALUATION_SPLITS}
        return CurveBatch(np.arange(2), losses, 1e-3)

    monkeypatch.setattr(flows.evaluation.curves, "curve_unit", curves)


# --- What is missing ------------------------------------------------------------------------------------------


def test_settings_that_lack_the_same_seeds_go_together() -> None:
    there = {(0, 0), (0, 1), (1, 0), (3, 0)}
    found = missing_curves(4, (0, 1), lambda *place: place not in there)
    assert found == [MissingCurves((1, 3), (1,)), MissingCurves((2,), (0, 1))]
    assert missing_curves(1, (0, 1), lambda *place: place not in there) == []


@pytest.mark.parametrize(
    ("max_settings", "sizes"), [(4, [4, 3]), (3, [3, 2, 2]), (7, [7]), (100, [7]), (1, [1] * 7)]
)
def test_a_large_grid_is_shared_out_evenly_in_order(max_settings: int, sizes: list[int]) -> None:
    parts = MissingCurves((0, 2, 3, 5, 8, 9, 11), (0, 4)).split(max_settings)
    assert [len(part.settings) for part in parts] == sizes
    assert sum((part.settings for part in parts), ()) == (0, 2, 3, 5, 8, 9, 11)
    assert {part.seeds for part in parts} == {(0, 4)}


@made_up_units
def test_more_seeds_compute_the_new_ones(session: Session, spy: SpyPool) -> None:
    rates = [float(rate) for rate in Trials("adam", 15).settings()]
    compute(plan_baselines([DIGITS], CONFIG), session)
    assert spy.taken() == sorted((rate, seed) for rate in rates for seed in (0, 1, 2))
    batches = compute(plan_baselines([DIGITS], derive(CONFIG, num_seeds=5)), session)
    assert spy.taken() == sorted((rate, seed) for rate in rates for seed in (3, 4))
    ends = batches["t", "adam"].losses["train"][:, :, -1]
    np.testing.assert_allclose(ends, [[rate + 1000 * seed for seed in range(5)] for rate in rates])
    compute(plan_baselines([DIGITS], derive(CONFIG, num_seeds=4)), session)
    assert spy.taken() == []


@made_up_units
def test_more_trials_compute_the_new_ones(
    session: Session, spy: SpyPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many of them are several units."""
    monkeypatch.setattr(flows.evaluation.unit_size, "MAX_SETTINGS", 1)
    monkeypatch.setattr(flows.evaluation.unit_size, "STEPS_PER_UNIT", 30 * CONFIG.horizon)

    def jobs(budget: str) -> list[CurveJob]:
        config = derive(CONFIG, num_seeds=1, baselines=(budget,))
        return [job for job in plan_baselines([DIGITS], config) if job.name == "nadamw"]

    compute(jobs("nadamw10"), session)
    every = [float(setting[0]) for setting in Trials("nadamw", 100).settings()]
    assert spy.taken() == sorted((first, 0) for first in every[:10])
    batches = compute(jobs("nadamw100"), session)
    assert [len(unit) for unit in spy.units] == [30, 30, 30]
    assert spy.taken() == sorted((first, 0) for first in every[10:])
    np.testing.assert_allclose(batches["t", "nadamw"].losses["train"][:, 0, -1], every)


@pytest.mark.parametrize(
    ("horizon", "num_seeds", "sizes"),
    [(10, 3, [100]), (1_000, 3, [50, 50]), (2_000, 3, [25] * 4), (20_000, 1, [25] * 4)],
)
@made_up_units
def test_a_unit_is_minutes_of_work_or_one_program(
    session: Session, spy: SpyPool, horizon: int, num_seeds: int, sizes: list[int]
) -> None:
    config = derive(CONFIG, horizon=horizon, num_seeds=num_seeds, baselines=("nadamw100",))
    jobs = [job for job in plan_baselines([DIGITS], config) if job.name == "nadamw"]
    compute(jobs, session)
    assert [len(unit) / num_seeds for unit in spy.units] == sizes


@made_up_units
def test_a_worker_hangs_after_longer_where_units_are_longer(session: Session, spy: SpyPool) -> None:
    """At 3.4 ms a step and run, one program of 45 runs of 20 000 steps takes 51 minutes: no reason to give up."""
    for horizon in (10, 20_000):
        compute(plan_baselines([DIGITS], derive(CONFIG, horizon=horizon)), session)
        at_least = 1_800 + 15 * 3 * horizon * 0.1
        allowed = spy.timeouts[-1]
        assert allowed is not None
        assert at_least < allowed < 1.1 * at_least
    compute(plan_baselines([DIGITS], derive(CONFIG, horizon=20_000)), session)
    assert spy.timeouts[-1] is None  # nothing is left to compute


@made_up_units
def test_another_checkpoint_computes_its_own(session: Session, spy: SpyPool) -> None:
    config = derive(CONFIG, num_seeds=1)
    compute(plan_jobs([DIGITS], optimizer(7.0), config), session)
    assert {(7.0, 0), (0.0, 0)} <= set(spy.taken())
    batches = compute(plan_jobs([DIGITS], optimizer(8.0), config), session)
    assert spy.taken() == [(8.0, 0)]
    assert batches["t", "learned"].losses["train"][:, 0, -1].tolist() == [8.0, 0.0]
    roles = {row.labels["role"] for row in session.curves.query(optimizer=optimizer(8.0).fingerprint)}
    assert roles == {"candidate"}


@made_up_units
def test_a_candidate_that_is_its_initialisation_is_computed_once(session: Session, spy: SpyPool) -> None:
    jobs = plan_jobs([DIGITS], optimizer(5.0, initial=5.0), derive(CONFIG, num_seeds=1))[:2]
    batches = compute(jobs, session)
    assert spy.taken() == [(5.0, 0)]
    assert batches["t", "learned"].losses["train"][:, 0, -1].tolist() == [5.0, 5.0]


@made_up_units
def test_a_damaged_curve_is_computed_again_once(session: Session, spy: SpyPool) -> None:
    jobs = plan_baselines([DIGITS], CONFIG)
    compute(jobs, session)
    spy.taken()
    path = session.curves._folder(jobs[0].key(4, 1)) / "float64" / "0"
    path.write_bytes(path.read_bytes()[:-1])
    message = export_curves(session.workspace.root, session.workspace.root / "curves.parquet")
    assert message.startswith("44 curves in ")
    assert f"1 damaged, left out: the first is `{path.parent.parent}`" in message
    compute(jobs, session)
    assert spy.taken() == [(float(jobs[0].settings[4]), 1)]
    compute(jobs, session)
    assert spy.taken() == []
    message = export_curves(session.workspace.root, session.workspace.root / "curves.parquet")
    assert message == f"45 curves in {session.workspace.root / 'curves.parquet'}"


@made_up_units
def test_some_baselines_have_and_are_told_of_twice_the_steps(session: Session) -> None:
    jobs = plan_baselines([DIGITS], derive(CONFIG, baselines=("lhopt35",)))
    told = {job.name: (job.unit.horizon, job.key(0, 0).horizon) for job in jobs}
    assert told == {"adam": (10, 10), "adamw_schedules": (20, 20)}
    assert compute(jobs, session)["t", "adamw_schedules"].losses["train"].shape == (35, 3, 2)


@made_up_units
def test_imported_curves_are_found_and_counted(tmp_path: Path, session: Session, spy: SpyPool) -> None:
    jobs = plan_baselines([DIGITS], CONFIG)
    compute(jobs, session)
    expected = compute(jobs, session)["t", "adam"]
    spy.taken()
    path = tmp_path / "theirs.parquet"
    export_curves(session.workspace.root, path)
    own = session.curves.get(jobs[0].key(0, 0))
    assert own is not None
    shutil.rmtree(session.curves.path)
    session.curves.append(own)
    import_curves(session.workspace.root, path)
    found = compute_curves(jobs, session, lambda _: None)
    assert spy.taken() == []
    assert found.imported == {"theirs.parquet": 44}
    np.testing.assert_array_equal(found.batches["t", "adam"].losses["train"], expected.losses["train"])


@made_up_units
def test_curves_with_fewer_splits_stand_beside_those_with_all(
    tmp_path: Path, session: Session, spy: SpyPool
) -> None:
    """What was imported without a split is not computed again for it."""
    jobs = plan_baselines([DIGITS], CONFIG)
    expected = compute(jobs, session)["t", "adam"]
    spy.taken()
    export_curves(session.workspace.root, tmp_path / "theirs.parquet", without=["outer_valid"])
    own = session.curves.get(jobs[0].key(0, 0))
    assert own is not None
    shutil.rmtree(session.curves.path)
    session.curves.append(own)
    import_curves(session.workspace.root, tmp_path / "theirs.parquet")
    found = compute(jobs, session)["t", "adam"]
    assert spy.taken() == []
    assert set(expected.losses) == set(EVALUATION_SPLITS)
    assert set(found.losses) == {"train", "test"}
    np.testing.assert_array_equal(found.losses["test"], expected.losses["test"])


def test_curves_that_were_added_are_those_of_all_at_once(tmp_path: Path, session: Session) -> None:
    """With the real units: another number of seeds is another program, which may round differently."""
    config = derive(CONFIG, baselines=("prodigy",))

    def job(num_seeds: int) -> list[CurveJob]:
        planned = plan_baselines([DIGITS], derive(config, num_seeds=num_seeds))
        return [each for each in planned if each.name == "prodigy"]

    compute(job(1), session)
    added = compute(job(2), session)["t", "prodigy"]
    other = Session(RuntimeSettings(home=tmp_path / "other"), session.reporter, open_pool=lambda _: SpyPool())
    at_once = compute(job(2), other)["t", "prodigy"]
    assert added.step.tolist() == at_once.step.tolist()
    for split, losses in at_once.losses.items():
        np.testing.assert_allclose(added.losses[split], losses, rtol=1e-4)


# --- Data and code --------------------------------------------------------------------------------------------


@pytest.fixture
def mnist(tmp_path: Path, session: Session) -> Iterator[Path]:
    """Files of MNIST, prepared in part."""
    write_mnist(tmp_path / "files", 60, 20)
    prepare_mnist(session.workspace, tmp_path / "files", max_examples=40)
    with use_reader(WorkspaceReader(session.workspace)):
        yield tmp_path / "files"


@made_up_units
def test_curves_on_other_data_of_the_same_name_are_not_found(
    session: Session, spy: SpyPool, mnist: Path
) -> None:
    task = task_on("mnist")
    compute(plan_baselines([task], CONFIG), session)
    in_part = spy.taken()
    compute(plan_baselines([task], CONFIG), session)
    assert spy.taken() == []
    prepare_mnist(session.workspace, mnist)
    compute(plan_baselines([task], CONFIG), session)
    assert spy.taken() == in_part
    prepare_mnist(session.workspace, mnist, sizes=(4,))  # another size of the same images
    compute(plan_baselines([task], CONFIG), session)
    assert spy.taken() == []
    assert len({json.dumps(row.key.data) for row in session.curves.query()}) == 2


def test_an_evaluation_on_other_data_is_another(session: Session, mnist: Path) -> None:
    def settings() -> str:
        spec = evaluation_spec(optimizer(1.0), [task_on("mnist")], CONFIG, clock=False)
        return settings_fingerprint(spec)

    in_part = settings()
    assert settings() == in_part
    prepare_mnist(session.workspace, mnist)
    assert settings() != in_part


@made_up_units
def test_a_worker_that_holds_earlier_data_computes_nothing(session: Session, mnist: Path) -> None:
    WorkspaceReader(session.workspace).read_images("mnist", 4)  # as a worker of `keirin up` did
    other = Workspace(session.workspace.root.parent / "other")
    prepare_mnist(other, mnist)
    native = session.workspace.datasets / "mnist" / "native"
    shutil.rmtree(native)
    shutil.copytree(other.datasets / "mnist" / "native", native)  # by another process
    with pytest.raises(StorageError, match=r"'mnist' was prepared again after .* Restart the workers"):
        compute(plan_baselines([task_on("mnist")], CONFIG), session)
    assert session.curves.query() == []


@made_up_units
def test_other_code_finds_nothing(session: Session, spy: SpyPool, monkeypatch: pytest.MonkeyPatch) -> None:
    compute(plan_baselines([DIGITS], CONFIG), session)
    before = spy.taken()
    monkeypatch.setattr(flows.evaluation.curves, "CURVES_VERSION", 10_000)
    compute(plan_baselines([DIGITS], CONFIG), session)
    assert spy.taken() == before


def test_versions_are_of_every_data_set_that_a_task_reads(mnist: Path, session: Session) -> None:
    inner = task_on("mnist").config.family.model_dump(mode="json")
    nested = derive(FAMILIES["lopt_training"].example(), inner_task=inner)
    text = FAMILIES["rnn_lm"].example()
    subwords = derive(FAMILIES["transformer_lm"].example(), dataset="english_subwords")
    versions = data_versions(TaskConfig(family=family) for family in (nested, text, subwords))
    assert set(versions) == {"english_bytes", "english_subwords", "mnist"}
    assert versions["mnist"] == WorkspaceReader(session.workspace).version("mnist")
    assert len(set(versions.values())) == 3
    assert data_versions([DIGITS.config]) == {}
    assert data_versions([task_on("cifar10").config]) == {"cifar10": "not prepared"}


def test_the_embedded_text_is_that_of_the_running_python(monkeypatch: pytest.MonkeyPatch) -> None:
    text = [TaskConfig(family=FAMILIES["rnn_lm"].example())]
    before = data_versions(text)
    monkeypatch.setattr(flows.evaluation.versions, "documents", lambda: (("topic", "in other words"),))
    flows.evaluation.versions._english.cache_clear()
    try:
        assert data_versions(text) != before
    finally:
        flows.evaluation.versions._english.cache_clear()


@made_up_units
def test_a_curve_says_what_it_was_made_with(session: Session, mnist: Path) -> None:
    compute(plan_baselines([task_on("mnist")], CONFIG), session)
    path = session.workspace.root / "curves.parquet"
    export_curves(session.workspace.root, path)
    (row,) = {
        tuple(row[name] for name in ("jax", "platform", "curves_version", "data"))
        for row in pq.read_table(path).to_pylist()
    }
    version = WorkspaceReader(session.workspace).version("mnist")
    assert row == (jax.__version__, "cpu", CURVES_VERSION, json.dumps({"mnist": version}))
    assert {each.labels["optax"] for each in session.curves.query()} == {optax.__version__}
