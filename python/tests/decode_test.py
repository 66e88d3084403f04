# SPDX-License-Identifier: MIT
"""mlx_lm's models with whole-token decoding against the same models without."""

import copy
import threading
import warnings

import lm_models
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.generate import BatchGenerator, generate_step
from mlx_lm.models.cache import (
    KVCache,
    RotatingKVCache,
    load_prompt_cache,
    make_prompt_cache,
    save_prompt_cache,
)
from mlx_lm.tuner.utils import linear_to_lora_layers

from zmlx import decode

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {
    "demo": lm_models.demo,
    "lfm2": lm_models.tiny_lfm2,
    "lfm2_moe": lm_models.tiny_lfm2_moe,
    "llama": lm_models.tiny_llama,
    "llama, scaled positions": lambda: lm_models.tiny_llama(rope_scaling=LLAMA3),
    "mistral, biases": lambda: lm_models.tiny_llama(
        model_type="mistral", attention_bias=True, head_dim=32
    ),
    "qwen2": lm_models.tiny_qwen2,
    "qwen2, 4 bit": lambda: lm_models.quantised(lm_models.tiny_qwen2()),
    "qwen3": lm_models.tiny_qwen3,
    "qwen3_moe": lm_models.tiny_qwen3_moe,
    "qwen3_moe, 4 bit": lambda: lm_models.quantised(lm_models.tiny_qwen3_moe()),
    "lfm2, 4 bit": lambda: lm_models.quantised(lm_models.tiny_lfm2()),
    "lfm2_moe, 8 bit": lambda: lm_models.quantised(lm_models.tiny_lfm2_moe(), 8),
}
PROMPT = [5, 9, 100, 31, 7, 40, 3, 77, 12, 64, 2]


def installed(model):
    error, reason = decode.install(model)
    assert reason == "" and error < 1e-4
    return model


@pytest.fixture(scope="module")
def stock():
    return lm_models.tiny_lfm2_moe()


@pytest.fixture(scope="module")
def fast():
    return installed(lm_models.tiny_lfm2_moe())


@pytest.fixture
def spied(fast, monkeypatch):
    """Lengths of the calls that the network served."""
    calls = []
    fast(mx.array([[1]]))  # which moves weights
    session = decode.session_of(fast)
    forward = session.network.forward

    class Spy:
        def forward(self, tokens, caches):
            logits = forward(tokens, caches)
            calls.append(tokens.shape[1] if logits is not None else None)
            return logits

    monkeypatch.setattr(session, "network", Spy())
    return calls


def greedy(model, count=20, prompt=PROMPT, **options):
    steps = generate_step(mx.array(prompt), model, max_tokens=count, **options)
    return [token for token, _ in steps]


def close(a, b, tolerance=1e-4):
    a, b = (np.array(x.astype(mx.float32)) for x in (a, b))
    return a.shape == b.shape and np.abs(a - b).max() <= tolerance * np.abs(b).max()


