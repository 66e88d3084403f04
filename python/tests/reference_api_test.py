# SPDX-License-Identifier: MIT
"""Every public name of ZMLX 0.7.12 takes what it took there.

The signatures below are the reference's, by name, order, kind and default. Ours may
take more, and by position what was by keyword; where a default differs on purpose,
docs/python.md says so.
"""

import enum
import importlib
import inspect
from dataclasses import fields, is_dataclass

import pytest

EXPRESSION = "compute_dtype=None, ensure_row_contiguous=True, header=''"
TUNING = "output_shapes=None, output_dtypes=None, warmup=3, iters=10"
MODULE_OF_FUNCTIONS = {
    "api": {
        "elementwise": "expr, *, name=None, grad_expr=None, compute_dtype=None,"
        " header=None, use_output=True, grad_prelude=''",
        "reduce": "*, init, update, finalize='acc', name=None, compute_dtype=None,"
        " header=None",
        "map_reduce": "*, pass1, pass2, write, name=None, threadgroup=256,"
        " compute_dtype=None, header=None",
        "jit": "fn",
        # There dtype='float16', which casts scales and router biases too.
        "load": "model_name, *, quantize=None, patch=True, patch_patterns=None,"
        " dtype=None, verbose=False",
        "lora": "model, *, r=16, alpha=16.0, dropout=0.0, target_modules=None,"
        " use_dora=False",
        "train": "model, tokenizer, dataset, *, iters=1000, batch_size=4,"
        " learning_rate=2e-4, output_dir='adapters', **kwargs",
        "generate": "model, tokenizer, prompt, *, max_tokens=256, temp=0.7",
    },
    "elementwise": {
        "unary": f"*, name, expr, {EXPRESSION}, cache=True",
        "binary": f"*, name, expr, {EXPRESSION}, cache=True",
        "map": f"*, name, expr, input_names, {EXPRESSION}, cache=True",
    },
    "autograd": {
        "unary_from_expr": "name, fwd_expr, vjp_expr, compute_dtype,"
        " ensure_row_contiguous=True, use_output=True, header='', vjp_prelude=''",
        "binary_from_expr": "name, fwd_expr, vjp_lhs_expr, vjp_rhs_expr,"
        " compute_dtype, ensure_row_contiguous=True, header='', vjp_prelude=''",
        "nary_from_expr": "name, fwd_source, bwd_source, input_names, output_names,"
        " compute_dtype, ensure_row_contiguous=True, header=''",
    },
    "metal": {
        "kernel": "name, input_names, output_names, source, header='',"
        " ensure_row_contiguous=True, atomic_outputs=False, cache=True",
    },
    "rowwise": {
        "map_reduce": "*, name, d, pass1_init, pass1_update, pass1_reduce,"
        " pass2_init, pass2_update, pass2_reduce, write_expr, input_names=('inp',),"
        " output_names=('out',), threadgroup=256, compute_dtype=None, header=''",
    },
    "codegen": {
        "elementwise_unary_source": "expr",
        "elementwise_binary_source": "expr",
        "rowwise_reduction_source": "*, init, update, finalize='acc'",
        "rowwise_parallel_reduction_source": "*, init, update, reduce",
        "rowwise_mapreduce_source": "*, pass1_init, pass1_update, pass1_reduce,"
        " pass2_init, pass2_update, pass2_reduce, write_expr",
    },
    "ir": {"ir_to_json": "node", "ir_from_json": "content"},
    "ir_build": {
        "build_kernel": "name, node, *, header=''",
        "build_differentiable": "name, node",
    },
    "autotune": {
        "autotune_kernel": "kernel, *, inputs, grid, template_candidates,"
        f" threadgroup_candidates, {TUNING}",
        "autotune_threadgroup": f"kernel, *, inputs, grid, candidates, {TUNING}",
        "get_autotuned_config": "kernel, *, inputs, grid, threadgroup_candidates,"
        f" {TUNING}",
        "autotune": "threadgroups=None, templates=None, warmup=3, iters=10,"
        " device_aware=True",
        "save_autotune_cache": "path=None",
        "load_autotune_cache": "path=None",
    },
    "testing": {
        "assert_matches": "kernel_fn, ref_fn, shapes, *, dtypes=None, atol=1e-5,"
        " rtol=1e-5, n_inputs=1, seed=42",
        "assert_gradient_matches": "kernel_fn, ref_fn, shapes, *, dtypes=None,"
        " atol=1e-4, rtol=1e-4, n_inputs=1, seed=42",
    },
    "bench": {
        "compare": "implementations, shapes, *, dtypes=None, n_inputs=1, warmup=5,"
        " iters=20, seed=42",
    },
    "profile": {
        "time_kernel": "fn, *args, warmup=5, iters=20",
        "memory_usage": "fn, *args",
        "dump_msl": "kernel",
        "kernel_stats": "",
        "analyze_bottlenecks": "fn, *args, verbose=True",
    },
    "registry": {"list_kernels": "", "clear_cache": "", "cache_size": ""},
    "device": {"detect_device": ""},
    "device_profile": {
        "get_device_profile": "family, variant=''",
        "get_threadgroup_candidates_for_shape": "profile, dim_size, kernel_type",
    },
    "nn": {
        "PagedAttention": "n_heads, n_kv_heads, head_dim, scale=None",
        "MoE": "gate, experts",
    },
    "optimizers": {
        "AdamW": "learning_rate, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.01",
    },
    "_compat": {
        "is_supported_host": "",
        "detect_backend": "",
        "has_gpu_backend": "",
        "is_metal_available": "",
    },
    "patch": {
        "patch": "model, *, mode=None, patterns=None, exclude=None,"
        " compute_dtype='float32', threadgroup=256,"
        " moe_fused_swiglu_max_tokens=None, verbose=False",
        "unpatch": "model",
        "smart_patch": "model, sample, *, patterns=None, exclude=None,"
        " threshold=0.995, warmup=3, iters=5, compute_dtype='float32',"
        " threadgroup=256, verbose=True, forward_fn=None",
        "list_patterns": "",
    },
    "train": {"train": "config"},
    "train.losses": {
        "fused_cross_entropy": "logits, targets, *, threadgroup=256,"
        " compute_dtype=None, reduction='mean'",
        "standard_cross_entropy": "logits, targets",
    },
}
ROW = "threadgroup=256, compute_dtype=None"
ACTIVATIONS = (
    "exp log tanh sigmoid relu relu2 silu gelu_tanh softplus mish exp_grad tanh_grad"
    " sigmoid_grad relu_grad relu2_grad silu_grad gelu_tanh_grad softplus_grad"
    " mish_grad"
)
FAMILIES = {
    "kernels.activations": {
        **dict.fromkeys(ACTIVATIONS.split(), "*, compute_dtype_key='float32'"),
        "elu": "alpha=1.0, *, compute_dtype_key='float32'",
        "elu_grad": "alpha=1.0, *, compute_dtype_key='float32'",
    },
    "kernels.softmax": {
        "softmax_lastdim": f"x, *, {ROW}",
        "log_softmax_lastdim": f"x, *, {ROW}",
        "softmax_grad": f"y, cotan, *, {ROW}",
    },
    "kernels.norms": {
        "rmsnorm": f"x, weight, *, eps=1e-6, {ROW}",
        "rmsnorm_grad": f"x, weight, cotan, *, eps=1e-6, {ROW}",
        "rms_norm_no_weight": f"x, *, eps=1e-6, {ROW}",
        "layer_norm_no_weight": f"x, *, eps=1e-5, {ROW}",
        "layernorm": f"x, gamma, beta, *, eps=1e-5, {ROW}",
        "layer_norm_dropout": f"x, gamma, beta, p, seed=0, *, eps=1e-5, {ROW}",
        "residual_rmsnorm": "x, residual, weight, *, eps=1e-6, threadgroup=256",
        "add_rms_norm": "x, residual, weight, *, eps=1e-6, threadgroup=256",
    },
    "kernels.transformer": {
        "swiglu": "x, *, compute_dtype=None",
        "geglu": "x, *, compute_dtype=None",
        "swiglu2": "gate, up, *, compute_dtype=None",
        "geglu2": "gate, up, *, compute_dtype=None",
        "bias_swiglu": "x, bias, *, compute_dtype=None",
        "bias_geglu": "x, bias, *, compute_dtype=None",
        "rmsnorm_residual": f"x, residual, weight, *, eps=1e-6, {ROW}",
        "fused_add_rmsnorm": f"x1, x2, weight, *, eps=1e-6, {ROW}",
        "layernorm_residual": f"x, residual, gamma, beta, *, eps=1e-5, {ROW}",
        "fused_add_layernorm": f"x1, x2, gamma, beta, *, eps=1e-5, {ROW}",
        "rms_norm_dropout": f"x, weight, p, seed=0, *, eps=1e-6, {ROW}",
        "dropout": "x, p, seed=0, *, compute_dtype=None",
    },
    "kernels.moe": {
        # There norm_topk_prob=None, which means True.
        "topk_gating_softmax": f"x, k=2, *, {ROW}, expert_bias=None, norm_topk_prob=1",
        "top2_gating_softmax": f"x, *, {ROW}",
        "moe_dispatch": "x, indices",
        "moe_combine": "expert_outputs, weights",
        "moe_combine_exact": "expert_outputs, weights",
        "moe_combine_fp32": "expert_outputs, weights",
        "gather_qmm_combine": "act, weights, gate, indices, *, streaming=None",
        "gather_qmm_combine_quantized": "act, weights, scales, biases, gate, indices,"
        " *, group_size=64, bits=4, streaming=None",
    },
    "kernels.loss": {
        "softmax_cross_entropy": f"logits, targets, *, {ROW}",
        "softmax_cross_entropy_grad": f"logits, targets, cotan, *, {ROW}",
    },
}
CLASSES = {
    "cache.KernelCacheKey": "",
    "metal.KernelStats": "compile_time_ms run_count total_run_time_ms",
    "ir.ElementwiseUnaryIR": "expr",
    "ir.ElementwiseBinaryIR": "expr",
    "ir.RowwiseReductionIR": "init update finalize",
    "ir.RowwiseParallelReductionIR": "init update reduce finalize",
    "ir.RowwiseMapReduceIR": "pass1_init pass1_update pass1_reduce pass2_init"
    " pass2_update pass2_reduce write_expr",
    "ir.Tiled2DIR": "source",
    "ir.RawIR": "source",
    "ir.VJPSpec": "",
    "autotune.AutotuneResult": "best_config timings_ms",
    "registry.KernelRegistry": "",
    "registry.KernelEntry": "",
    "patch.PatchResult": "patched_count pattern_counts skipped benchmarks",
    "train.TrainConfig": "model dataset lora dora batch_size iters",
    "train.ZMLXCallback": "",
}
NAMES = [
    (module, name, parameters)
    for module, names in (MODULE_OF_FUNCTIONS | FAMILIES).items()
    for name, parameters in names.items()
]


