# SPDX-License-Identifier: MIT
"""Operations from text: zmlx.api, elementwise, autograd, jit and raw kernels."""

import threading

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import zmlx
from zmlx import autograd, codegen, elementwise, ir, ir_build, metal, msl, rowwise
from zmlx.api import jit, map_reduce, reduce


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


def close(got, want, tolerance=1e-5):
    got, want = np.array(got, np.float64), np.array(want, np.float64)
    assert got.shape == want.shape
    assert np.allclose(got, want, atol=tolerance, rtol=tolerance)


def gradient(function, x):
    return mx.grad(lambda z: function(z).sum())(x)


def test_the_page_s_examples_give_what_mlx_gives():
    x = normal(3, 1024)
    mish = zmlx.api.elementwise("x * tanh(log(1 + exp(x)))", name="mish")
    close(mish(x), nn.mish(x))
    close(gradient(mish, x), gradient(nn.mish, x), 1e-4)
    close(zmlx.elementwise("metal::exp(x)", name="fast_exp")(x), mx.exp(x))
    silu = zmlx.api.elementwise(
        "kk_silu(x)",
        name="my_silu",
        grad_expr="g * (s + x * s * ((T)1 - s))",
        grad_prelude="T s = kk_sigmoid(x);",
        use_output=False,
        header=msl.DEFAULT_HEADER,
    )
    close(silu(x), nn.silu(x))
    close(gradient(silu, x), gradient(nn.silu, x), 1e-4)
    close(reduce(init="0.0f", update="acc + v", name="row_sum")(x), x.sum(-1), 1e-3)


SOFTMAX = {
    "pass1": {"init": "-INFINITY", "update": "max(acc1, x)", "reduce": "max(a, b)"},
    "pass2": {"init": "0.0f", "update": "acc2 + exp(x - s1)", "reduce": "a + b"},
    "write": "exp(x - s1) / s2",
}


@pytest.mark.parametrize("threadgroup", [256, 1, "auto"])
def test_map_reduce_is_exact_for_every_threadgroup(threadgroup):
    softmax = map_reduce(**SOFTMAX, name="my_softmax", threadgroup=threadgroup)
    for shape in [(8, 1024), (5, 37), (2, 3, 1), (0, 7)]:
        x = normal(*shape)
        close(softmax(x), mx.softmax(x, axis=-1))
    g = normal(4, 33, seed=1)
    x = normal(4, 33)
    close(
        gradient(lambda z: softmax(z) * g, x),
        gradient(lambda z: mx.softmax(z, axis=-1) * g, x),
    )


def test_map_reduce_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="threadgroup must be a power of two"):
        map_reduce(**SOFTMAX, threadgroup=100)
    with pytest.raises(ValueError, match="pass1 must have init, update and reduce"):
        map_reduce(**{**SOFTMAX, "pass1": {"init": "0"}})


def test_rowwise_takes_its_texts_one_by_one():
    softmax = rowwise.map_reduce(
        name="flat",
        d=16,
        pass1_init="-INFINITY",
        pass1_update="max(acc1, x)",
        pass1_reduce="max(a, b)",
        pass2_init="0.0f",
        pass2_update="acc2 + exp(x - s1)",
        pass2_reduce="a + b",
        write_expr="w * exp(x - s1) / s2",
        input_names=("inp", "w"),
    )
    x, w = normal(3, 16), normal(16, seed=1)
    (got,) = softmax(x, w)
    close(got, w * mx.softmax(x, axis=-1))
    with pytest.raises(ValueError, match="last axis must have length 16"):
        softmax(normal(3, 15), w)


def test_operations_of_several_inputs_broadcast():
    a, b = normal(3, 1, 5), normal(4, 5, seed=1)
    hypot = elementwise.binary(name="hypot", expr="sqrt(a * a + b * b)")
    close(hypot(a, b), mx.sqrt(a * a + b * b))
    close(elementwise.binary(name="first", expr="x - b")(a, b), a - b)
    fma = elementwise.map(name="fma", expr="p * q + r", input_names=["p", "q", "r"])
    close(fma(a, b, a), a * b + a)
    close(elementwise.unary(name="half", expr="x * 0.5f")(a), a * 0.5)
    with pytest.raises(ValueError, match="hypot"):
        hypot(normal(3), normal(4))
    with pytest.raises(ValueError, match="number of inputs must be 3, got 1"):
        fma(a)


