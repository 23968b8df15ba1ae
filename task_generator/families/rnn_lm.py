"""Language models with one recurrent layer.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3.6. Towards the text and against the release: the three cells are
three (the release makes every cell an LSTM), and the sampled initialiser is that of all matrices (the release:
embedding and output only). Where the text says nothing the release is followed, offsets and learned initial state
included, but for the vanilla cell's activation: tanh here, since with rectified units and a scale of up to 2 the
state outgrows float32 within a sequence of 512; `activation` sets another, as evaluation tasks do.

"irnn" and the initialiser "truncated_normal" are for evaluation: with the latter, matrices start as in the release,
with a deviation of 1/√fan_in and embeddings of 1.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

from pydantic import Field

from task_generator.distributions import Categorical, Distribution, LogUniformInt
from task_generator.dynamic import ActivationName
from task_generator.families.base import gradient_cost
from task_generator.families.language import LanguageConfig, language_prior
from task_generator.families.recurrent import SAMPLED_CELLS, VANILLA_ACTIVATION, RecurrentConfig
from task_generator.initializers import LeafInit
from task_generator.networks.language import RnnLm


class RnnLmConfig(LanguageConfig, RecurrentConfig):
    """Embedding, a recurrent layer of `hidden_size` units, a linear layer."""

    default_only: ClassVar[tuple[str, ...]] = ("initial_state",)

    family: Literal["rnn_lm"] = "rnn_lm"
    embed_size: int = Field(ge=1, le=4096, description="Features per token.")
    initial_state: Literal["learned", "zero"] = Field("learned", description="Where a sequence starts.")
    activation: ActivationName = Field(VANILLA_ACTIVATION, description="Of the vanilla cell.")

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the ranges of C.3.6."""
        return {
            "hidden_size": LogUniformInt(low=8, high=256),
            "embed_size": LogUniformInt(low=8, high=256),
            "cell": Categorical(values=SAMPLED_CELLS),
            **language_prior(),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns a GRU of 32 units on bytes."""
        return cls(
            cell="gru",
            hidden_size=32,
            embed_size=32,
            sequence_length=16,
            batch_size=16,
            dataset="english_bytes",
        )

    def network(self) -> RnnLm:
        """Returns the module."""
        is_learned = self.initial_state == "learned"
        return RnnLm(self.cell, self.hidden_size, self.embed_size, self.num_tokens, is_learned)

    def leaf_init(self, path: str, shape: tuple[int, ...]) -> LeafInit:
        """Returns how the parameter at `path` starts."""
        if path.startswith("embedding") and self.initializer == "truncated_normal":
            return LeafInit("kernel", math.sqrt(shape[0]))
        return super().leaf_init(path, shape)

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        hidden, embed, vocab = self.hidden_size, self.embed_size, self.num_tokens
        states = {"zero": 0, "learned": 2 if self.cell == "lstm" else 1}[self.initial_state] * hidden
        num_params = vocab * embed + self.recurrent_params(embed) + states + hidden * vocab + vocab
        products = self.recurrent_products(embed) + hidden * vocab
        return gradient_cost(
            num_params,
            self.sequence_length * products,
            self.batch_size,
            inputs_per_example=self.sequence_length,
            values_per_example=self.sequence_length * (self.recurrent_values(embed) + vocab),
            rows_per_example=2 * self.sequence_length,
            depth=self.sequence_length + 2,
        )

    def label(self) -> str:
        """Returns e.g. "rnn_lm gru 32/32 · english_bytes × 16 · batch 16": features per token / units."""
        return f"rnn_lm {self.cell} {self.embed_size}/{self.hidden_size} · {self.data_label()}"
