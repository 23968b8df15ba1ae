"""Fitting recovers closed-form timings on configurations it was not shown, and survives storage."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from timed_toys import Inner, Toy, draw, record, runs, seconds, timings

from lopt.config import derive
from runtime_model.calibration import CalibrationReport
from runtime_model.estimators import COMPARED, ESTIMATORS
from runtime_model.estimators.base import EstimatorConfig
from runtime_model.estimators.network import NetworkConfig
from runtime_model.fitting import fit
from runtime_model.prediction import FORMAT_VERSION, RuntimeModel, UntimedFamilyError
from runtime_model.timing import StepTiming

Fitted = tuple[RuntimeModel, CalibrationReport, list[StepTiming]]
QUICK = NetworkConfig(
    num_members=2, num_steps=80, batch_size=32, pair_size=16, set_size=16, learning_rate=1e-2
)


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """A model of 80 noiseless timings, of which those with the largest width · batch do not run."""
    measured = timings(draw(np.random.default_rng(0), 80))
    return *fit(measured, seed=0, config_type=Toy), measured


def _unseen(seed: int, count: int) -> list[Toy]:
    return [c for c in draw(np.random.default_rng(seed), count) if runs(c)]


def test_closed_form_seconds_are_recovered_on_unseen_configurations(fitted: Fitted) -> None:
    configs = _unseen(1, 200)
    error = np.abs(fitted[0].predict(configs).seconds / [seconds(c) for c in configs] - 1.0)
    assert np.median(error) < 0.05
    assert np.quantile(error, 0.9) < 0.2


def test_the_reported_error_is_that_of_unseen_configurations() -> None:
    """Log-normal noise of 0.1, on what is fitted and on what is not."""
    rng = np.random.default_rng(6)
    noisy = lambda config: seconds(config) * float(np.exp(0.1 * rng.normal()))
    model, report = fit([record(c, measured=noisy(c)) for c in draw(rng, 100)], seed=0, config_type=Toy)
    configs = draw(rng, 400)
    unseen = np.median(np.abs(model.predict(configs).seconds / [noisy(c) for c in configs] - 1.0))
    assert report.median_relative_error == pytest.approx(unseen, rel=0.4)
    assert report.spearman is not None
    assert report.spearman > 0.99


def test_intervals_cover_what_they_say_on_unseen_configurations() -> None:
    """Log-normal noise of 0.2: of 400 unseen measurements 80 % lie within the 80 % intervals."""
    rng = np.random.default_rng(3)
    noisy = lambda config: seconds(config) * float(np.exp(0.2 * rng.normal()))
    model, report = fit([record(c, measured=noisy(c)) for c in draw(rng, 120)], seed=0, config_type=Toy)
    configs = draw(rng, 400)
    predicted = model.predict(configs)
    below = np.asarray([noisy(c) for c in configs]) <= predicted.upper(0.9)
    assert below.mean() == pytest.approx(0.9, abs=0.06)
    assert report.interval_coverage == pytest.approx(0.8, abs=0.1)


def test_timings_of_different_moments_are_brought_to_one_speed() -> None:
    """Every second timing was taken while the machine, its probe included, was twice as slow."""
    configs = draw(np.random.default_rng(0), 60)
    moody = [
        record(c, measured=seconds(c) * (1 + i % 2), probe=1e-3 * (1 + i % 2)) for i, c in enumerate(configs)
    ]
    model, report = fit(moody, seed=0, config_type=Toy)
    assert report.median_relative_error is not None
    assert report.median_relative_error < 0.1
    unseen = draw(np.random.default_rng(1), 100)
    ratio = model.predict(unseen).seconds / [seconds(c) for c in unseen]
    assert np.median(ratio) == pytest.approx(2**0.5, rel=0.03)  # between the two: the geometric mean


def test_validity_is_learned(fitted: Fitted) -> None:
    model, report, _ = fitted
    assert report.validity_auc is not None
    assert report.validity_auc > 0.9
    probability = model.predict(
        [Toy(family=Inner(width=128, batch=512, depth=2)), Toy(family=Inner(width=8, batch=8, depth=2))]
    ).valid_probability
    assert probability[0] < 0.5 < probability[1]


def test_extrapolation_is_not_clamped(fitted: Fitted) -> None:
    """Four times the largest width fitted costs 16 times as much: clamping would give the same seconds."""
    predicted = fitted[0].predict([Toy(family=Inner(width=w, batch=64, depth=2)) for w in (128, 512)]).seconds
    assert predicted[1] / predicted[0] > 8.0


@pytest.mark.parametrize("name", [*COMPARED])
def test_every_estimator_predicts_better_than_the_mean_and_survives_storage(name: str) -> None:
    """The contract: half the spread or less on held-out rows, JSON and arrays back to the same bits."""
    estimator: EstimatorConfig = COMPARED[name]
    if isinstance(estimator, NetworkConfig):
        estimator = QUICK.model_copy(update={"per_family": estimator.per_family})
    configs = draw(np.random.default_rng(5), 60)
    model, report = fit(
        [record(c, measured=seconds(c)) for c in configs],
        seed=0,
        num_folds=3,
        estimators={name: estimator},
        config_type=Toy,
    )
    measured = np.log([p.measured_seconds for p in report.points if p.measured_seconds])
    predicted = np.log([p.predicted_seconds for p in report.points])
    assert (measured - predicted).std() < 0.5 * measured.std()
    _assert_survives(model, draw(np.random.default_rng(1), 20))


def _assert_survives(model: RuntimeModel, configs: list[Toy]) -> None:
    arrays, meta = model.to_arrays()
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    restored = RuntimeModel.from_arrays(arrays, json.loads(json.dumps(meta)))
    for before, after in zip(model.predict(configs), restored.predict(configs), strict=True):
        np.testing.assert_array_equal(before, after)


def test_storage_that_does_not_match_is_refused(fitted: Fitted) -> None:
    arrays, meta = fitted[0].to_arrays()
    part = next(iter(arrays)).partition(":")[0]
    with pytest.raises(ValueError, match="missing="):
        RuntimeModel.from_arrays({k: v for k, v in arrays.items() if not k.startswith(part)}, meta)
    with pytest.raises(ValueError, match=r"surplus=\['more'\]"):
        RuntimeModel.from_arrays({**arrays, "more:x": np.zeros(1)}, meta)
    with pytest.raises(ValueError, match="must match"):
        RuntimeModel.from_arrays({k: v for k, v in arrays.items() if not k.endswith("any_family")}, meta)
    with pytest.raises(ValueError, match=f"format_version {FORMAT_VERSION}, got 0"):
        RuntimeModel.from_arrays(arrays, {**meta, "format_version": 0})


def test_the_seed_determines_the_model(fitted: Fitted) -> None:
    again, report = fit(fitted[2], seed=0, config_type=Toy)
    for name, array in again.to_arrays()[0].items():
        np.testing.assert_array_equal(array, fitted[0].to_arrays()[0][name])
    assert report == fitted[1]


def test_unseen_fields_and_families_predict_with_less_certainty(fitted: Fitted) -> None:
    class Other(Toy):
        novelty: str = "new"

    model = fitted[0]
    inner = Inner(width=32, batch=32, depth=1)
    known, novel = model.predict([Toy(family=inner)]), model.predict([Other(family=inner)])
    foreign = model.predict([Toy(family=inner.model_copy(update={"family": "other"}))])
    assert novel.seconds[0] == pytest.approx(known.seconds[0], rel=0.5)
    assert foreign.seconds[0] == pytest.approx(known.seconds[0], rel=1.5)  # priced like the others
    assert known.log_std[0] < min(novel.log_std[0], foreign.log_std[0])
    assert model.predict([]).seconds.shape == (0,)


def test_predictions_do_not_depend_on_what_else_is_predicted(fitted: Fitted) -> None:
    configs = draw(np.random.default_rng(4), 70)
    together = fitted[0].predict(configs).seconds
    alone = fitted[0].predict(configs[:1]).seconds
    assert together[0] == pytest.approx(alone[0], rel=1e-9)


def test_two_thousand_configurations_a_second(fitted: Fitted) -> None:
    """A quarter of the speed asked for, so that a busy machine does not fail the test."""
    configs = draw(np.random.default_rng(5), 1024)
    fitted[0].predict(configs)
    started = time.perf_counter()
    fitted[0].predict(configs)
    assert 1024 / (time.perf_counter() - started) > 500


def test_too_few_timings_are_refused_with_the_reasons() -> None:
    invalid = [record(c, valid=False) for c in draw(np.random.default_rng(0), 20)]
    with pytest.raises(ValueError, match=r"at least 8 configurations that ran, got 0 of 20.*too large"):
        fit(invalid, seed=0, config_type=Toy)


def test_one_class_only_gives_no_auc() -> None:
    measured = [record(c, measured=seconds(c)) for c in draw(np.random.default_rng(0), 64)]
    model, report = fit(measured, seed=0, config_type=Toy)
    assert report.validity_auc is None
    assert (model.predict([Toy(family=Inner(width=8, batch=8, depth=1))]).valid_probability > 0.5).all()


def _elsewhere(config: Toy) -> float:
    """Another machine: 2.5 times as slow, and slower still where there is much to do."""
    return 2.5 * seconds(config) * (seconds(config) / 1e-4) ** 0.1


def test_a_model_fitted_elsewhere_becomes_useful_after_twenty_timings(fitted: Fitted) -> None:
    base = fitted[0]
    configs = _unseen(11, 40)[:20]
    local = [record(c, measured=_elsewhere(c)) for c in configs]
    model, report = fit(local, seed=0, base=base, estimators={}, config_type=Toy)
    unseen = _unseen(12, 300)
    truth = np.asarray([_elsewhere(c) for c in unseen])
    before = np.median(np.abs(base.predict(unseen).seconds / truth - 1))
    after = np.median(np.abs(model.predict(unseen).seconds / truth - 1))
    assert before > 0.5
    assert after < 0.08
    assert report.chosen("toy") == "transferred"
    _assert_survives(model, unseen[:10])


def test_the_fewer_the_local_timings_the_wider_the_intervals(fitted: Fitted) -> None:
    """With none the correction is its prior: no shift, and the spread that hardware has."""
    base, unseen = fitted[0], _unseen(12, 20)
    widths = []
    for count in (1, 4, 20):
        local = [record(c, measured=_elsewhere(c)) for c in _unseen(11, 40)[:count]]
        model, _ = fit(local, seed=0, base=base, estimators={}, num_folds=2, config_type=Toy)
        stretch = model.info.families["toy"].stretch
        widths.append(float(np.median(model.predict(unseen).log_std)) / stretch)
    assert widths[0] > widths[1] > widths[2]


def test_local_timings_win_over_a_base_that_knows_nothing_of_here(fitted: Fitted) -> None:
    """Here depth is all that counts."""
    odd = lambda config: 1e-5 * (1 + config.family.depth) ** 3
    local = [record(c, measured=odd(c)) for c in draw(np.random.default_rng(21), 80)]
    _, report = fit(local, seed=0, base=fitted[0], config_type=Toy)
    assert report.chosen("toy") in ESTIMATORS
    assert report.median_by_estimator[report.chosen("toy")] < report.median_by_estimator["transferred"]


def test_a_base_predicts_the_families_that_were_not_timed_here(fitted: Fitted) -> None:
    other = draw(np.random.default_rng(31), 40, family="other")
    model, _ = fit(
        [record(c, measured=2 * seconds(c)) for c in other], seed=0, base=fitted[0], config_type=Toy
    )
    unseen = _unseen(32, 60)
    ratio = model.predict(unseen).seconds / [2 * seconds(c) for c in unseen]
    assert np.median(np.abs(ratio - 1)) < 0.25


def test_without_a_spanning_part_an_untimed_family_names_the_command(fitted: Fitted) -> None:
    per_family = {"paper": QUICK.model_copy(update={"per_family": True})}
    measured = [record(c, measured=seconds(c)) for c in draw(np.random.default_rng(0), 20)]
    model, _ = fit(measured, seed=0, num_folds=2, estimators=per_family, config_type=Toy)
    stranger = draw(np.random.default_rng(1), 1, family="other")
    with pytest.raises(UntimedFamilyError, match="`keirin time --family other --count 50`"):
        model.predict(stranger)


def test_what_the_base_was_fitted_to_is_not_held_out(fitted: Fitted) -> None:
    """The same timings again: the base would look perfect, so it does not compete."""
    base, _, measured = fitted
    _, report = fit(measured, seed=0, base=base, config_type=Toy)
    assert "transferred" not in report.median_by_estimator
    assert report.chosen("toy") in ESTIMATORS


@pytest.mark.parametrize("valid", [True, False])
def test_a_local_timing_keeps_what_the_base_knows_about_validity(fitted: Fitted, valid: bool) -> None:
    base = fitted[0]
    (config,) = _unseen(11, 40)[:1]
    local = record(config, measured=seconds(config)) if valid else record(config, valid=False)
    model, _ = fit([local], seed=0, base=base, num_folds=2, config_type=Toy)
    large, small = (Toy(family=Inner(width=w, batch=b, depth=2)) for w, b in ((128, 512), (8, 8)))
    here, there = model.predict([large, small]), base.predict([large, small])
    assert here.valid_probability[0] < 0.5 < here.valid_probability[1]
    if not valid:  # nothing was timed either: all is as there
        np.testing.assert_allclose(here.valid_probability, there.valid_probability)


def test_a_single_timing_does_not_choose_what_predicts_it(fitted: Fitted) -> None:
    """One of another family, at the seconds that the base says and at a hundred times those."""
    (other,) = draw(np.random.default_rng(31), 1, family="other")
    many = [record(c, measured=seconds(c)) for c in draw(np.random.default_rng(5), 40)]
    chosen = []
    for factor in (1.0, 100.0):
        one = record(other, measured=factor * float(fitted[0].predict([other]).seconds[0]))
        _, report = fit([*many, one], seed=0, base=fitted[0], config_type=Toy)
        chosen.append(report.chosen("other"))
    assert chosen == ["transferred", "transferred"]


def test_what_ran_too_slowly_runs() -> None:
    """A budget decides by its seconds: it is not as invalid as what could not be run."""
    limit = 1e-4
    measured = []
    for config in draw(np.random.default_rng(0), 120):
        timing = record(config, measured=seconds(config))
        if seconds(config) > limit:
            timing = derive(timing, valid=False, reason=f"too slow: more than {limit:g} s")
        measured.append(timing)
    slow = [t for t in measured if not t.valid]
    assert 20 < len(slow) < 100
    model, report = fit(measured, seed=0, config_type=Toy)
    assert report.validity_auc is None  # there is nothing that does not run
    assert report.num_timed == len(measured)
    predicted = model.predict([Toy.model_validate_json(t.config_json) for t in slow])
    assert (predicted.valid_probability > 0.5).all()
    assert (predicted.seconds > 0.5 * limit).all()
