"""Causal Transformers: pre-norm blocks, a linear output that is not tied to the embedding.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3.7; the Transformer is that of Vaswani et al. 2017
(arXiv:1706.03762). The text's "model dimension divided by head dimension" would be the number of heads, which is
its next entry. It is read as the model dimension divided by the number of *heads*, 8 to 128, as in the release:
then it is the head dimension, and `model_size` = `head_size` · `num_heads`.

Deviation from the release, towards the text: queries, keys and values have that dimension per head (the release
always takes 32, as its evaluation tasks do: `key_size`). Where the text says nothing the release is followed: no
positional embedding (a causal decoder can count; `positions` has one), dropout 0.1 on what a block adds, the MLP
four times as wide, GELU, blocks that start with a variance of 2 / (num_layers · fan_in), embeddings with 1. There,
padding is also masked as a key; here windows have none.

The paper's ranges reach 26 billion parameters; what exceeds `MAX_PARAMS` is refused, and so not sampled.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from task_generator.distributions import Distribution, LogUniformInt
from task_generator.dynamic import ActivationName
from task_generator.families.base import gradient_cost
from task_generator.families.language import MAX_BATCH_LOGITS, LanguageConfig, language_prior
from task_generator.families.network import NothingDrawn
from task_generator.initializers import InitializerName, LeafInit, default_leaf_init
from task_generator.networks.language import Positions, TransformerLm

WIDENING = 4
MAX_PARAMS = 2**30
"""Refuses networks whose parameters alone take more than 4 GiB."""
TRUNCATED_DEVIATION = 0.87962566103423978
"""Of a standard normal number cut at ±2, by which the release's variance scaling divides."""
POSITION_DEVIATION = 0.02


class TransformerLmConfig(NothingDrawn, LanguageConfig):
    """`num_layers` blocks of `num_heads` heads. Nothing is dynamic: the three choices of C.2 are fixed here."""

    default_only: ClassVar[tuple[str, ...]] = (
        "activation",
        "initializer",
        "init_scale",
        "key_size",
        "dropout_rate",
        "positions",
    )

    family: Literal["transformer_lm"] = "transformer_lm"
    head_size: int = Field(ge=1, le=1024, description="Model dimension per head.")
    num_heads: int = Field(ge=1, le=256, description="Heads of attention.")
    num_layers: int = Field(ge=1, le=64, description="Blocks.")
    key_size: int | None = Field(
        None, ge=1, le=1024, description="Dimension of a head's queries, keys and values; None: `head_size`."
    )
    dropout_rate: float = Field(0.1, ge=0, lt=1, description="Share of what a block adds that is dropped.")
    positions: Positions = Field("none", description="Whether positions have a learned embedding.")
    activation: ActivationName = Field("gelu", description="Within the blocks.")
    initializer: InitializerName = Field("truncated_normal", description="The initialiser of all matrices.")
    init_scale: float = Field(1.0, gt=0, description="Multiplies all matrices at the start.")

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        weights = self.batch_size * self.num_heads * self.sequence_length**2
        if weights > MAX_BATCH_LOGITS:
            raise ValueError(
                f"a batch may have at most {MAX_BATCH_LOGITS} attention weights per layer, got {weights} from "
                f"batch_size={self.batch_size}, num_heads={self.num_heads} and sequence_length="
                f"{self.sequence_length}. Lower one of them."
            )
        num_params = self.approximate_cost()["num_params"]
        if num_params > MAX_PARAMS:
            raise ValueError(
                f"there may be at most {MAX_PARAMS} parameters, got {num_params:.0f} from head_size="
                f"{self.head_size}, num_heads={self.num_heads} and num_layers={self.num_layers}. Lower one of them."
            )
        return self

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the ranges of C.3.7."""
        return {
            "head_size": LogUniformInt(low=8, high=128),
            "num_heads": LogUniformInt(low=8, high=128),
            "num_layers": LogUniformInt(low=1, high=8),
            **language_prior(),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns one block of four heads on bytes."""
        return cls(
            head_size=8, num_heads=4, num_layers=1, sequence_length=16, batch_size=8, dataset="english_bytes"
        )

    @property
    def model_size(self) -> int:
        """The model dimension."""
        return self.head_size * self.num_heads

    def network(self) -> TransformerLm:
        """Returns the module."""
        return TransformerLm(
            model_size=self.model_size,
            num_heads=self.num_heads,
            key_size=self.key_size or self.head_size,
            num_layers=self.num_layers,
            widening=WIDENING,
            vocab_size=self.num_tokens,
            dropout_rate=self.dropout_rate,
            positions=self.positions,
        )

    def leaf_init(self, path: str, shape: tuple[int, ...]) -> LeafInit:
        """Returns how the parameter at `path` starts."""
        if path.startswith("embedding"):
            return LeafInit("kernel", math.sqrt(shape[0]))
        if path == "positions":
            return LeafInit("normal", POSITION_DEVIATION)
        if path.startswith("block_") and len(shape) > 1:
            cut = TRUNCATED_DEVIATION if self.initializer == "truncated_normal" else 1.0
            return LeafInit("kernel", math.sqrt(2 / self.num_layers) / cut)
        return default_leaf_init(path, shape)

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        model, inner = self.model_size, (self.key_size or self.head_size) * self.num_heads
        vocab, length = self.num_tokens, self.sequence_length
        products = 4 * model * inner + 2 * WIDENING * model**2
        offsets = 3 * inner + model + WIDENING * model + model + 4 * model  # the last: two layer norms
        num_params = self.num_layers * (products + offsets) + 2 * vocab * model + vocab + 2 * model
        if self.positions == "learned":
            num_params += length * model
        per_token = self.num_layers * (products + 2 * length * inner) + model * vocab
        block_values = (
            4 * inner + (4 + WIDENING) * model + self.num_heads * length
        )  # q, k, v, norms, scores, …
        return gradient_cost(
            num_params,
            length * per_token,
            self.batch_size,
            inputs_per_example=length,
            values_per_example=length * (model + self.num_layers * block_values + vocab),
            rows_per_example=length * (1 + 6 * self.num_layers),
            depth=2 + 6 * self.num_layers,
        )

    def label(self) -> str:
        """Returns e.g. "transformer_lm 2x4·8 · english_bytes × 16 · batch 8": layers x heads·head size."""
        size = f"{self.num_layers}x{self.num_heads}·{self.head_size}"
        return f"transformer_lm {size} · {self.data_label()}"
