# SPDX-License-Identifier: MIT
"""Checking, timing, tuning, devices and layers of the package."""

import json

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

import zmlx
from zmlx import autotune, bench, device, metal, profile, testing
from zmlx.device_profile import (
    get_device_profile,
    get_threadgroup_candidates_for_shape,
)


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


def close(got, want, tolerance=1e-5):
    got, want = np.array(got, np.float64), np.array(want, np.float64)
    assert got.shape == want.shape
    assert np.allclose(got, want, atol=tolerance, rtol=tolerance)


def test_assert_matches_says_what_differs():
    shapes = [(3, 5), (7,)]
    testing.assert_matches(mx.exp, mx.exp, shapes, dtypes=[mx.float32, mx.bfloat16])
    testing.assert_matches(lambda a, b: [a, b], lambda a, b: [a, b], shapes, n_inputs=2)
    nan = lambda x: mx.where(x > 0, x, float("nan"))  # noqa: E731
    testing.assert_matches(nan, nan, shapes)
    for wrong, what in [
        (lambda x: x + 1e-3, r"Value mismatch for shape \(3, 5\).*max abs diff 0.001"),
        (lambda x: x[..., :1], "Shape mismatch"),
        (lambda x: [x, x], "got 2 outputs, must be 1"),
        (lambda x: x.astype(mx.float16), "Type mismatch"),
        (lambda x: mx.where(x > 0, x, float("inf")), "max abs diff inf"),
    ]:
        with pytest.raises(AssertionError, match=what):
            testing.assert_matches(wrong, lambda x: x, shapes)
    with pytest.raises(AssertionError, match="Value mismatch"):
        testing.assert_matches(lambda x: x, nan, shapes)
    with pytest.raises(ValueError, match="shapes must name at least one"):
        testing.assert_matches(mx.exp, mx.exp, [])
    with pytest.raises(TypeError, match="a function must be given, got int"):
        testing.assert_matches(3, mx.exp, shapes)


def test_assert_gradient_matches_looks_at_every_input():
    testing.assert_gradient_matches(
        lambda a, b: a * b, lambda a, b: b * a, [(4, 3)], n_inputs=2
    )

    @mx.custom_function
    def wrong(a, b):
        return a * b

    @wrong.vjp
    def wrong_vjp(primals, cotangent, _):
        return cotangent * primals[1], cotangent

    with pytest.raises(AssertionError, match="of gradient 1"):
        testing.assert_gradient_matches(wrong, lambda a, b: a * b, [(4, 3)], n_inputs=2)


def test_compare_checks_then_times_and_prints(capsys):
    rows = bench.compare(
        {"MLX": mx.exp, "zmlx": zmlx.elementwise("exp(x)")},
        [(16, 16), (3,)],
        warmup=1,
        iters=3,
    )
    assert [(row["shape"], row["dtype"]) for row in rows] == [
        (shape, dtype) for shape in [(16, 16), (3,)] for dtype in ("float32", "float16")
    ]
    for row in rows:
        assert row["speedup"] == row["MLX_us"] / row["zmlx_us"] and "failure" not in row
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["Shape", "Dtype", "MLX", "zmlx", "Speedup"]


def test_compare_times_nothing_that_is_wrong(capsys):
    def throws(x):
        raise RuntimeError("no device")

    sides = {"a": mx.exp, "wrong": mx.sin, "throws": throws}
    (row,) = bench.compare(sides, [(4,)], dtypes=[mx.float32], warmup=0, iters=1)
    assert row["a_us"] > 0 and np.isnan(row["wrong_us"]) and np.isnan(row["throws_us"])
    out = capsys.readouterr().out
    assert "ERR" in out and "WARNING" in out and "no device" in out
    with pytest.raises(ValueError, match="must not be empty"):
        bench.compare({}, [(4,)])


DOUBLE = """
uint i = thread_position_in_grid.x;
threadgroup float kept[TG];
kept[thread_position_in_threadgroup.x] = x[i];
out[i] = 2 * kept[thread_position_in_threadgroup.x];
"""


def double():
    return metal.kernel(
        name="double_it", input_names=["x"], output_names=["out"], source=DOUBLE
    )


