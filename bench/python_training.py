# SPDX-License-Identifier: MIT
"""Training steps of small models, stock and patched by turns.

PYTHONPATH=build/python .venv/bin/python bench/python_training.py llama --seconds 20
The step is mlx_lm's own: compiled, Adam, its loss or the fused one.
"""

import argparse
import statistics
import time
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx_lm.models import llama, qwen3_moe
from mlx_lm.tuner.trainer import default_loss
from mlx_lm.tuner.utils import linear_to_lora_layers

from zmlx.patch import patch
from zmlx.train import fused_loss

VOCABULARY = 8192
COMMON = dict(vocab_size=VOCABULARY, rms_norm_eps=1e-5)
SIZES = {
    "llama": (
        llama,
        dict(
            hidden_size=256,
            num_hidden_layers=4,
            intermediate_size=768,
            num_attention_heads=8,
            num_key_value_heads=4,
        ),
    ),
    "qwen3_moe": (
        qwen3_moe,
        dict(
            hidden_size=128,
            num_hidden_layers=2,
            intermediate_size=256,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            num_experts=8,
            num_experts_per_tok=2,
            decoder_sparse_step=1,
            mlp_only_layers=[],
            moe_intermediate_size=128,
            rope_theta=1e4,
            tie_word_embeddings=False,
            max_position_embeddings=512,
            norm_topk_prob=True,
        ),
    ),
}


def side(args, patched, loss):
    """A step of a model of its own: batch and lengths to the loss."""
    mx.random.seed(0)
    kind, sizes = SIZES[args.model]
    config = kind.ModelArgs(model_type=args.model, **COMMON, **sizes)
    model = kind.Model(config)
    if args.bits:
        nn.quantize(model, 64, args.bits)
    if patched:
        patch(model, mode="training")
    if not args.full:
        model.freeze()
        options = {"rank": 8, "scale": 2.0, "dropout": 0.0}
        linear_to_lora_layers(model, len(model.layers), options)
    model.train()
    optimizer = optim.Adam(1e-4)
    grad = nn.value_and_grad(model, loss)
    state = [model.state, optimizer.state, mx.random.state]
    mx.eval(state)

    @partial(mx.compile, inputs=state, outputs=state)
    def step(batch, lengths):
        (value, _), grads = grad(model, batch, lengths)
        optimizer.update(model, grads)
        return value

    def run(batch, lengths):
        value = step(batch, lengths)
        mx.eval(state, value)
        return value.item()

    return run


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=SIZES)
    parser.add_argument("--bits", type=int, default=0, help="quantise first")
    parser.add_argument("--full", action="store_true", help="train every weight")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)
    sides = {
        "stock": side(args, False, default_loss),
        "patched": side(args, True, default_loss),
        "patched, fused loss": side(args, True, fused_loss),
    }
    lengths = mx.array([[0, args.tokens]] * args.batch)
    seconds = {name: [] for name in sides}
    losses = {name: [] for name in sides}
    end, count = time.perf_counter() + args.seconds, 0
    while time.perf_counter() < end or count < 4:
        shape = (args.batch, args.tokens + 1)
        batch = mx.random.randint(0, VOCABULARY, shape, key=mx.random.key(count))
        order = list(sides.items())
        for name, run in order[count % 3 :] + order[: count % 3]:
            begin = time.perf_counter()
            losses[name].append(run(batch, lengths))
            seconds[name].append(time.perf_counter() - begin)
        count += 1
    stock = statistics.median(seconds["stock"][1:])
    for name in sides:
        middle = statistics.median(seconds[name][1:])
        pairs = zip(losses[name], losses["stock"], strict=True)
        off = max(abs(a - b) for a, b in pairs)
        print(
            f"{name:<20} {1e3 * middle:8.1f} ms {stock / middle:6.2f}x"
            f"  loss off by {off:.1e} in {count} steps"
        )


if __name__ == "__main__":
    main()
