"""Metz et al. 2020, App. C, in float64 and one tensor after the other: what `rnn_mlp` must be.

Written from the paper's pseudo-code; the constructor's constants are where the published network differs from it.
Nothing is shared with the package but the layout of theta.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# Both take 1 − β from the rounded decay: for 0.9999 that matters in the fourth digit.
DECAYS = np.asarray([0.5, 0.9, 0.99, 0.999, 0.9999], np.float32)
NEW_SHARES = (np.float32(1.0) - DECAYS).astype(np.float64)
TIME_SCALES = np.asarray([1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000, 100000])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def clip_log_abs(x: Any) -> float:
    return float(np.clip(np.log(1e-8 + abs(x)), -5.0, 5.0))


def linear(weights: Any, x: np.ndarray) -> np.ndarray:
    return x @ weights["w"] + weights["b"]


def as_float64(theta: Any) -> Any:
    return {k: as_float64(v) for k, v in theta.items()} if isinstance(theta, dict) else np.float64(theta)


class LossAccum:
    """App. C.2.2."""

    def __init__(self, decay: float):
        self.decay, self.mean, self.var, self.updates = decay, 0.0, 0.0, 0

    def add(self, loss: float) -> None:
        self.mean = self.decay * self.mean + (1 - self.decay) * loss
        self.var = self.decay * self.var + (1 - self.decay) * (self.mean - loss) ** 2
        self.updates += 1

    def corrected(self, value: float) -> float:
        return value / (1 - self.decay**self.updates) if self.updates else 0.0

    def weight(self, loss: float) -> float:
        deviation = (loss - self.corrected(self.mean)) / math.sqrt(self.corrected(self.var) + 1e-8)
        return min(max(deviation, -5.0), 5.0)


class Reference:
    """One run on a list of tensors."""

    def __init__(
        self,
        theta: Any,
        params: list[Any],
        *,
        loss_decays: tuple[float, float],
        clip: tuple[float, float],
        feature_bound: float | None,
        epsilon: float,
        counts_validation: bool,
    ):
        self.theta = as_float64(theta)
        self.params = [np.asarray(p, np.float64) for p in params]
        self.ms = [np.zeros((*p.shape, len(DECAYS))) for p in self.params]
        self.rms = [np.zeros_like(m) for m in self.ms]
        n = len(params)
        self.hidden = np.repeat(self.theta["lstm_init"]["hidden"], n, axis=0)
        self.cell = np.repeat(self.theta["lstm_init"]["cell"], n, axis=0)
        self.from_lstm = self.theta["from_lstm_init"]
        self.from_mlp = [self.theta["from_mlp_init"]] * n
        self.train, self.valid = LossAccum(loss_decays[0]), LossAccum(loss_decays[1])
        self.alpha, self.clip_mult = clip
        self.snd, self.clip_step = 1.0 - self.alpha, 1
        self.feature_bound, self.epsilon, self.counts_validation = feature_bound, epsilon, counts_validation
        self.training_step = 0

    def step(self, grads: list[Any], loss: float, valid_loss: float | None = None) -> list[np.ndarray]:
        """Moves the parameters; returns the updates."""
        if valid_loss is not None:
            self.valid.add(valid_loss)
            self.training_step += self.counts_validation
        self.train.add(loss)
        bound = self.snd / (1 - self.alpha**self.clip_step) * self.clip_mult
        grads = [np.clip(np.asarray(g, np.float64), -bound, bound) for g in grads]
        size = math.sqrt(1e-8 + np.mean([np.mean(g**2) for g in grads]))
        self.snd, self.clip_step = self.snd * self.alpha + size * (1 - self.alpha), self.clip_step + 1
        for i, g in enumerate(grads):
            self.ms[i] = self.ms[i] * DECAYS + NEW_SHARES * g[..., None]
            self.rms[i] = self.rms[i] * DECAYS + NEW_SHARES * g[..., None] ** 2
        inputs = np.stack([self.tensor_features(i, g, loss) for i, g in enumerate(grads)])
        gates = linear(self.theta["lstm"], np.concatenate([inputs, self.hidden], axis=1))
        i_gate, g_gate, f_gate, o_gate = np.split(gates, 4, axis=1)
        self.cell = sigmoid(f_gate + 1) * self.cell + sigmoid(i_gate) * np.tanh(g_gate)
        self.hidden = sigmoid(o_gate) * np.tanh(self.cell)
        ff_inputs = linear(self.theta["lstm_to_mlp"], self.hidden)
        self.from_lstm = linear(self.theta["lstm_to_lstm"], self.hidden).mean(axis=0)
        updates = []
        for i, g in enumerate(grads):
            out = self.mlp(self.parameter_features(i, g, ff_inputs[i]))
            step = out[:, 0] * np.exp(out[:, 1] * 0.001) * 0.001
            updates.append(-step.reshape(self.params[i].shape))
            self.from_mlp[i] = out[:, 2:].mean(axis=0)
        self.params = [p + u for p, u in zip(self.params, updates, strict=True)]
        self.training_step += 1
        return updates

    def tensor_features(self, i: int, grad: np.ndarray, loss: float) -> np.ndarray:
        param, ms, rms = self.params[i], self.ms[i], self.rms[i]
        shape = [*param.shape, 1, 1, 1, 1][:4]
        return np.concatenate(
            [
                self.from_lstm,
                self.from_mlp[i],
                [clip_log_abs(np.linalg.norm(grad.ravel())), 1.0 if param.ndim == 0 else -1.0],
                [clip_log_abs(ms.mean()), np.sign(ms.mean()), clip_log_abs(rms.mean()), np.sign(rms.mean())],
                [
                    clip_log_abs(param.mean()),
                    np.sign(param.mean()),
                    clip_log_abs(np.linalg.norm(param.ravel())),
                ],
                np.log(shape) - 1.0,
                [
                    self.train.weight(loss),
                    self.train.weight(self.valid.corrected(self.valid.mean)),
                ],
                [clip_log_abs(ms.var()), clip_log_abs(rms.var()), clip_log_abs(param.var())],
            ]
        )

    def parameter_features(self, i: int, grad: np.ndarray, ff_inputs: np.ndarray) -> np.ndarray:
        param = self.params[i].reshape(-1, 1)
        m, v = self.ms[i].reshape(-1, len(DECAYS)), self.rms[i].reshape(-1, len(DECAYS))
        rsqrt = 1.0 / np.sqrt(v + 1e-6)
        own = [grad.reshape(-1, 1), param, np.log(np.abs(param) + 1e-8), m, v, m * rsqrt, rsqrt]
        x = np.concatenate(own, axis=1)
        x = x / np.sqrt(self.epsilon + np.mean(x**2, axis=0, keepdims=True))
        if self.feature_bound is not None:
            x = np.clip(0.5 * x, -self.feature_bound, self.feature_bound)
        log_norm = math.log(np.linalg.norm(param) + 1e-8)
        told = [math.log(len(self.params)) - 1.0, log_norm, math.log(param.size)]
        shared = np.concatenate([np.sin(self.training_step / (TIME_SCALES * math.pi)), told, ff_inputs])
        return np.concatenate([x, np.repeat(shared[None], len(x), axis=0)], axis=1)

    def mlp(self, x: np.ndarray) -> np.ndarray:
        network = self.theta["network"]
        last = len(network) // 2 - 1
        for j in range(last + 1):
            x = x @ network[f"w{j}"] + network[f"b{j}"]
            x = np.maximum(x, 0.0) if j < last else x
        return x