def test_given_gradients_are_used():
    odd = autograd.unary_from_expr(name="odd", fwd_expr="exp(x)", vjp_expr="3 * g * y")
    x = normal(7)
    close(gradient(odd, x), 3 * mx.exp(x))
    product = autograd.binary_from_expr(
        name="product",
        fwd_expr="a * b",
        vjp_lhs_expr="g * b + k",
        vjp_rhs_expr="g * a",
        vjp_prelude="float k = 1.0f;",
    )
    y = normal(7, seed=1)
    da, db = mx.grad(lambda a, b: product(a, b).sum(), argnums=(0, 1))(x, y)
    close(da, y + 1)
    close(db, x)


@pytest.mark.parametrize("count", [1, 2])
def test_raw_bodies_have_gradients_in_every_input(count):
    names = ["p", "q"][:count]
    square = " + ".join(f"T({n}[i]) * T({n}[i])" for n in names)
    head = "uint i = thread_position_in_grid.x;\n"
    total = autograd.nary_from_expr(
        name=f"squares{count}",
        fwd_source=head + f"out[i] = O({square});",
        bwd_source=head
        + "".join(f"d{n}[i] = O(2 * T({n}[i]) * T(cotan[i]));\n" for n in names),
        input_names=names,
        output_names=["out"],
    )
    arrays = [normal(3, 5, seed=i) for i in range(count)]
    close(total(*arrays), sum(a * a for a in arrays))
    g = normal(3, 5, seed=9)
    grads = mx.vjp(total, arrays, [g])[1]
    for a, da in zip(arrays, grads, strict=True):
        close(da, 2 * a * g)


def test_every_cotangent_reaches_the_backward_kernel():
    head = "uint i = thread_position_in_grid.x;\n"
    both = autograd.nary_from_expr(
        name="both",
        fwd_source=head + "s[i] = sin(x[i]); c[i] = cos(x[i]);",
        bwd_source=head + "dx[i] = cotan_s[i] * cos(x[i]) - cotan_c[i] * sin(x[i]);",
        input_names=["x"],
        output_names=["s", "c"],
    )
    x = normal(9)
    got = gradient(lambda z: both(z)[0] * 2 + both(z)[1] * 3, x)
    close(got, 2 * mx.cos(x) - 3 * mx.sin(x))


def relu_like(x, slope):
    if x > 0:
        y = x
    elif x < -1:
        y = -slope
    else:
        y = slope * x
    return y


def powers(x):
    total = 0
    for i in range(1, 4):
        total += x**2 / i
    scale = 1 if total < 10 else mx.sqrt(total)
    return total * scale + mx.sigmoid(x)


def test_jit_translates_branches_loops_and_calls():
    x, slope = normal(6, 33), mx.array(0.1)
    close(
        jit(relu_like)(x, slope),
        mx.where(x > 0, x, mx.where(x < -1, -slope, slope * x)),
    )
    total = x**2 * (1 + 1 / 2 + 1 / 3)
    want = total * mx.where(total < 10, 1, mx.sqrt(total)) + mx.sigmoid(x)
    close(jit(powers)(x), want, 1e-4)
    close(gradient(jit(powers), x[0, :4]).shape, [4])


def test_jit_refuses_what_it_does_not_translate():
    def floors(x):
        return x // 2

    def whiles(x):
        while x > 0:
            x = x - 1
        return x

    def strange(x):
        for i in [1, 2]:
            x = x + i
        return x

    def unknown(x):
        return x + elsewhere  # noqa: F821

    for function, why in [
        (floors, "Unsupported binary operator"),
        (whiles, "statements must be"),
        (strange, "a loop must go over range"),
        (unknown, "names must be arguments or given before, got elsewhere"),
    ]:
        with pytest.raises(ValueError, match=why):
            jit(function)
    with pytest.raises(ValueError, match="a function must come"):
        jit(3)
    with pytest.raises(ValueError, match="must be given 2 arrays, got 1"):
        jit(relu_like)(normal(3))