def parameters_of(text):
    made = {}
    exec(f"def reference({text}): pass", made)
    return inspect.signature(made["reference"]).parameters.values()


def refusals(reference, ours):
    """What a caller of the reference's signature cannot do with ours."""
    ours = list(ours)
    by_name = {p.name: p for p in ours}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in ours)
    positional = [p.name for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD]
    found, place = [], 0
    for p in reference:
        mine = by_name.get(p.name)
        if mine is None:
            if not takes_any:
                found.append(f"{p.name} is missing")
            continue
        if p.kind is p.POSITIONAL_OR_KEYWORD:
            if positional[place : place + 1] != [p.name]:
                found.append(f"{p.name} is not argument {place}")
            place += 1
        if p.default is not p.empty and mine.default != p.default:
            found.append(f"{p.name} is {mine.default!r} by default")
    known = {p.name for p in reference}
    for p in ours:
        optional = p.default is not p.empty or p.kind in (
            p.VAR_POSITIONAL,
            p.VAR_KEYWORD,
        )
        if p.name not in known and not optional:
            found.append(f"{p.name} must be given")
    return found


@pytest.mark.parametrize("module, name, text", NAMES)
def test_functions_take_what_the_reference_s_take(module, name, text):
    function = getattr(importlib.import_module(f"zmlx.{module}"), name)
    ours = inspect.signature(function).parameters.values()
    assert refusals(list(parameters_of(text)), ours) == []


