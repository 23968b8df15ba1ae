"""What keirin ships is whole: it reads back, and a model of it prices every family."""

from __future__ import annotations

import numpy as np
import pytest

from runtime_model.fitting import fit
from runtime_model.machine import this_machine
from runtime_model.reference import pack, reference_timings, unpack
from task_generator.families import FAMILIES
from task_generator.known_distributions import family_distribution
from task_generator.sampling import sample_task_configs
from task_generator.task_config import TaskConfig


def test_timings_survive_packing() -> None:
    timings = reference_timings()[:20]
    machine = this_machine()
    back = unpack(pack(timings, machine))
    assert [t.model_copy(update={"machine": machine}) for t in timings] == list(back)
    assert pack(timings, machine) == pack(timings, machine)


def test_every_shipped_configuration_is_one_of_today_and_of_stream_0() -> None:
    timings = reference_timings()
    assert len({t.machine for t in timings}) == 1
    assert {t.family for t in timings} <= set(FAMILIES)
    assert (
        len({t.family for t in timings}) >= 21
    )  # a family that came later has none, and its first run says so
    drawn = {
        config.fingerprint()
        for name in FAMILIES
        for config in sample_task_configs(family_distribution(name), 0, 250)
    }
    for timing in timings:
        assert TaskConfig.model_validate_json(timing.config_json).fingerprint() == timing.config_fingerprint
        assert timing.config_fingerprint in drawn


@pytest.mark.slow
def test_the_shipped_model_predicts_what_it_was_not_fitted_on() -> None:
    _, report = fit(reference_timings(), seed=0)
    assert report.spearman is not None
    assert report.spearman > 0.97
    assert report.validity_auc is not None
    assert report.validity_auc > 0.95
    assert report.median_relative_error is not None
    assert report.median_relative_error < 0.25
    assert np.isclose(report.interval_coverage or 0.0, 0.8, atol=0.07)