def test_operations_work_under_every_transformation():
    cube = zmlx.elementwise("x * x * x")
    x = normal(4, 5)
    close(mx.compile(cube)(x), x**3)
    close(mx.vmap(cube, in_axes=1, out_axes=1)(x), x**3)
    close(mx.jvp(cube, [x], [mx.ones_like(x)])[1][0], 3 * x**2)
    second = mx.grad(lambda a: mx.grad(lambda b: cube(b).sum())(a).sum())(x)
    close(second, 6 * x, 1e-4)
    norm = reduce(init="0.0f", update="acc + v * v", finalize="sqrt(acc)")
    close(mx.vmap(norm, in_axes=1)(x), mx.linalg.norm(x, axis=0))
    close(mx.compile(norm)(x), mx.linalg.norm(x, axis=-1))


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_results_have_the_type_of_the_input_and_are_rounded_once(dtype):
    x = normal(1000).astype(dtype)
    got = zmlx.elementwise("exp(x) - 1.0f")(x)
    want = (mx.exp(x.astype(mx.float32)) - 1).astype(dtype)
    assert got.dtype == dtype
    close(got.astype(mx.float32), want.astype(mx.float32), 1e-2)
    assert reduce(init="0", update="acc + v")(x).shape == ()


SQUARE = "uint i = thread_position_in_grid.x; out[i] = x[i] * x[i];"


def square(**options):
    return metal.kernel(
        name="square", input_names=["x"], output_names=["out"], source=SQUARE, **options
    )


def test_raw_kernels_have_the_reference_s_defaults():
    x = normal(3, 50)
    (y,) = square()(x)
    close(y, x * x)
    (z,) = square()(
        x,
        grid=(100, 1, 1),
        threadgroup=(32,),
        output_shapes=[(150,)],
        output_dtypes=[mx.float32],
        init_value=7,
    )
    close(z[100:], mx.full((50,), 7.0))
    with pytest.raises(ValueError, match="inputs must be 1 arrays, got 2"):
        square()(x, x)
    with pytest.raises(TypeError, match="grid must be 1 to 3 whole numbers"):
        square()(x, grid="all")
    assert mx.vmap(lambda v: square()(v)[0])(x).shape == (3, 50)


def test_what_a_gradient_throws_comes_through():
    def broken(*_):
        raise KeyError("mine")

    for vjp, error, what in [
        (broken, KeyError, "mine"),
        (lambda *_: [], ValueError, "one gradient for each of 1 inputs, got 0"),
        (lambda *_: ["x"], TypeError, "must be an mx.array, got str"),
    ]:
        broken_square = square().custom_vjp(vjp)
        with pytest.raises(error, match=what):
            mx.vjp(lambda z, f=broken_square: f(z), [normal(3)], [normal(3)])


def test_kernels_are_kept_by_their_text(capsys):
    zmlx.registry.clear_cache()
    assert square() is square() and square(cache=False) is not square()
    assert square(header=msl.DEFAULT_HEADER) is not square()
    assert zmlx.registry.cache_size() == 2
    assert zmlx.registry.list_kernels() == ["square", "square"]
    square()(normal(4), verbose=True)
    assert SQUARE in capsys.readouterr().out
    stats = square().stats
    assert stats.run_count == 1 and stats.total_run_time_ms > 0
    zmlx.registry.clear_cache()
    assert zmlx.registry.cache_size() == 0


def test_one_kernel_comes_out_when_threads_ask_at_once():
    zmlx.registry.clear_cache()
    made = []
    threads = [threading.Thread(target=lambda: made.append(square())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, made))) == 1


