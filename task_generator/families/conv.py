"""Convolutional classifiers: 3×3 convolutions, global average pool, linear head.

The first `num_stride_2_layers` convolutions have stride 2; asking for more than there are layers means all of
them, as in the released code.

Evaluation tasks may fix the channels of each convolution, and normalise *after* the activation, as VeLOdrome's do.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3.2. Deviation from the release: the head uses the sampled
initialiser too (there, the library's default).
[2] Almeida et al. 2021 (arXiv:2106.00958), App. H: convolutional nets on the digit sets.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from task_generator.distributions import Categorical, Distribution, LogUniformInt, UniformInt
from task_generator.families.base import gradient_cost
from task_generator.families.images import (
    LHOPT_ACTIVATIONS,
    LHOPT_NORMALIZATIONS,
    PlainClassifierConfig,
    image_prior,
)
from task_generator.families.layer_widths import LayerWidthsConfig
from task_generator.nn import ConvNet


class ConvConfig(LayerWidthsConfig, PlainClassifierConfig):
    """`num_layers` convolutions of `hidden_size` channels; no layer is a linear map of the mean colour.

    `channels` are the images'; `hidden_sizes` may give each convolution its own number.
    """

    family: Literal["conv"] = "conv"
    hidden_size: int = Field(ge=1, le=1024, description="Channels per convolution.")
    num_layers: int = Field(ge=0, le=32, description="Convolutions.")
    num_stride_2_layers: int = Field(ge=0, le=6, description="How many, from the first, have stride 2.")

    @model_validator(mode="after")
    def _check_strides(self) -> Self:
        halvings = min(self.num_stride_2_layers, self.num_layers)
        if 2**halvings > self.image_size:
            raise ValueError(
                f"image_size={self.image_size} leaves no pixel to stride over: with num_stride_2_layers="
                f"{self.num_stride_2_layers} and num_layers={self.num_layers} it must be at least "
                f"{2**halvings}. Raise `image_size` or lower `num_stride_2_layers`."
            )
        return self

    @model_validator(mode="after")
    def _check_normalization(self) -> Self:
        if self.normalization == "layer_norm" and 1 in self.widths:
            raise ValueError(
                f"normalization='layer_norm' over a single channel leaves nothing but zeros, got widths "
                f"{self.widths}. Raise `hidden_size`."
            )
        return self

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the ranges of C.3.2."""
        return {
            "hidden_size": LogUniformInt(low=4, high=64),
            "num_layers": UniformInt(low=0, high=3),
            "num_stride_2_layers": UniformInt(low=0, high=2),
            **image_prior(),
        }

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride of each convolution."""
        return tuple(2 if i < self.num_stride_2_layers else 1 for i in range(self.num_layers))

    @classmethod
    def named_priors(cls) -> dict[str, dict[str, Distribution]]:
        """Returns LHOPT's prior, by that name."""
        return {"lhopt": LHOPT_PRIOR}

    @classmethod
    def example(cls) -> Self:
        """Returns two convolutions of 8 channels on digits."""
        return cls(
            hidden_size=8, num_layers=2, num_stride_2_layers=1, image_size=8, batch_size=32, dataset="digits"
        )

    def network(self) -> ConvNet:
        """Returns the module."""
        return ConvNet(self.widths, self.strides, self.num_classes, self.normalization, self.prelu)

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        side, channels, products, num_params = self.image_size, self.channels, 0, 0
        values, rows, reads = 0, 1, self.input_size
        for width, stride in zip(self.widths, self.strides, strict=True):
            side = -(-side // stride)
            weights = 9 * channels * width
            products += side * side * weights
            num_params += weights + width
            values += side * side * width
            rows += side * side
            reads += side * side * 9 * channels
            channels = width
        num_params += self.num_hidden_extras(self.widths)
        head = channels * self.num_classes
        return gradient_cost(
            num_params + head + self.num_classes,
            products + head,
            self.batch_size,
            inputs_per_example=self.input_size,
            values_per_example=values + self.num_classes,
            rows_per_example=rows,
            reads_per_example=reads,
            depth=len(self.widths) + 1,
        )

    def label(self) -> str:
        """Returns e.g. "conv 3x16/1 · digits 8px · batch 64": three layers, one of them with stride 2."""
        strided = f"/{sum(s == 2 for s in self.strides)}" if 2 in self.strides else ""
        return f"conv {self.widths_label()}{strided} · {self.data_label()}"

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether the priors could draw what this configuration fixes."""
        return self.hidden_sizes is None and super().overrides_could_be_sampled()


LHOPT_PRIOR: dict[str, Distribution] = {
    **ConvConfig.prior(),
    "image_size": Categorical(values=(28,)),
    "dataset": Categorical(values=("mnist", "fashion_mnist")),
    "activation": Categorical(values=LHOPT_ACTIVATIONS),
    "normalization": Categorical(values=LHOPT_NORMALIZATIONS),
}
"""[2]'s convolutional nets on MNIST-like images. Its text gives no sizes: these are C.3.2's. It adds
Kuzushiji-MNIST, which is not among the data sets here."""
