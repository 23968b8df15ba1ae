"""Fully connected classifiers on flattened images.

Evaluation tasks may normalise each hidden layer, drop units, and regress on one-hot labels instead of taking the
cross-entropy of a softmax. Dropout and batch statistics are as in training always, in evaluation too (VeLOdrome).

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3.1.
[2] Almeida et al. 2021 (arXiv:2106.00958), App. H: five activations, three normalisations and four losses on the
    digit sets. The text names them only. Taken here: slopes of 0.01 for "leaky" and 1/3 for "very leaky" ReLU,
    linear outputs against one-hot labels for the three regressions, and a threshold of 1 for Huber's loss.
"""

from __future__ import annotations

import itertools
from typing import Literal, Self

from pydantic import Field, model_validator

from lopt.types import Dynamic, PyTree, Scalar
from task_generator.datasets.images import ImageSplit
from task_generator.distributions import Categorical, Distribution, LogUniformInt, UniformInt
from task_generator.families.base import cap, gradient_cost
from task_generator.families.images import (
    LHOPT_ACTIVATIONS,
    LHOPT_NORMALIZATIONS,
    PlainClassifierConfig,
    image_prior,
)
from task_generator.losses import LossName, chance_loss, classification_loss
from task_generator.nn import Mlp


class MlpConfig(PlainClassifierConfig):
    """`num_layers` hidden layers of `hidden_size` units; no layer is logistic regression."""

    family: Literal["mlp"] = "mlp"
    hidden_size: int = Field(ge=1, le=16384, description="Units per hidden layer.")
    num_layers: int = Field(ge=0, le=32, description="Hidden layers.")
    dropout_rate: float = Field(
        0.0,
        ge=0,
        lt=1,
        exclude_if=lambda value: value == 0,
        description="Share of each hidden layer's units that a step leaves out, before the activation.",
    )
    loss_kind: LossName = Field(
        "cross_entropy", exclude_if=lambda value: value == "cross_entropy", description="What is minimised."
    )

    @model_validator(mode="after")
    def _check_normalization(self) -> Self:
        group = {"batch_norm": "batch_size", "layer_norm": "hidden_size"}.get(self.normalization)
        if group is not None and getattr(self, group) == 1:
            raise ValueError(
                f"normalization={self.normalization!r} with {group}=1 leaves nothing but zeros. Raise `{group}`."
            )
        return self

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the ranges of C.3.1."""
        return {
            "hidden_size": LogUniformInt(low=8, high=128),
            "num_layers": UniformInt(low=0, high=4),
            **image_prior(),
        }

    @classmethod
    def named_priors(cls) -> dict[str, dict[str, Distribution]]:
        """Returns LHOPT's prior, by that name."""
        return {"lhopt": LHOPT_PRIOR}

    @classmethod
    def example(cls) -> Self:
        """Returns two layers of 32 units on digits."""
        return cls(hidden_size=32, num_layers=2, image_size=8, batch_size=64, dataset="digits")

    def network(self) -> Mlp:
        """Returns the module."""
        widths = (self.hidden_size,) * self.num_layers
        return Mlp(widths, self.num_classes, self.normalization, self.dropout_rate, self.prelu)

    def loss(self, outputs: PyTree, batch: ImageSplit, dynamic: Dynamic) -> Scalar:
        """Returns the mean loss of outputs [batch, classes]."""
        del dynamic
        return classification_loss(self.loss_kind, outputs, batch.labels)

    def normalize(self, loss: Scalar, data: PyTree, dynamic: Dynamic) -> Scalar:
        """Returns the loss over that of the best constant output (`losses.chance_loss`), capped."""
        del data, dynamic
        return cap(loss / chance_loss(self.loss_kind, self.num_classes))

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        hidden = (self.hidden_size,) * self.num_layers
        sizes = [self.input_size, *hidden, self.num_classes]
        products = sum(a * b for a, b in itertools.pairwise(sizes))
        num_params = products + sum(sizes[1:]) + self.num_hidden_extras(hidden)
        return gradient_cost(
            num_params,
            products,
            self.batch_size,
            inputs_per_example=self.input_size,
            values_per_example=sum(sizes[1:]),
            depth=len(sizes) - 1,
        )

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether the priors could draw what this configuration fixes."""
        plain = self.dropout_rate == 0 and self.loss_kind == "cross_entropy"
        return plain and super().overrides_could_be_sampled()

    def overrides_label(self) -> str:
        """Returns what is overridden, in a few words."""
        dropout = f"dropout {self.dropout_rate:g}" if self.dropout_rate else ""
        loss = self.loss_kind if self.loss_kind != "cross_entropy" else ""
        return " · ".join(part for part in (super().overrides_label(), dropout, loss) if part)

    def label(self) -> str:
        """Returns e.g. "mlp 2x32 · digits 8px · batch 64"."""
        return f"mlp {self.num_layers}x{self.hidden_size} · {self.data_label()}"


LHOPT_PRIOR: dict[str, Distribution] = {
    **MlpConfig.prior(),
    "num_layers": UniformInt(low=1, high=7),
    "image_size": Categorical(values=(28,)),
    "dataset": Categorical(values=("mnist", "fashion_mnist")),
    "activation": Categorical(values=LHOPT_ACTIVATIONS),
    "normalization": Categorical(values=LHOPT_NORMALIZATIONS),
    "loss_kind": Categorical(values=("cross_entropy", "mae_onehot", "mse_onehot", "huber_onehot")),
}
"""[2]'s fully connected nets on MNIST-like images. Layers are its App. J.2's ("between 1 and 7"); its text gives no
widths and batch sizes: these are C.3.1's. It adds Kuzushiji-MNIST, which is not among the data sets here."""