def test_tuning_finds_a_configuration_that_is_right():
    x = normal(4096)
    tuned = autotune.autotune_kernel(
        double(),
        inputs=[x],
        grid=lambda threadgroup: (4096, 1, 1),
        # Too small for 256 threads: out of its array, or a wrong result.
        template_candidates=[[("TG", 256)]],
        threadgroup_candidates=[64, (256, 1, 1), 2048],
        warmup=1,
        iters=2,
    )
    assert len(tuned.timings_ms) == 2 and tuned.best_config in tuned.timings_ms
    assert tuned.best_config.threadgroup in [(64, 1, 1), (256, 1, 1)]
    assert all(value > 0 for value in tuned.timings_ms.values())
    (y,) = double()(
        x,
        template=list(tuned.best_config.template),
        threadgroup=tuned.best_config.threadgroup,
    )
    close(y, 2 * x)


def test_tuning_reports_failures_and_never_swallows_them():
    with pytest.raises(zmlx.BackendError, match="double_it"):
        autotune.autotune_threadgroup(
            double(), inputs=[normal(64)], grid=64, candidates=[32], warmup=0, iters=1
        )
    with pytest.raises(ValueError, match="at most 1024 threads"):
        autotune.autotune_threadgroup(
            double(), inputs=[normal(64)], grid=64, candidates=[2048]
        )


def test_configurations_are_remembered_and_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("ZMLX_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(autotune, "_found", {})
    options = {
        "inputs": [normal(256)],
        "grid": 256,
        "template_candidates": [[("TG", 256)]],
        "threadgroup_candidates": [32, 64],
    }
    best = autotune.get_autotuned_config(double(), **options, warmup=0, iters=1)
    assert autotune.save_autotune_cache() == 1
    content = json.loads((tmp_path / "autotune_v3.json").read_text())
    assert content["schema_version"] == "3.0"
    monkeypatch.setattr(autotune, "_found", {})
    monkeypatch.setattr(autotune, "autotune_kernel", None)  # must not be called
    assert autotune.load_autotune_cache() == 1
    assert autotune.get_autotuned_config(double(), **options) == best
    (tmp_path / "autotune_v3.json").write_text("{ damaged")
    assert autotune.load_autotune_cache() == 0


def test_the_decorator_measures_once_for_each_shape():
    calls = []

    @zmlx.autotune(threadgroups=[32, 64], warmup=1, iters=2)
    def scaled(x, *, threadgroup=256):
        calls.append(threadgroup)
        return x * 2

    x = normal(8)
    close(scaled(x), 2 * x)
    assert set(calls) == {32, 64}
    measured = len(calls)
    scaled(x)
    assert len(calls) == measured + 1
    scaled(x, threadgroup=7)
    assert calls[-1] == 7
    with pytest.raises(ValueError, match="must take threadgroup"):
        zmlx.autotune(lambda x: x)


def test_times_and_memory_of_a_call():
    x = normal(64, 64)
    timing = profile.time_kernel(mx.exp, x, warmup=1, iters=5)
    assert timing["iters"] == 5
    assert 0 < timing["min_us"] <= timing["median_us"] <= timing["max_us"]
    memory = profile.memory_usage(mx.exp, x)
    assert memory["input_bytes"] == memory["output_bytes"] == x.nbytes
    assert memory["total_bytes"] == 2 * x.nbytes


def test_bottlenecks_count_the_raw_kernels_of_a_call(capsys):
    def many(x):
        for _ in range(3):
            (x,) = double()(x, template=[("TG", 64)], threadgroup=(64, 1, 1))
        return x

    result = profile.analyze_bottlenecks(many, normal(64))
    assert result["kernels"] == {"double_it": 3}
    assert "kernel double_it: 3 runs" in capsys.readouterr().out
    assert any(row["name"] == "double_it" for row in profile.kernel_stats())
    assert DOUBLE in profile.dump_msl(double())
    with pytest.raises(TypeError, match="raw kernel or jit function"):
        profile.dump_msl(3)


def test_chips_are_told_apart():
    assert device.parse_chip("Apple M4 Max") == ("M4", "Max")
    assert device.parse_chip("Apple M1") == ("M1", "")
    assert device.parse_chip("Apple M5 Pro") == ("M5", "Pro")
    assert device.parse_chip("AMD EPYC") == ("Unknown", "")
    assert get_device_profile("M4", "Max").bandwidth_gb_s == 546
    assert get_device_profile("M9").family == "M1"
    largest = get_device_profile("M3", "Ultra")
    assert largest.threadgroup_candidates == (256, 512, 1024)
    assert get_threadgroup_candidates_for_shape(largest, 300, "reduction") == [256, 512]
    assert get_threadgroup_candidates_for_shape(largest, 16, "simd") == [32]
    here = device.detect_device()
    assert here.backend in ("metal", "cuda", "cpu") and here.name
    from zmlx import _compat

    assert _compat.detect_backend() == here.backend and _compat.is_supported_host()


def test_the_registry_has_every_kernel():
    from zmlx.kernels import norms

    registry = zmlx.registry.GLOBAL_REGISTRY
    assert registry.get("norms.rmsnorm").function is norms.rmsnorm
    assert "differentiable" in registry.get("norms.rmsnorm").tags
    assert len(registry) == len(registry.list()) > 40
    with pytest.raises(KeyError, match="no kernel 'nothing'"):
        registry.get("nothing")
    with pytest.raises(ValueError, match="names must be unique"):
        registry.register(registry.get("norms.rmsnorm"))


@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2), (6, 1)])
def test_paged_attention_is_attention_over_the_pages(heads, kv_heads):
    layer = zmlx.nn.PagedAttention(heads, kv_heads, 8)
    q = normal(3, heads, 8)
    keys, values = normal(7, 4, kv_heads, 8, seed=1), normal(7, 4, kv_heads, 8, seed=2)
    # A block that nobody reads may hold anything.
    values[6] = float("nan")
    table = mx.array([[0, 5, 6], [3, 6, 6], [6, 6, 6]])
    lengths = mx.array([7, 2, 0])
    got = layer(q, keys, values, table, lengths)
    for batch, length in enumerate([7, 2]):
        pages = [int(each) for each in table[batch]]
        k = mx.concatenate([keys[p] for p in pages])[:length]
        v = mx.concatenate([values[p] for p in pages])[:length]
        for head in range(heads):
            group = head // (heads // kv_heads)
            scores = mx.softmax(k[:, group] @ q[batch, head] * 8**-0.5)
            close(got[batch, head], scores @ v[:, group])
    close(got[2], mx.zeros((heads, 8)))
    with pytest.raises(ValueError, match="q must have shape"):
        layer(normal(3, heads, 9), keys, values, table, lengths)


