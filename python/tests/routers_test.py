# SPDX-License-Identifier: MIT
"""Where rounding alone decides to which experts a stock model sends a token."""

import lm_models
import mlx.core as mx
import numpy as np
import patch_models
import pytest

from zmlx import _core
from zmlx._routers import RouterWatch

TOKENS = mx.array([[5, 9, 77, 3, 41, 60, 12, 8]])


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    made = np.exp(z - z.max())
    return made / made.sum()


def gap_by_halving(score, top_k, logits, bias):
    """The part of the largest logit by which the last chosen expert's logit and the
    next one's move towards one another until the choice is another."""
    logits, bias = np.asarray(logits, np.float64), np.asarray(bias, np.float64)
    order = np.argsort(-(score(logits) + bias))
    last, after = order[top_k - 1], order[top_k]

    def changed(part):
        moved = logits.copy()
        moved[last] -= part * np.abs(logits).max()
        moved[after] += part * np.abs(logits).max()
        ranks = score(moved) + bias
        return ranks[after] >= ranks[last]

    low, high = 0.0, 1.0
    while not changed(high):
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if changed(middle) else (middle, high)
    return high


@pytest.mark.parametrize("score", [sigmoid, softmax])
@pytest.mark.parametrize("biased", [False, True])
def test_a_gap_is_how_far_two_logits_must_move(score, biased):
    random = np.random.default_rng(3)
    spec = _core.RouterSpec(score=score.__name__, top_k=4)
    for apart in (1e-2, 1e-4, 1e-6):
        logits = random.normal(size=16)
        order = np.argsort(-score(logits))
        bias = np.zeros(16)
        if biased:  # one that nearly ties them
            bias[order[3]] = score(logits)[order[4]] - score(logits)[order[3]]
        else:
            logits[order[4]] = logits[order[3]]
        logits[order[3]] += apart
        gap = _core.least_router_gap(
            spec, mx.array(logits), mx.array(bias) if biased else None
        )
        exact = [v.astype(np.float32) for v in (logits, bias)]
        assert gap == pytest.approx(
            gap_by_halving(score, 4, *exact), rel=5 * apart + 1e-6, abs=1e-8
        )


def watched_by_hand(model, kind):
    """Each block of a class, and what it was called with."""
    calls, stock = [], kind.__call__

    def call(self, x, *args, **kwargs):
        calls.append((self, np.array(x.reshape(-1, x.shape[-1]), np.float64)))
        return stock(self, x, *args, **kwargs)

    kind.__call__ = call
    try:
        model(TOKENS)
    finally:
        kind.__call__ = stock
    return calls


@pytest.mark.parametrize(
    ("make", "score", "bias_of"),
    [
        (lm_models.tiny_lfm2_moe, sigmoid, lambda block: block.expert_bias),
        (lm_models.tiny_qwen3_moe, softmax, lambda block: mx.zeros(1)),
        (
            lambda: patch_models.tiny("glm4_moe"),
            sigmoid,
            lambda block: block.gate.e_score_correction_bias,
        ),
    ],
)
def test_a_watch_finds_the_least_gap_of_all_rows_and_layers(make, score, bias_of):
    model = make()
    blocks = [m for _, m in model.named_modules() if "switch_mlp" in m]
    kinds = {type(block) for block in blocks}
    assert blocks and len(kinds) == 1
    gates = [type(block.gate) for block in blocks]
    expected = []
    for block, x in watched_by_hand(model, kinds.pop()):
        top_k = getattr(block, "top_k", None) or block.gate.top_k
        bias = np.array(bias_of(block), np.float64)
        for row in x @ np.array(block.gate.weight, np.float64).T:
            expected.append(gap_by_halving(score, top_k, row, bias))
    with RouterWatch(model) as watch:
        assert watch.least_gap() == np.inf
        stock = model(TOKENS)
        assert watch.least_gap() == pytest.approx(min(expected), rel=0.02)
        assert watch.least_gap() == np.inf
    assert [type(block.gate) for block in blocks] == gates
    assert mx.array_equal(model(TOKENS), stock)


@pytest.mark.parametrize("name", ["granitemoe", "hunyuan", "jamba", "mixtral"])
def test_a_watch_finds_routers_by_other_names(name):
    model = patch_models.tiny(name)
    with RouterWatch(model) as watch:
        model(TOKENS)
        assert 0 < watch.least_gap() < 0.5


def test_a_model_without_routers_has_no_ties():
    model = lm_models.tiny_lfm2()
    with RouterWatch(model) as watch:
        model(TOKENS)
        assert watch.least_gap() == np.inf


def proof_that_parts(at, gap):
    """What is wrong with 12 steps of which patched takes another token from `at`."""
    validation = _core.Validation(str(lm_models.DEMO), "float32", "none", 12, 1, False)
    number = validation.add_prompt("", [1, 2])
    stock = mx.array([3.0, 1.0, 0.0])
    for step in range(12):
        patched = stock if step < at else mx.array([0.0, 1.0, 3.0])
        validation.compare(number, step, stock, patched, None)
    validation.set_tokens(number, [0] * 12, [0] * at + [2] * (12 - at))
    step = validation.departure(number)
    if gap is not None:
        validation.set_tie(number, step, gap)
    return step, validation.finish()


def test_a_tie_ends_what_is_judged_of_a_prompt():
    assert proof_that_parts(12, None) == (-1, [])
    step, failures = proof_that_parts(9, None)
    assert step == 9 and failures[0].startswith("L1: prompt 1 diverges at token 9")
    assert proof_that_parts(9, 1e-6) == (9, [])
    assert proof_that_parts(9, 2e-5)[1] == failures
    assert "half of the steps" in proof_that_parts(3, 1e-6)[1][0]
