# SPDX-License-Identifier: MIT
"""mlx.optimizers.AdamW whose update is three fused kernels."""

import functools

import mlx.core as mx
import mlx.optimizers as optim

from zmlx import elementwise


@functools.cache
def _kernels():
    def make(name, expr, *names):
        return elementwise.map(name=name, expr=expr, input_names=list(names))

    return (
        make("adamw_m", "b * m + (1.0f - b) * g", "m", "g", "b"),
        make("adamw_v", "b * v + (1.0f - b) * g * g", "v", "g", "b"),
        make(
            "adamw_p",
            "p * (1.0f - lr * wd) - step * m / (sqrt(v) * root + eps)",
            *("p", "m", "v", "lr", "wd", "step", "root", "eps"),
        ),
    )


class AdamW(optim.AdamW):
    """The same numbers as mlx.optimizers.AdamW, up to rounding."""

    def apply_single(self, gradient, parameter, state):
        if parameter.dtype == mx.complex64:
            return super().apply_single(gradient, parameter, state)
        first, second, update = _kernels()
        b1, b2 = self.betas
        rate = self.learning_rate.astype(mx.float32)
        m = first(state["m"], gradient, mx.array(b1)).astype(state["m"].dtype)
        v = second(state["v"], gradient, mx.array(b2)).astype(state["v"].dtype)
        state["m"], state["v"] = m, v
        scale, root = rate, mx.array(1.0)
        if self.bias_correction:
            step = self.step.astype(mx.float32)
            scale = rate / (1 - b1**step)
            root = mx.rsqrt(1 - b2**step)
        decay = mx.array(float(self.weight_decay))
        eps = mx.array(float(self.eps))
        result = update(parameter, m, v, rate, decay, scale, root, eps)
        return result.astype(parameter.dtype)
