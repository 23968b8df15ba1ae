"""Fitting recovers closed-form timings on configurations it was not shown, and survives storage."""

from __future__ import annotations

import json
import time
from typing import Literal

import numpy as np
import pytest

from lopt.config import FrozenConfig
from runtime_model.calibration import CalibrationReport
from runtime_model.fitting import fit
from runtime_model.prediction import RuntimeModel
from runtime_model.timing import StepTiming


class Inner(FrozenConfig):
    """A family whose cost is known in closed form."""

    family: Literal["toy"] = "toy"
    width: int
    batch: int
    depth: int
    device: Literal["fast", "slow"] = "fast"

    def approximate_cost(self) -> dict[str, float]:
        """Returns width² · batch · (depth + 1)."""
        return {"flops_per_step": float(self.width**2 * self.batch * (self.depth + 1))}


class Toy(FrozenConfig):
    """What is timed."""

    family: Inner


def _draw(rng: np.random.Generator, count: int) -> list[Toy]:
    return [
        Toy(
            family=Inner(
                width=int(np.exp(rng.uniform(np.log(8), np.log(129)))),
                batch=int(np.exp(rng.uniform(np.log(4), np.log(513)))),
                depth=int(rng.integers(5)),
                device="slow" if rng.random() < 0.5 else "fast",
            )
        )
        for _ in range(count)
    ]


def _seconds(config: Toy) -> float:
    """1e-9 s per operation; the slow device takes three times as long."""
    factor = 3.0 if config.family.device == "slow" else 1.0
    return factor * 1e-9 * config.family.approximate_cost()["flops_per_step"]


def _record(config: Toy, *, valid: bool = True, seconds: float | None = None) -> StepTiming:
    return StepTiming(
        config_fingerprint=config.fingerprint(),
        config_json=config.canonical_json(),
        family="toy",
        seconds_per_step=seconds,
        compile_seconds=1.0,
        valid=valid,
        reason="" if valid else "too large",
    )


Fitted = tuple[RuntimeModel, CalibrationReport, list[StepTiming]]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """A model of 64 noiseless timings, of which those with the largest width · batch do not run."""
    configs = _draw(np.random.default_rng(0), 64)
    runs = [c.family.width * c.family.batch < 12_000 for c in configs]
    timings = [
        _record(c, valid=ok, seconds=_seconds(c) if ok else None) for c, ok in zip(configs, runs, strict=True)
    ]
    model, report = fit(timings, seed=0, config_type=Toy)
    return model, report, timings


def test_closed_form_seconds_are_recovered_on_unseen_configurations(fitted: Fitted) -> None:
    configs = [c for c in _draw(np.random.default_rng(1), 200) if c.family.width * c.family.batch < 12_000]
    truth = np.asarray([_seconds(c) for c in configs])
    error = np.abs(fitted[0].predict(configs).seconds / truth - 1.0)
    assert np.median(error) < 0.05
    assert np.quantile(error, 0.9) < 0.15


def test_the_reported_error_is_that_of_unseen_configurations(fitted: Fitted) -> None:
    model, report, _ = fitted
    configs = [c for c in _draw(np.random.default_rng(2), 400) if c.family.width * c.family.batch < 12_000]
    unseen = np.median(np.abs(model.predict(configs).seconds / [_seconds(c) for c in configs] - 1.0))
    assert report.median_relative_error is not None
    assert unseen / 3 < report.median_relative_error < 3 * unseen
    assert report.spearman is not None
    assert report.spearman > 0.99


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
    seconds = fitted[0].predict([Toy(family=Inner(width=w, batch=64, depth=2)) for w in (128, 512)]).seconds
    assert seconds[1] / seconds[0] > 8.0


def test_a_model_survives_storage(fitted: Fitted) -> None:
    model = fitted[0]
    arrays, meta = model.to_arrays()
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    restored = RuntimeModel.from_arrays(arrays, json.loads(json.dumps(meta)))
    configs = _draw(np.random.default_rng(1), 20)
    for before, after in zip(model.predict(configs), restored.predict(configs), strict=True):
        np.testing.assert_array_equal(before, after)


def test_storage_that_does_not_match_is_refused(fitted: Fitted) -> None:
    arrays, meta = fitted[0].to_arrays()
    name = next(iter(arrays))
    with pytest.raises(ValueError, match="missing="):
        RuntimeModel.from_arrays({k: v for k, v in arrays.items() if k != name}, meta)
    with pytest.raises(ValueError, match="another shape"):
        RuntimeModel.from_arrays({**arrays, name: arrays[name][:, :1]}, meta)
    with pytest.raises(ValueError, match="format_version 1, got 0"):
        RuntimeModel.from_arrays(arrays, {**meta, "format_version": 0})


def test_the_seed_determines_the_model(fitted: Fitted) -> None:
    again, report = fit(fitted[2], seed=0, config_type=Toy)
    for name, array in again.to_arrays()[0].items():
        np.testing.assert_array_equal(array, fitted[0].to_arrays()[0][name])
    assert report == fitted[1]


def test_unseen_categories_and_empty_batches_predict(fitted: Fitted) -> None:
    class Other(FrozenConfig):
        family: Inner
        novelty: str = "new"

    model = fitted[0]
    inner = Inner(width=32, batch=32, depth=1)
    known, novel = model.predict([Toy(family=inner)]), model.predict([Other(family=inner)])
    assert np.isfinite(novel.seconds).all()
    assert novel.seconds[0] == pytest.approx(known.seconds[0], rel=0.5)
    assert model.predict([]).seconds.shape == (0,)


def test_predictions_do_not_depend_on_what_else_is_predicted(fitted: Fitted) -> None:
    configs = _draw(np.random.default_rng(4), 70)
    together = fitted[0].predict(configs).seconds
    alone = fitted[0].predict(configs[:1]).seconds
    assert together[0] == pytest.approx(alone[0], rel=1e-5)


def test_two_thousand_configurations_a_second(fitted: Fitted) -> None:
    """A quarter of the speed asked for, so that a busy machine does not fail the test."""
    configs = _draw(np.random.default_rng(5), 1024)
    fitted[0].predict(configs)
    started = time.perf_counter()
    fitted[0].predict(configs)
    assert 1024 / (time.perf_counter() - started) > 500


def test_too_few_timings_are_refused_with_the_reasons() -> None:
    timings = [_record(c, valid=False) for c in _draw(np.random.default_rng(0), 20)]
    with pytest.raises(ValueError, match=r"at least 8 configurations that ran, got 0 of 20.*too large"):
        fit(timings, seed=0, config_type=Toy)


def test_one_class_only_gives_no_auc() -> None:
    timings = [_record(c, seconds=_seconds(c)) for c in _draw(np.random.default_rng(0), 64)]
    model, report = fit(timings, seed=0, config_type=Toy)
    assert report.validity_auc is None
    assert (model.predict([Toy(family=Inner(width=8, batch=8, depth=1))]).valid_probability > 0.5).all()
