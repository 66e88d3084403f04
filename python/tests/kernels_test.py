# SPDX-License-Identifier: MIT
"""zmlx.kernels has what the registry has, with the signatures of the stubs."""

import importlib
import inspect
import sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import zmlx
from zmlx import kernels
from zmlx.kernels import activations, loss, norms, softmax, transformer

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
import make_stubs

FUNCTIONS = [(m, n) for m in kernels.__all__ for n in getattr(kernels, m).__all__]


def normal(*shape, dtype=mx.float32, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)


def close(got, want, tolerance=1e-5):
    got, want = (np.array(a.astype(mx.float32), np.float64) for a in (got, want))
    assert got.shape == want.shape
    assert np.allclose(got, want, atol=tolerance, rtol=tolerance)


def test_stubs_are_what_the_library_has():
    pytest.importorskip("nanobind")
    assert make_stubs.stale(TOOLS.parent / "python" / "zmlx") == []


def test_modules_import_by_path():
    assert importlib.import_module("zmlx.kernels.norms") is zmlx.kernels.norms


@pytest.mark.parametrize("module, name", FUNCTIONS)
def test_every_function_says_what_it_takes_and_gives(module, name):
    function = getattr(getattr(kernels, module), name)
    assert function.__name__ == name
    assert function.__module__ == f"zmlx.kernels.{module}"
    for parameter in inspect.signature(function).parameters:
        assert parameter in function.__doc__ or parameter in (
            "threadgroup",
            "compute_dtype",
            "compute_dtype_key",
            "streaming",
            "kahan",
        )


def test_signatures_are_the_reference_s():
    def text(function):
        return str(inspect.signature(function))

    row = "*, threadgroup=256, compute_dtype=None)"
    assert text(norms.rmsnorm) == f"(x, weight, *, eps=1e-06, {row[3:]}"
    assert text(softmax.softmax_lastdim) == f"(x, {row}"
    assert text(transformer.dropout) == f"(x, p, seed=0, {row}"
    assert text(activations.elu) == "(alpha=1.0, *, compute_dtype_key='float32')"


@pytest.mark.parametrize(
    "name, reference",
    [
        ("exp", mx.exp),
        ("silu", nn.silu),
        ("mish", nn.mish),
        ("gelu_tanh", nn.gelu_approx),
        ("softplus", nn.softplus),
        ("relu2_grad", nn.relu2),
    ],
)
def test_activations_are_factories_of_differentiable_functions(name, reference):
    factory = getattr(activations, name)
    assert factory() is factory()
    x = normal(3, 65)
    close(factory()(x), reference(x))
    slope = mx.grad(lambda f, x: f(x).sum(), argnums=1)
    close(slope(factory(), x), slope(reference, x), 1e-4)


def test_a_factory_takes_its_parameter():
    x = normal(33)
    close(activations.elu(0.5)(x), nn.elu(x, 0.5))
    close(activations.elu_grad(alpha=2.0)(x), nn.elu(x, 2.0))


ROWS = [
    (
        lambda x, w: norms.rmsnorm(x, w, eps=1e-5),
        lambda x, w: mx.fast.rms_norm(x, w, 1e-5),
    ),
    (
        lambda x, w: norms.layernorm(x, w, w),
        lambda x, w: mx.fast.layer_norm(x, w, w, 1e-5),
    ),
    (
        lambda x, w: softmax.softmax_lastdim(x * w),
        lambda x, w: mx.softmax(x * w, axis=-1),
    ),
    (
        lambda x, w: transformer.swiglu2(x, w + x),
        lambda x, w: nn.silu(x) * (w + x),
    ),
    (
        lambda x, w: norms.add_rms_norm(x, x, w)[0],
        lambda x, w: mx.fast.rms_norm(x + x, w, 1e-6),
    ),
]


