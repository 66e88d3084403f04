# SPDX-License-Identifier: MIT
"""Float32 master weights, and the bf16 (or fake-quantised) copies a model runs on."""

import torch

GROUP = 64


def fake_quantize(weights: torch.Tensor, bits: int) -> torch.Tensor:
    """What mx.quantize and mx.dequantize make of a flat vector, bit for bit.

    weights: (n,) float32, n a multiple of 64, rounded to bf16 first as in the
    saved checkpoint. Affine, group 64: 2**bits levels between the group's ends,
    moved so that the end further from zero and zero itself are levels.
    """
    groups = weights.bfloat16().float().view(-1, GROUP)
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    levels = 2**bits - 1
    scale = ((high - low) / levels).clamp_min(1e-7)
    low_is_further = low.abs() > high.abs()
    scale = torch.where(low_is_further, scale, -scale)
    edge = torch.where(low_is_further, low, high)
    zero_at = torch.round(edge / scale)
    at_zero = zero_at == 0
    scale = torch.where(at_zero, scale, edge / torch.where(at_zero, 1.0, zero_at))
    bias = torch.where(at_zero, 0.0, edge)
    codes = torch.round((groups - bias) / scale).clamp(0, levels)
    # The file holds scale and bias in bf16.
    values = codes * scale.bfloat16().float() + bias.bfloat16().float()
    return values.view(-1)


class FlatWeights:
    """One kind of weights: a float32 master vector and the model's bf16 views.

    The model computes on the copy; its gradient is applied to the master. With
    a fake-quantised copy that is the straight-through estimator.
    """

    def __init__(self, params: list[torch.nn.Parameter], bits: int | None):
        self.bits = bits
        self.master = torch.nn.Parameter(
            torch.cat([p.detach().float().reshape(-1) for p in params])
        )
        self.copy = self.master.detach().bfloat16()
        self.grad = torch.zeros_like(self.copy)
        offset = 0
        for p in params:
            end = offset + p.numel()
            p.data = self.copy[offset:end].view(p.shape)
            p.grad = self.grad[offset:end].view(p.shape)
            offset = end

    @torch.no_grad()
    def refresh(self, quantized: bool) -> None:
        """Rewrites the model's copy from the master."""
        if quantized and self.bits:
            self.copy.copy_(fake_quantize(self.master, self.bits))
        else:
            self.copy.copy_(self.master)

    @torch.no_grad()
    def take_gradient(self) -> torch.Tensor:
        """Moves the copy's gradient to the master; returns its squared norm."""
        self.master.grad = self.grad.float()
        self.grad.zero_()
        return self.master.grad.square().sum()


def flatten(model: torch.nn.Module) -> list[FlatWeights]:
    """Splits a model as mlx_lm quantises it: 4 bit, the router 8 bit, the rest none."""
    kinds: dict[int | None, list[torch.nn.Parameter]] = {4: [], 8: [], None: []}
    for name, p in model.named_parameters():
        if p.ndim < 2 or name.endswith("conv.conv.weight"):
            kinds[None].append(p)
        elif p.shape[-1] % GROUP:
            raise ValueError(f"{name} has {p.shape[-1]} inputs, not n * {GROUP}")
        else:
            kinds[8 if name.endswith("feed_forward.gate.weight") else 4].append(p)
    return [FlatWeights(params, bits) for bits, params in kinds.items()]
