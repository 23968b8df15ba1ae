"""The report's pictures are pictures, also of next to nothing."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from made_up_report import make_phase
from matplotlib.image import imread
from report_reading import read

from flows import reporting
from flows.reporting import OptimizerCurve, ReportData, RuntimeModelReport

PNG_FUNCTIONS: tuple[Callable[[ReportData], bytes], ...] = (
    reporting.meta_training_png,
    reporting.speedup_cdf_png,
    reporting.comparison_png,
    reporting.head_to_head_png,
    reporting.learning_curves_png,
    reporting.runtime_model_png,
    reporting.runtime_model_families_png,
    reporting.accepted_tasks_png,
)


@pytest.mark.parametrize("draw", PNG_FUNCTIONS)
def test_pictures_are_png_with_ink(draw: Callable[[ReportData], bytes], data: ReportData) -> None:
    png = draw(data)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert width > 500
    assert height > 400
    pixels = imread(BytesIO(png), format="png")[..., :3]
    assert 0.01 < float((pixels.min(axis=-1) < 0.9).mean()) < 0.6


def test_plots_survive_one_point_and_constant_curves(data: ReportData) -> None:
    rng = np.random.default_rng(1)
    phase = make_phase("one", "", rng, outer_step=(1,), meta_loss=(0.5,), validation=())
    assert data.evaluation is not None
    flat = OptimizerCurve(
        optimizer="pacer", steps=(0, 1), mean=(0.0, 0.0), low=(0.0, 0.0), high=(0.0, 0.0), final_losses=(0.0,)
    )
    task = data.evaluation.tasks[0].model_copy(update={"curves": (flat,)})
    evaluation = data.evaluation.model_copy(update={"tasks": (task,)})
    model = RuntimeModelReport(num_timings=0, num_valid=0)
    changed = data.model_copy(update={"phases": (phase,), "evaluation": evaluation, "runtime_model": model})
    read(reporting.render_html(changed))
    for draw in PNG_FUNCTIONS:
        assert draw(changed)