@pytest.mark.parametrize("path", CLASSES)
def test_classes_have_what_the_reference_s_have(path):
    module, name = path.split(".")
    found = getattr(importlib.import_module(f"zmlx.{module}"), name)
    assert inspect.isclass(found)
    has = {field.name for field in fields(found)} if is_dataclass(found) else set()
    has |= set(dir(found)) | set(getattr(found, "__annotations__", ()))
    assert set(CLASSES[path].split()) <= has


def test_kernels_are_called_as_there():
    from zmlx.metal import KernelStats, MetalKernel, kernel

    text = (
        "self, *inputs, template=None, grid=None, threadgroup=None,"
        " output_shapes=None, output_dtypes=None, init_value=None, verbose=False"
    )
    ours = inspect.signature(MetalKernel.__call__).parameters.values()
    assert refusals(list(parameters_of(text)), ours) == []
    made = kernel("called_as_there", ["x"], ["out"], "out[0] = x[0];")
    assert isinstance(made, MetalKernel) and isinstance(made.stats, KernelStats)


def test_presets_and_kinds_are_the_reference_s():
    from zmlx.ir import PatternKind
    from zmlx.patch import FUSED_ACTIVATIONS, TRAINING_RECOMMENDED, list_patterns

    assert issubclass(PatternKind, enum.Enum) and len(PatternKind) == 7
    assert {"swiglu_mlp", "geglu_mlp", "moe_mlp"} == set(FUSED_ACTIVATIONS)
    there = {"swiglu_mlp", "geglu_mlp", "rmsnorm", "layernorm", "residual_norm"}
    assert there <= set(TRAINING_RECOMMENDED)
    assert there | {"moe_mlp", "softmax"} <= set(list_patterns())
    assert list_patterns() == sorted(list_patterns())


def test_what_a_caller_cannot_do_is_found():
    wrong = "b, a=2, *, c, e"
    found = refusals(list(parameters_of("a=1, b=0, *, d=3")), parameters_of(wrong))
    assert found == [
        "a is not argument 0",
        "a is 2 by default",
        "b is not argument 1",
        f"b is {inspect.Parameter.empty!r} by default",
        "d is missing",
        "c must be given",
        "e must be given",
    ]
