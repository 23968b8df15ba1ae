"""Wichrowska et al. 2017, Eq. 1 to 13, in float64 and one tensor after the other: what `hierarchical_gru` must be.

Written from the paper, for the features that are on by default; nothing is shared with the package but the layout
of theta.
"""

from __future__ import annotations

from typing import Any

import numpy as np

NUM_SCALES = 4


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def gru(weights: Any, x: np.ndarray, h: np.ndarray, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """One step for rows of inputs x [n, in] and states h [n, size]."""
    size = h.shape[1]
    w, b = weights["w"], weights["b"] + bias
    gates = sigmoid(np.concatenate([x, h], 1) @ w[:, : 2 * size] + b[..., : 2 * size])
    reset, update = gates[:, :size], gates[:, size:]
    candidate = np.tanh(np.concatenate([x, reset * h], 1) @ w[:, 2 * size :] + b[..., 2 * size :])
    return update * h + (1 - update) * candidate


class Reference:
    """One run. `params` are vectors; `log_steps` are the initial η, given from outside as they are random."""

    def __init__(self, theta: Any, params: list[np.ndarray], log_steps: list[np.ndarray]):
        self.theta = theta
        self.params = [np.asarray(p, np.float64) for p in params]
        self.offsets = [np.zeros_like(p) for p in self.params]
        start = theta["initial_hidden"]
        self.global_hidden = start["global"][None]
        self.tensors = [
            {
                "hidden": np.tile(start["parameter"], (p.size, 1)),
                "tensor": start["tensor"][None],
                "average": np.zeros((NUM_SCALES, p.size)),
                "square": np.zeros((NUM_SCALES, p.size)),
                "input_decay": np.zeros(p.size),
                "scale_decay": np.zeros(p.size),
                "eta": np.asarray(eta, np.float64),
                "eta_bar": np.asarray(eta, np.float64),
            }
            for p, eta in zip(self.params, log_steps, strict=True)
        ]

    def attended(self) -> list[np.ndarray]:
        """Where the next gradient belongs."""
        return [p + o for p, o in zip(self.params, self.offsets, strict=True)]

    def update(self, grads: list[np.ndarray]) -> None:
        """Makes one update."""
        mean_eta = np.mean(np.concatenate([t["eta"] for t in self.tensors]))
        bias = self.global_hidden @ self.theta["global_to_tensor"]
        for i, (tensor, grad) in enumerate(zip(self.tensors, grads, strict=True)):
            inputs = self._run_parameters(i, tensor, np.asarray(grad, np.float64), mean_eta)
            seen = np.concatenate([tensor["hidden"].mean(0), inputs.mean(0)])[None]
            tensor["next"] = gru(self.theta["tensor"], seen, tensor["tensor"], bias)
        for tensor in self.tensors:
            tensor["tensor"] = tensor.pop("next")
        mean = np.mean([t["tensor"] for t in self.tensors], axis=0)
        self.global_hidden = gru(self.theta["global"], mean, self.global_hidden)

    def _run_parameters(
        self, i: int, tensor: dict[str, Any], grad: np.ndarray, mean_eta: float
    ) -> np.ndarray:
        theta, scaled, logs = self.theta, [], []
        for s in range(NUM_SCALES):
            beta, beta_square = tensor["input_decay"] ** 2.0**-s, tensor["scale_decay"] ** 2.0**-s
            tensor["average"][s] = tensor["average"][s] * beta + grad * (1 - beta)
            tensor["square"][s] = tensor["square"][s] * beta_square + tensor["average"][s] ** 2 * (
                1 - beta_square
            )
            floored = np.maximum(tensor["square"][s], 1e-30)
            scaled.append(tensor["average"][s] / np.sqrt(floored))
            logs.append(np.log(floored))
        relative = [log - np.mean(logs, axis=0) for log in logs]
        inputs = np.stack([*scaled, *relative, tensor["eta"] - mean_eta], axis=1)
        bias = (
            tensor["tensor"] @ theta["tensor_to_parameter"]
            + self.global_hidden @ theta["global_to_parameter"]
        )
        h = tensor["hidden"] = gru(theta["parameter"], inputs, tensor["hidden"], bias)
        for name in ("input_decay", "scale_decay"):
            tensor[name] = sigmoid(h @ theta["decays"][name]["w"] + theta["decays"][name]["b"])
        eta = tensor["eta_bar"] + h @ theta["log_step"]["w"] + theta["log_step"]["b"]
        gamma = sigmoid(theta["log_step_momentum"])
        tensor["eta"], tensor["eta_bar"] = eta, gamma * tensor["eta_bar"] + (1 - gamma) * eta
        steps = []
        for name, shift in (("direction", 0.0), ("attention", theta["attended_log_step_offset"])):
            d = h @ theta["directions"][name]
            steps.append(-np.exp(eta + shift) * d / np.sqrt(np.mean(d**2)))
        self.offsets[i] = steps[1] - steps[0]
        self.params[i] = self.params[i] + steps[0]
        return inputs