def test_helpers_of_the_header_work_in_raw_kernels():
    gelu = metal.kernel(
        name="gelu",
        input_names=["x"],
        output_names=["out"],
        source="uint i = thread_position_in_grid.x;"
        "out[i] = kk_gelu_tanh(x[i]) + kk_silu(x[i]) + kk_sigmoid(x[i]);",
        header=msl.DEFAULT_HEADER,
    )
    x = normal(40) * 50
    close(gelu(x)[0], nn.gelu_approx(x) + nn.silu(x) + mx.sigmoid(x), 1e-4)


def test_the_checked_mode_names_what_is_wrong():
    wrong = metal.kernel(
        name="wrong",
        input_names=["x"],
        output_names=["out"],
        source="uint i = thread_position_in_grid.x; out[i] = x[i + 1];",
    )
    with pytest.raises(zmlx.KernelCheckError, match="x"):
        wrong.checked()(normal(4))


def text_nodes():
    reduction = {"init": "0", "update": "acc + x * x", "reduce": "a + b"}
    return [
        ir.ElementwiseUnaryIR(expr="exp(x)", tags=frozenset({"b", "a"})),
        ir.ElementwiseBinaryIR(expr="a * b"),
        ir.RowwiseReductionIR(init="0", update="acc + v * v", finalize="sqrt(acc)"),
        ir.RowwiseParallelReductionIR(**reduction, finalize="sqrt(s)", threadgroup=64),
        ir.RowwiseMapReduceIR(
            pass1_init="-INFINITY",
            pass1_update="max(acc1, x)",
            pass1_reduce="max(a, b)",
            pass2_init="0",
            pass2_update="acc2 + exp(x - s1)",
            pass2_reduce="a + b",
            write_expr="exp(x - s1) / s2",
            threadgroup=64,
        ),
        ir.RawIR(source=SQUARE, input_names=("x",)),
        ir.Tiled2DIR(source=SQUARE, tile_m=8, vjp=ir.VJPSpec("dx[0] = 0;", "//")),
    ]


def test_descriptions_go_to_json_and_back():
    import json

    assert {node.kind for node in text_nodes()} == set(ir.PatternKind)
    for node in text_nodes():
        content = json.loads(json.dumps(ir.ir_to_json(node)))
        assert content["_kind"] == node.kind.value
        assert ir.ir_from_json(content) == node
    assert ir.ir_to_json(text_nodes()[0])["tags"] == ["a", "b"]
    with pytest.raises(KeyError, match="kinds must be"):
        ir.ir_from_json({"_kind": "other"})
    unary = codegen.elementwise_unary_source("exp(x)")
    assert text_nodes()[0].to_source() == unary


def test_described_kernels_compute_what_they_say():
    x = normal(5, 100)
    node = text_nodes()
    rows = {"output_shapes": [(5,)], "template": [("T", mx.float32)]}
    element = {"template": [("T", mx.float32)]}
    wide = {"grid": (5 * 64, 1, 1), "threadgroup": (64, 1, 1)}
    length = mx.sqrt((x * x).sum(-1))
    for place, arrays, options, want in [
        (0, [x], element, mx.exp(x)),
        (1, [x, x], element, x * x),
        (2, [x], rows, length),
        (3, [x], rows | wide, length),
        (4, [x], element | wide, mx.softmax(x, axis=-1)),
    ]:
        kernel = ir_build.build_kernel(f"node{place}", node[place])
        close(kernel(*arrays, **options)[0], want)


def test_a_description_with_a_vjp_is_differentiable():
    node = ir.ElementwiseUnaryIR(
        expr="x * x",
        vjp=ir.VJPSpec(
            "uint i = thread_position_in_grid.x; dinp[i] = 2 * inp[i] * cotan[i];"
        ),
    )
    function = ir_build.build_differentiable("square_ir", node)
    x = normal(11)
    close(function(x), x * x)
    close(gradient(function, x), 2 * x)
    with pytest.raises(ValueError, match="must have a vjp"):
        ir_build.build_differentiable("none", ir.ElementwiseUnaryIR(expr="x"))
    with pytest.raises(ValueError, match="threadgroup must be a power of two"):
        codegen.rowwise_parallel_reduction_source(
            init="0", update="acc", reduce="a", threadgroup=48
        )
