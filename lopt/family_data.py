"""Taking a family's data out of a program: as arguments, not as constants compiled into it.

Families that hold arrays are pytrees (`jax.tree_util.register_dataclass`); one that is not stays what it is, and
its arrays, if any, become constants of the programs that close over it. 150 MB of constants take eight seconds to
compile where an argument takes none, and every program would hold its own copy.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

from lopt.types import TaskFamily

Data = list[jax.Array]


def separate_data(family: TaskFamily) -> tuple[Data, Callable[[Data], TaskFamily]]:
    """Returns the arrays that a family holds, and a function from (traced) arrays back to the family."""
    leaves, structure = jax.tree.flatten(family)
    positions = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

    def rebuild(data: Data) -> TaskFamily:
        merged = list(leaves)
        for position, array in zip(positions, data, strict=True):
            merged[position] = array
        return jax.tree.unflatten(structure, merged)

    return [leaves[i] for i in positions], rebuild
