"""The released Celo2 direction in float64 NumPy, one tensor at a time, features on a trailing axis.

Written from its description, sharing nothing with the package, so that what both say is right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MOMENTUM = np.float32([0.9, 0.99, 0.999]).astype(np.float64)
SECOND = float(np.float32(0.95))
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Celo2Reference:
    """One tensor's accumulators and its direction."""

    def __init__(self, shape: tuple[int, ...], weights: dict[str, np.ndarray], *, orthogonalized: bool):
        self.shape = shape or (1,)
        self.weights = {name: np.asarray(w, np.float64) for name, w in weights.items()}
        self.orthogonalized = orthogonalized
        self.momenta = np.zeros((*self.shape, 3))
        self.second = np.zeros((*self.shape, 1))
        self.squares: Any = [0.0, 0.0, 0.0]  # of vectors: per decay
        self.rows: Any = [0.0, 0.0, 0.0]
        self.cols: Any = [0.0, 0.0, 0.0]

    def direction(self, param: np.ndarray, grad: np.ndarray) -> np.ndarray:
        """Returns the direction after the accumulators have seen `grad`."""
        p = np.asarray(param, np.float64).reshape(self.shape)
        g = np.clip(np.asarray(grad, np.float64).reshape(self.shape), -1000, 1000)
        self.momenta = MOMENTUM * self.momenta + (1 - MOMENTUM) * g[..., None]
        self.second = SECOND * self.second + (1 - SECOND) * np.square(g)[..., None]
        axes = tuple(range(len(self.shape)))[-2:]
        features = self._features(p, g)
        features = features / np.sqrt(1e-9 + np.mean(np.square(features), axis=axes, keepdims=True))
        out = self._network(features)[..., 0]
        if self.orthogonalized and len(self.shape) >= 2:
            out = np.stack([newton_schulz(m) for m in out.reshape(-1, *self.shape[-2:])]).reshape(self.shape)
        return (out / np.sqrt(1e-9 + np.mean(np.square(out), axis=axes, keepdims=True))).reshape(
            np.shape(param)
        )

    def _features(self, p: np.ndarray, g: np.ndarray) -> np.ndarray:
        root = 1 / np.sqrt(self.second + 1e-8)
        factored_gradient, of_rows_and_columns = self._factored(g)
        one = lambda x: x[..., None]
        groups = [one(g), one(np.clip(g, -0.1, 0.1)), one(p), self.momenta, self.second]
        groups += [self.momenta * root, root, factored_gradient, one(g) * root, *of_rows_and_columns]
        return np.concatenate(groups, axis=-1)

    def _factored(self, g: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        squared = np.square(g) + 1e-30
        decays = list(zip(MOMENTUM, (1 - MOMENTUM), strict=True))
        if len(self.shape) < 2:
            self.squares = [b * v + a * squared for v, (b, a) in zip(self.squares, decays, strict=True)]
            return np.stack([g / np.sqrt(v + 1e-9) for v in self.squares], -1), []
        col_axis, row_axis = reversed(sorted(range(len(self.shape)), key=lambda i: (self.shape[i], i))[-2:])
        mean = lambda x, axis: np.mean(x, axis=axis, keepdims=True)
        self.rows = [b * v + a * mean(squared, col_axis) for v, (b, a) in zip(self.rows, decays, strict=True)]
        self.cols = [b * v + a * mean(squared, row_axis) for v, (b, a) in zip(self.cols, decays, strict=True)]
        both = [
            np.maximum(r / (mean(r, row_axis) + 1e-9), 1e-9) ** -0.5 * np.maximum(c, 1e-9) ** -0.5
            for r, c in zip(self.rows, self.cols, strict=True)
        ]
        whole = lambda arrays: np.stack([np.broadcast_to(x, self.shape) for x in arrays], -1)
        row, col, root = whole(self.rows), whole(self.cols), np.stack(both, -1)
        return g[..., None] * root, [
            row,
            col,
            (row + 1e-8) ** -0.5,
            (col + 1e-8) ** -0.5,
            self.momenta * root,
        ]

    def _network(self, x: np.ndarray) -> np.ndarray:
        num_layers = len(self.weights) // 2
        for i in range(num_layers):
            weight = self.weights[f"w{i}"]
            x = x @ weight[: x.shape[-1]] + self.weights[f"b{i}"]  # a vector's features are the first 15
            x = np.maximum(x, 0.0) if i < num_layers - 1 else x
        return x


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """Returns the matrix after five iterations, by its singular values: each goes through the polynomial."""
    a, b, c = COEFFICIENTS
    u, s, v = np.linalg.svd(matrix / (np.linalg.norm(matrix) + 1e-8), full_matrices=False)
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ v
