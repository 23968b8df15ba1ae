"""Probes: small experiments on how a learned optimizer behaves. One file each; one line here registers it."""

from __future__ import annotations

from curriculum.probes.base import (
    Bench,
    Panel,
    Probe,
    ProbeRefusedError,
    ProbeResult,
    Series,
    Subject,
)
from curriculum.probes.batch_size import BatchSize
from curriculum.probes.continuation import ContinuationRanks
from curriculum.probes.controller_outputs import ControllerOutputs
from curriculum.probes.ensembles import Ensembles
from curriculum.probes.horizon_adaptation import HorizonAdaptation
from curriculum.probes.implicit_regularization import ImplicitRegularization
from curriculum.probes.loss_feature import LossFeature
from curriculum.probes.model_size import ModelSize
from curriculum.probes.self_training import SelfTraining
from curriculum.probes.smoothing import Smoothing
from curriculum.probes.step_sizes import StepSizes
from curriculum.probes.sweeps import Sweeps
from curriculum.probes.training_tasks import TrainingTasks
from curriculum.probes.update_cost import UpdateCost

PROBES: dict[str, type[Probe]] = {
    "batch_size": BatchSize,
    "continuation": ContinuationRanks,
    "controller_outputs": ControllerOutputs,
    "ensembles": Ensembles,
    "horizon_adaptation": HorizonAdaptation,
    "implicit_regularization": ImplicitRegularization,
    "loss_feature": LossFeature,
    "model_size": ModelSize,
    "self_training": SelfTraining,
    "smoothing": Smoothing,
    "step_sizes": StepSizes,
    "sweeps": Sweeps,
    "training_tasks": TrainingTasks,
    "update_cost": UpdateCost,
}

__all__ = [
    "PROBES",
    "Bench",
    "Panel",
    "Probe",
    "ProbeRefusedError",
    "ProbeResult",
    "Series",
    "Subject",
]