@pytest.mark.parametrize("ours, stock", ROWS)
def test_kernels_agree_with_mlx_under_every_transformation(ours, stock):
    x, w = normal(4, 37), normal(37, seed=1)
    close(ours(x, w), stock(x, w))
    close(mx.compile(ours)(x, w), stock(x, w))
    close(mx.vmap(ours, (0, None))(x, w), stock(x, w))
    g = normal(4, 37, seed=2)
    mine = mx.grad(lambda x, w: (ours(x, w) * g).sum(), argnums=(0, 1))(x, w)
    want = mx.grad(lambda x, w: (stock(x, w) * g).sum(), argnums=(0, 1))(x, w)
    for got, wanted in zip(mine, want, strict=True):
        close(got, wanted, 1e-4)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_results_keep_the_type_of_the_input(dtype):
    x, w = normal(4, 37, dtype=dtype), normal(37, dtype=dtype)
    got = norms.rmsnorm(x, w)
    assert got.dtype == dtype
    want = mx.fast.rms_norm(x.astype(mx.float32), w.astype(mx.float32), 1e-6)
    close(got, want, 1e-2)


def test_cross_entropy_is_one_value_a_row():
    logits, targets = normal(5, 9), mx.array([0, 8, 3, 3, 1])
    got = loss.softmax_cross_entropy(logits, targets)
    close(got, nn.losses.cross_entropy(logits, targets))


def test_what_a_function_cannot_take_is_an_error_of_one_line():
    x, w = normal(2, 4), normal(4)
    for bad in (0, 3, 2048, "many"):
        with pytest.raises(ValueError, match=r"threadgroup must be a power of two"):
            norms.rmsnorm(x, w, threadgroup=bad)
    with pytest.raises(ValueError, match=r"compute_dtype_key must be 'float32'"):
        activations.exp(compute_dtype_key="float64")
    with pytest.raises(TypeError, match=r"\[rms_norm\] weight must be an mx.array"):
        norms.rmsnorm(x, [1.0])
    with pytest.raises(TypeError, match=r"\[rms_norm\] eps must be a number, got str"):
        norms.rmsnorm(x, w, eps="small")
    with pytest.raises(ValueError, match=r"\[rms_norm\] weight must have the shape"):
        norms.rmsnorm(x, normal(5))


def test_a_type_to_compute_in_is_accepted_and_warned_of():
    x, w = normal(2, 4), normal(4)
    with pytest.warns(DeprecationWarning, match="compute_dtype has no effect"):
        got = norms.rmsnorm(x, w, threadgroup=64, compute_dtype=mx.float16)
    assert got.dtype == mx.float32


def test_gating_takes_a_bias_or_none():
    x = normal(5, 40)
    weights, experts = kernels.moe.topk_gating_softmax(x, 3)
    chosen = mx.argsort(-x, axis=-1)[:, :3]
    assert mx.array_equal(experts, chosen)
    close(weights, mx.softmax(mx.take_along_axis(x, chosen, -1), axis=-1))
    bias = mx.zeros((40,)).at[mx.array([7])].add(mx.array(1.0))
    weights, experts = kernels.moe.topk_gating_softmax(
        x, 1, expert_bias=bias, norm_topk_prob=False
    )
    assert (experts == 7).all()
    close(weights[:, 0], mx.softmax(x, axis=-1)[:, 7] + 1)


def test_what_the_reference_takes_to_no_effect_is_taken():
    x = normal(2, 3, 8)
    gate, chosen = mx.ones((2, 3)), mx.zeros((2, 3), mx.uint32)
    combine = kernels.moe.gather_qmm_combine
    one = combine(x, normal(4, 8, 5), gate, chosen, streaming=True)
    close(one, combine(x, normal(4, 8, 5), gate, chosen))
    with pytest.warns(DeprecationWarning, match="compute_dtype has no effect"):
        kernels.fused.add_bias(c=9, compute_dtype=mx.float16)


def test_fused_functions_are_factories_of_two_arrays():
    x, bias = normal(3, 9), normal(9, seed=1)
    close(kernels.fused.bias_silu(c=9)(x, bias), nn.silu(x + bias))
    close(kernels.fused.silu_mul_grad()(x, x), nn.silu(x) * x)