def test_experts_are_chosen_by_the_gate_and_get_gradients():
    mx.random.seed(0)
    experts = [nn.Linear(6, 6) for _ in range(5)]
    layer = zmlx.nn.MoE(nn.Linear(6, 5), experts)
    x = normal(7, 6)
    logits = np.array(layer.gate(x))
    want = np.zeros((7, 6))
    for row in range(7):
        best = np.argsort(-logits[row])[:2]
        weights = np.exp(logits[row, best]) / np.exp(logits[row, best]).sum()
        for weight, expert in zip(weights, best, strict=True):
            want[row] += weight * np.array(experts[expert](x[row]))
    close(layer(x), want)
    grads = nn.value_and_grad(layer, lambda x: layer(x).sum())(x)[1]
    assert mx.abs(grads["gate"]["weight"]).sum().item() > 0


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("correction", [False, True])
def test_adamw_takes_the_steps_of_mlx(dtype, correction):
    def run(kind):
        mx.random.seed(1)
        model = nn.Linear(9, 4)
        model.set_dtype(dtype)
        schedule = optim.linear_schedule(1e-2, 1e-3, 10)
        optimizer = kind(schedule, weight_decay=0.1, bias_correction=correction)
        x, y = normal(5, 9).astype(dtype), normal(5, 4, seed=1).astype(dtype)
        for _ in range(5):
            loss = nn.value_and_grad(
                model, lambda x, y: nn.losses.mse_loss(model(x), y)
            )
            optimizer.update(model, loss(x, y)[1])
        return model, optimizer

    (ours, a), (theirs, b) = run(zmlx.optimizers.AdamW), run(optim.AdamW)
    assert a.step.item() == b.step.item() == 5
    assert ours.weight.dtype == dtype
    tolerance = 1e-5 if dtype == mx.float32 else 2e-2
    for got, want in [(ours.weight, theirs.weight), (ours.bias, theirs.bias)]:
        close(got.astype(mx.float32), want.astype(mx.float32), tolerance)
