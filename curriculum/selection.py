"""Whether weights are reported on the tasks that they were chosen on.

A gate that promotes the fastest of many checkpoints picks, among other things, the luckiest on its tasks. There the
champion's numbers are then better than on other tasks like them, whether or not any was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Selection(NamedTuple):
    """A promotion of weights, or of weights that their training started from.

    Attributes:
      version: That was promoted.
      gate: Which decided.
      is_own: Whether the weights themselves were promoted.
      tasks: Names of those that it was decided on; None: its evaluation is not kept any more.
    """

    version: int | None
    gate: str
    is_own: bool
    tasks: tuple[str, ...] | None


def selection_remark(tasks: Sequence[str], selections: Sequence[Selection]) -> str | None:
    """Returns what has to be known before numbers on `tasks` are believed; None if they decided nothing.

    Args:
      tasks: Names of those that are reported.
      selections: Every promotion of the weights and of those before them.
    """
    deciding = [each for each in selections if set(each.tasks or ()) & set(tasks)]
    lost = [each for each in selections if each.tasks is None]
    decided = {name for each in deciding for name in each.tasks or ()}
    seen = [name for name in tasks if name in decided]
    sentences = []
    if seen:
        sentences.append(
            f"{len(seen)} of {len(tasks)} tasks decided the promotion of {_names(deciding)}, and flatter what was "
            f"chosen on them: {', '.join(seen)}."
        )
    if lost:
        sentences.append(
            f"Which tasks decided the promotion of {_names(lost)} is not known: the evaluation is no longer kept."
        )
    return " ".join(sentences) or None


def _names(selections: Sequence[Selection]) -> str:
    names = (
        f"version {each.version} (gate {each.gate!r}{'' if each.is_own else ', where its training started'})"
        for each in selections
    )
    return " and of ".join(dict.fromkeys(names))
