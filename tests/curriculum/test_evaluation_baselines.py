"""Which baselines an evaluation may compare with."""

from __future__ import annotations

import pytest

from curriculum.evaluation import EvaluationConfig


def test_two_by_default_and_any_that_is_tuned_over_rates() -> None:
    assert EvaluationConfig().baselines == ("adam", "adamw_cosine")
    assert EvaluationConfig(baselines=("adam", "muon", "shampoo_sgd")).baselines[1] == "muon"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("adam", "adamw_cosin"), "Did you mean 'adamw_cosine'"),
        (("adam", "nadamw"), r"'nadamw' is not \(its search space: random\)"),
        (("sgd",), "must contain 'adam', the normaliser"),
    ],
)
def test_others_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(baselines=names)
