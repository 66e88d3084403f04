# SPDX-License-Identifier: MIT
"""Weights of a patched model that are kept in blocks: its arrays are as before."""

import copy
import threading

import lm_models
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.tuner.utils import linear_to_lora_layers

from zmlx import _core, decode
from zmlx.patch import patch, unpatch

pytestmark = pytest.mark.skipif(
    not _core.wants_blocks(), reason="blocks are of no use on this processor"
)
PROMPT = [5, 9, 100, 31, 7, 40, 3, 77]


def bits(model):
    return {
        name: np.array(
            array.astype(mx.float32) if array.dtype == mx.bfloat16 else array
        )
        for name, array in tree_flatten(model.parameters())
    }


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name, values in a.items():
        assert np.array_equal(values, b[name]), name


def greedy(model, count=12, **options):
    steps = generate_step(mx.array(PROMPT), model, max_tokens=count, **options)
    return [token for token, _ in steps]


def packed(model):
    """Patched, and its weights where they will stay."""
    patch(model)
    model(mx.array([[1]]))
    return model


def weights_of(model):
    return decode.session_of(model).weights


MODELS = {
    "demo": lambda: lm_models.demo(None),
    "demo, float32": lm_models.demo,
    "llama, 4 bit": lambda: lm_models.quantised(half(lm_models.tiny_llama())),
    "qwen3_moe, 8 bit": lambda: lm_models.quantised(
        half(lm_models.tiny_qwen3_moe()), 8
    ),
}


def half(model):
    model.set_dtype(mx.float16)
    return model


@pytest.fixture(params=MODELS)
def make(request):
    return MODELS[request.param]


def test_arrays_keep_their_bits(make):
    before = bits(make())
    model = packed(make())
    assert len(weights_of(model)) > 5
    assert_same_bits(bits(model), before)
    # They have been read; the next token drops what that unpacked.
    assert weights_of(model).drop() > 0
    assert weights_of(model).drop() == 0


def test_the_next_token_drops_what_was_read():
    model = patch(lm_models.demo(None))
    expected = greedy(model)
    mx.eval(model.parameters())
    assert greedy(model) == expected
    assert weights_of(model).drop() == 0


def test_tokens_are_those_of_the_rows(make):
    stock = make()
    stock.set_dtype(mx.float32)
    assert greedy(patch(make())) == greedy(stock)


def test_views_of_the_memory_stay_valid():
    model = patch(lm_models.demo(None))
    first, second = (layer.conv.in_proj for layer in model.layers[:2])
    early = np.array(first.weight, copy=False)
    values = early.copy()
    greedy(model, 2)
    assert np.array_equal(early, values)
    late = np.array(second.weight, copy=False)
    values = late.copy()
    greedy(model, 2)
    assert np.array_equal(late, values)
    del late
    assert weights_of(model).drop() > 0


def test_a_saved_model_has_the_same_bits(make, tmp_path):
    before = bits(make())
    model = packed(make())
    path = str(tmp_path / "model.safetensors")
    model.save_weights(path)
    saved = {
        name: np.array(a.astype(mx.float32) if a.dtype == mx.bfloat16 else a)
        for name, a in mx.load(path).items()
    }
    assert_same_bits(saved, before)


def test_unpatching_restores_arrays_and_outputs_to_the_bit(make):
    stock = make()
    tokens = mx.array([PROMPT])
    before, expected = bits(stock), np.array(stock(tokens).astype(mx.float32))
    model = patch(make())
    greedy(model, 3)
    unpatch(model)
    assert np.array_equal(np.array(model(tokens).astype(mx.float32)), expected)
    assert_same_bits(bits(model), before)
    greedy(patch(model), 3)  # and again


def test_the_layers_go_on_over_packed_weights():
    options = dict(kv_bits=8, kv_group_size=32)
    stock = lm_models.demo()
    model = patch(lm_models.demo())
    assert greedy(model, **options) == greedy(stock, **options)
    assert greedy(model) == greedy(stock)


def test_an_array_that_was_changed_is_noticed():
    model = packed(lm_models.demo(None))
    layer = model.model.layers[0].conv.in_proj
    layer.scales[0] = layer.scales[0] * 2
    with pytest.warns(UserWarning, match="has changed since it was patched"):
        greedy(model, 2)
    assert weights_of(model).holds() is False


def lora(model):
    mx.random.seed(7)
    model.freeze()
    linear_to_lora_layers(model, 2, {"rank": 4, "scale": 2.0, "dropout": 0.0})
    return model


@pytest.mark.filterwarnings("ignore:.decode_step. the model has changed")
def test_a_wrapped_model_computes_the_same():
    stock, model = lora(lm_models.demo()), lora(packed(lm_models.demo()))
    assert greedy(model) == greedy(stock)
    loss = nn.losses.cross_entropy

    def slope(model):
        def of(model):
            return loss(model(mx.array([PROMPT])), mx.array([PROMPT])).mean()

        return nn.value_and_grad(model, of)(model)

    (a, ours), (b, theirs) = slope(model), slope(stock)
    assert abs(a.item() - b.item()) < 1e-4
    for (name, x), (_, y) in zip(tree_flatten(ours), tree_flatten(theirs), strict=True):
        assert mx.abs(x - y).max() <= 1e-3 * max(mx.abs(y).max().item(), 1e-3), name


def test_threads_may_read_packed_weights_at_once():
    model = packed(lm_models.demo(None))
    layers = [layer.conv.in_proj for layer in model.layers if "conv" in layer]
    expected = [bits(layer) for layer in layers]
    got = [None] * 4

    def work(i):
        for layer in layers:
            for _, array in tree_flatten(layer.parameters()):
                _core.unpack(array)  # as a fused module does before a stock call
        got[i] = [bits(layer) for layer in layers]

    for _ in range(5):
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for found in got:
            for ours, theirs in zip(found, expected, strict=True):
                assert_same_bits(ours, theirs)
        assert weights_of(model).drop() > 0


def test_a_copy_has_arrays_of_its_own():
    model = packed(lm_models.demo())
    other = copy.deepcopy(model)
    assert_same_bits(bits(other), bits(lm_models.demo()))
    unpatch(model)
    del model
    assert greedy(patch(other), 4) == greedy(lm_models.demo(), 4)


def test_patching_alone_packs_nothing():
    model = patch(lm_models.demo(None))
    assert len(weights_of(model)) == 0
    model(mx.array([[1]]))
    assert len(weights_of(model)) > 5
    assert patch(model) is model  # again, which finds it as it is
    assert len(weights_of(model)) > 5


def test_weights_that_do_not_fit_stay_rows():
    model = lm_models.tiny_lfm2_moe()  # not quantised
    assert len(weights_of(packed(model))) == 0
    model = lm_models.quantised(lm_models.tiny_lfm2_moe(), 3)
    assert len(weights_of(packed(model))) == 0


def test_a_step_over_blocks_updates_caches_in_place():
    model = patch(lm_models.demo(None))
    cache = make_prompt_cache(model)
    greedy(model, 2, prompt_cache=cache)
    kept = next(layer for layer in cache if hasattr(layer, "keys"))
    place = np.array(kept.keys, copy=False).ctypes.data
    mx.eval(model(mx.array([[4]]), cache=cache))
    assert np.array(kept.keys, copy=False).ctypes.data == place