def assert_same_caches(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert type(a) is type(b)
        if isinstance(a, KVCache):
            assert a.offset == b.offset
            for x, y in zip(a.keys_and_values(), b.keys_and_values(), strict=True):
                assert close(x, y)
        else:
            assert close(a[0], b[0])


@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens_equal_the_layers(name):
    stock, fast = MODELS[name](), installed(MODELS[name]())
    assert greedy(fast) == greedy(stock)


@pytest.mark.parametrize("name", MODELS)
def test_caches_equal_the_layers_after_decoding(name):
    stock, fast = MODELS[name](), installed(MODELS[name]())
    caches = [make_prompt_cache(stock), make_prompt_cache(stock)]
    greedy(stock, prompt_cache=caches[0])
    greedy(fast, prompt_cache=caches[1])
    assert_same_caches(caches[1], caches[0])


def test_prompts_and_steps_go_through_the_network(fast, spied):
    greedy(fast, count=3)
    assert spied == [len(PROMPT) - 1, 1, 1, 1, 1]


def test_either_goes_on_from_the_caches_of_the_other(stock, fast):
    expected = greedy(stock, count=12)
    for first, second in ((stock, fast), (fast, stock)):
        cache = make_prompt_cache(stock)
        begun = greedy(first, count=6, prompt_cache=cache)
        assert begun == expected[:6]
        # generate_step() has fed all but the last token that it gave.
        assert greedy(second, 6, [begun[-1]], prompt_cache=cache)[:5] == expected[6:11]


def test_a_prompt_cache_file_is_valid_midway(stock, fast, tmp_path):
    expected = greedy(stock, count=12)
    path = str(tmp_path / "prompt.safetensors")
    cache = make_prompt_cache(fast)
    begun = greedy(fast, count=6, prompt_cache=cache)
    save_prompt_cache(path, cache)
    for model in (stock, fast):
        loaded = load_prompt_cache(path)
        assert_same_caches(loaded, cache)
        assert greedy(model, 6, [begun[-1]], prompt_cache=loaded)[:5] == expected[6:11]


def test_a_cache_of_lower_precision_is_taken(fast, spied):
    cache = make_prompt_cache(fast)
    greedy(fast, count=1, prompt_cache=cache)
    for layer in cache:
        if isinstance(layer, KVCache):
            layer.keys = layer.keys.astype(mx.bfloat16)
            layer.values = layer.values.astype(mx.bfloat16)
        else:
            layer[0] = layer[0].astype(mx.bfloat16)
    spied.clear()
    logits = fast(mx.array([[3]]), cache=cache)
    assert spied == [1] and mx.isfinite(logits).all().item()
    assert cache[1].keys.dtype == mx.float32


def place_of(array):
    return np.array(array, copy=False).ctypes.data


def test_steps_update_the_cache_in_place(fast):
    cache = make_prompt_cache(fast)
    greedy(fast, count=1, prompt_cache=cache)
    before = [place_of(cache[1].keys), place_of(cache[3].values)]
    for token in (4, 5, 6):
        mx.eval(fast(mx.array([[token]]), cache=cache))
    assert before == [place_of(cache[1].keys), place_of(cache[3].values)]


def test_arrays_that_somebody_else_holds_keep_their_values(fast):
    cache = make_prompt_cache(fast)
    greedy(fast, count=1, prompt_cache=cache)
    held, state = cache[1].keys, cache[0][0]
    values, inputs = np.array(held), np.array(state)
    mx.eval(fast(mx.array([[4]]), cache=cache))
    assert np.array_equal(np.array(held), values)
    assert np.array_equal(np.array(state), inputs)
    assert place_of(held) != place_of(cache[1].keys)


@pytest.mark.parametrize("start", [0, 14])
def test_quantised_caches_go_through_the_layers(start):
    options = dict(kv_bits=8, kv_group_size=32, quantized_kv_start=start)
    heads = dict(num_attention_heads=2, num_key_value_heads=1)  # of 32
    stock = lm_models.tiny_lfm2(**heads)
    fast = installed(lm_models.tiny_lfm2(**heads))
    assert greedy(fast, **options) == greedy(stock, **options)


@pytest.mark.parametrize("window", [13, 20, 300])
def test_a_rotating_cache_is_served_until_its_window_is_full(
    stock, fast, spied, window
):
    def cache():
        return [
            RotatingKVCache(window, keep=2) if isinstance(c, KVCache) else c
            for c in make_prompt_cache(stock)
        ]

    ours, theirs = cache(), cache()
    expected = greedy(stock, prompt_cache=theirs)
    assert greedy(fast, prompt_cache=ours) == expected
    assert spied.count(1) == min(21, window - len(PROMPT) + 1)
    assert ours[1].offset == theirs[1].offset and ours[1]._idx == theirs[1]._idx
    assert ours[1].keys.shape[2] <= window


def batch_greedy(model, prompts, count=8, later=()):
    """Tokens of each prompt; `later` are inserted after three steps."""
    generator = BatchGenerator(model, max_tokens=count)
    uids = generator.insert(prompts)
    tokens = {}
    for step in range(60):
        if step == 3 and later:
            uids += generator.insert(list(later))
        _, responses = generator.next()
        for response in responses:
            tokens.setdefault(response.uid, []).append(response.token)
    return [tokens[uid] for uid in uids]


PROMPTS = {
    "equal": ([PROMPT, PROMPT[::-1]], []),
    "one": ([PROMPT], []),
    "different lengths": ([PROMPT, [8, 3], [4, 4, 4, 90, 1]], []),
    "one of them of one token": ([PROMPT, [8]], []),
    "joined later": ([PROMPT, [8, 3]], [[30, 31, 32, 33], [11]]),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_batches_give_what_the_layers_give(stock, fast, spied, name):
    prompts, later = PROMPTS[name]
    expected = batch_greedy(stock, prompts, later=later)
    assert batch_greedy(fast, prompts, later=later) == expected
    assert spied.count(1) >= 8
    # Prompts of different lengths are done one sequence at a time.
    assert None not in spied or name not in ("equal", "one")


def test_left_padded_prompts_give_what_the_layers_give(stock, fast):
    from mlx_lm.models.cache import ArraysCache, BatchKVCache

    tokens = mx.array([[0, 0, 5, 6, 7], [1, 2, 3, 4, 5], [0, 9, 8, 7, 6]])
    padding = [2, 0, 1]

    def run(model):
        cache = [
            BatchKVCache(padding) if isinstance(c, KVCache) else ArraysCache(1, padding)
            for c in make_prompt_cache(model)
        ]
        first = model(tokens, cache=cache)[:, -1]
        return first, model(mx.array([[1], [2], [3]]), cache=cache)[:, -1], cache

    for ours, theirs in zip(run(fast)[:2], run(stock)[:2], strict=True):
        assert close(ours, theirs)


def state_of(cache):
    return [value for _, value in tree_flatten([layer.state for layer in cache])]


def test_wrong_use_leaves_the_caches_as_they_were(fast):
    cache = make_prompt_cache(fast)
    greedy(fast, count=2, prompt_cache=cache)
    before = state_of(cache)
    for tokens in (mx.array([[1], [2]]), mx.array([[1, 2], [3, 4]])):
        with pytest.raises(ValueError, match=r"\[decode_step\] the batch must be"):
            fast(tokens, cache=cache)
    with pytest.raises(ValueError, match="a cache for each of the 4 layers, got 3"):
        fast(mx.array([[1]]), cache=cache[:3])
    assert all(
        mx.array_equal(a, b) if isinstance(a, mx.array) else a == b
        for a, b in zip(before, state_of(cache), strict=True)
    )
    other = make_prompt_cache(fast)
    other[1].keys = other[1].values = mx.zeros((1, 2, 4, 8))
    other[1].offset = 4
    with pytest.raises(ValueError, match=r"must have shape \(1,2,4,16\)"):
        fast(mx.array([[1]]), cache=other)
    assert other[1].offset == 4 and other[1].keys.shape == (1, 2, 4, 8)


def test_the_context_may_pass_what_the_model_was_made_for():
    changes = dict(max_position_embeddings=16)
    stock = lm_models.tiny_lfm2(**changes)
    fast = installed(lm_models.tiny_lfm2(**changes))
    assert greedy(fast) == greedy(stock)


def test_calls_without_a_cache_and_with_embeddings_equal_the_layers(stock, fast):
    tokens = mx.array([PROMPT, PROMPT[::-1]])
    assert close(fast(tokens), stock(tokens))
    h = stock.model.embed_tokens(tokens)
    assert close(fast(tokens, input_embeddings=h), stock(tokens))


def test_gradients_are_those_of_the_layers(stock):
    fast = installed(lm_models.tiny_lfm2_moe())
    tokens = mx.array([PROMPT])

    def loss(model):
        return nn.losses.cross_entropy(model(tokens), tokens).mean()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value, grads = nn.value_and_grad(fast, loss)(fast)
    expected, wanted = nn.value_and_grad(stock, loss)(stock)
    assert abs(value.item() - expected.item()) < 1e-5
    for (name, a), (_, b) in zip(
        tree_flatten(grads), tree_flatten(wanted), strict=True
    ):
        assert np.allclose(np.array(a), np.array(b), atol=1e-5), name


def changed_norm(model):
    model.model.layers[1].ffn_norm.weight = mx.ones(64) * 2


def changed_in_place(model):
    model.model.layers[1].ffn_norm.weight[3] = 5.0


def changed_setting(model):
    model.model.layers[2].feed_forward.top_k = 1


def quantised(model):
    lm_models.quantised(model)


def with_lora(model):
    linear_to_lora_layers(model, 2, {"rank": 2, "scale": 1.0, "dropout": 0.0})


def reloaded(model):
    weights = [(k, v * 1.5) for k, v in tree_flatten(model.parameters())]
    model.load_weights(weights)


CHANGES = [
    changed_norm, changed_in_place, changed_setting, quantised, with_lora, reloaded,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_goes_through_its_layers(change):
    stock, fast = lm_models.tiny_lfm2_moe(), installed(lm_models.tiny_lfm2_moe())
    for model in (stock, fast):
        mx.random.seed(3)
        change(model)
    with pytest.warns(UserWarning, match="has changed since it was patched"):
        assert greedy(fast) == greedy(stock)
    if change in (with_lora, changed_setting):  # no longer what args says
        assert decode.install(fast)[0] is None
    else:
        installed(fast)
    assert greedy(fast) == greedy(stock)


def test_what_cannot_be_proved_stays_as_it_is():
    model = lm_models.tiny_lfm2_moe()
    model.args.rope_theta = 500.0  # not what the layers were made with
    error, reason = decode.install(model)
    assert error is None and "probe must differ" in reason
    assert decode.session_of(model) is None and type(model).__mro__[1] is nn.Module


def test_a_family_without_a_program_says_so():
    from mlx_lm.models import mamba2

    args = mamba2.ModelArgs(
        model_type="mamba2", num_heads=4, head_dim=16, vocab_size=100, hidden_size=32,
        intermediate_size=64, state_size=16, num_hidden_layers=1,
        layer_norm_epsilon=1e-5, conv_kernel=4, n_groups=1, use_bias=False,
        use_conv_bias=True, tie_word_embeddings=True, time_step_limit=(0.0, 1.0),
        time_step_rank="auto",
    )  # fmt: skip
    error, reason = decode.install(mamba2.Model(args))
    assert error is None and "model_type must be one of" in reason


def test_removing_restores_the_model_bit_by_bit(stock):
    model = installed(lm_models.tiny_lfm2_moe())
    assert decode.remove(model) and not decode.remove(model)
    assert type(model) is type(stock) and vars(model).keys() == vars(stock).keys()
    tokens = mx.array([PROMPT])
    assert mx.array_equal(model(tokens), stock(tokens))


def test_installing_again_keeps_the_network_until_the_model_changes():
    model = installed(lm_models.tiny_lfm2())
    session = decode.session_of(model)
    installed(model)
    assert decode.session_of(model) is session
    changed_norm(model)
    installed(model)
    assert decode.session_of(model) is not session


def test_copies_and_files_hold_the_model_alone(stock, fast, tmp_path):
    assert decode.session_of(copy.deepcopy(fast)) is None
    assert greedy(copy.deepcopy(fast), count=5) == greedy(stock, count=5)
    path = str(tmp_path / "weights.safetensors")
    fast.save_weights(path)
    saved = mx.load(path)
    assert saved.keys() == dict(tree_flatten(stock.parameters())).keys()


def test_bfloat16_is_nearer_to_float32_than_the_layers():
    oracle = lm_models.demo(None)
    tokens = mx.array([[5, 9, 100, 31, 7, 40, 3, 77]])
    embed = oracle.model.embed_tokens
    h = mx.dequantize(
        embed.weight[tokens],
        embed.scales[tokens].astype(mx.float32),
        embed.biases[tokens].astype(mx.float32),
        group_size=64,
        bits=4,
    )
    exact = oracle(tokens, input_embeddings=h)
    stock = oracle(tokens).astype(mx.float32)
    fast = installed(lm_models.demo(None))
    cache = make_prompt_cache(fast)
    ours = [fast(tokens[:, :6], cache=cache), fast(tokens[:, 6:7], cache=cache)]
    apart = mx.abs(mx.concatenate(ours, axis=1) - exact[:, :7]).max().item()
    assert apart < 1e-3 * mx.abs(stock - exact).max().item()
    assert ours[1].dtype == mx.float32


def test_two_threads_decode_at_once(stock, fast):
    prompts = [PROMPT, PROMPT[::-1], PROMPT[3:], PROMPT[5:]]
    expected = [greedy(stock, prompt=p) for p in prompts]
    got = [None] * len(prompts)

    def work(i):
        got[i] = greedy(fast, prompt=prompts[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == expected


def test_a_model_installed_in_another_thread_serves_this_one(stock):
    model = lm_models.tiny_lfm2_moe()
    thread = threading.Thread(target=installed, args=(model,))
    thread.start()
    thread.join()
    assert greedy(model) == greedy(stock)
