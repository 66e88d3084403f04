# SPDX-License-Identifier: MIT
"""What parity tests share: tiny random models of mlx_lm, their checkpoints, and
the logits of both at float32."""

import json
import os
import subprocess
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import lfm2, lfm2_moe, llama, qwen2, qwen3, qwen3_moe
from mlx_lm.models.cache import make_prompt_cache

PROGRAM = Path(os.environ["ZMLX_BUILD_DIR"]) / "bin" / "zmlx"
TOKENS = [3, 17, 99, 4, 4, 250, 31, 8, 77, 120, 5, 6]

SMALL_FLOATS = [
    {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    {"group_size": 16, "bits": 4, "mode": "nvfp4"},
    {"group_size": 32, "bits": 8, "mode": "mxfp8"},
]
FAMILIES = {
    "lfm2": lfm2,
    "lfm2_moe": lfm2_moe,
    "llama": llama,
    "mistral": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
}


def build(base, seed, quantization, **changes):
    config = {**base, **changes}
    mx.random.seed(seed)
    family = FAMILIES[config["model_type"]]
    model = family.Model(family.ModelArgs.from_dict(config))
    model.update(
        tree_map(
            lambda p: mx.random.normal(p.shape) * 0.06 + (p.ndim == 1) * 1.0,
            model.parameters(),
        )
    )
    for layer in model.layers:
        feed_forward = getattr(layer, "feed_forward", None)
        if hasattr(feed_forward, "expert_bias"):
            # Around 0, not 1 as norms are: scores must count beside it.
            bias = mx.random.normal(feed_forward.expert_bias.shape) * 0.1
            feed_forward.expert_bias = bias
    if quantization:
        nn.quantize(model, **quantization)
        config["quantization"] = quantization
    mx.eval(model.parameters())
    return model, config


def save(model, config, folder, names=lambda weights: weights):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    weights = names(dict(tree_flatten(model.parameters())))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})


def expected(model):
    whole = model(mx.array([TOKENS]))[0]
    cache = make_prompt_cache(model)
    steps = [model(mx.array([[t]]), cache=cache)[0, -1] for t in TOKENS]
    return np.array(whole), np.array(mx.stack(steps))


def ours(folder, *flags, tokens=TOKENS):
    out = folder / "logits.safetensors"
    subprocess.run(
        [
            str(PROGRAM),
            "logits",
            str(folder),
            "--tokens",
            ",".join(map(str, tokens)),
            "--output",
            str(out),
            *flags,
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return np.array(mx.load(str(out))["logits"])


def check(model, folder):
    whole, steps = expected(model)
    for flags in ((), ("--no-patch",)):
        np.testing.assert_allclose(ours(folder, *flags), whole, atol=1e-4)
        np.testing.assert_allclose(ours(folder, "--step", *flags), steps, atol=1e-4)


def patterns_of(folder, *flags):
    """The patterns that fused modules of a checkpoint come from."""
    done = subprocess.run(
        [str(PROGRAM), "bench", "--model", str(folder)]
        + ["-p", "0", "-n", "1", "-r", "1", "-o", "json", *flags],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)[0]["patterns"]


def check_greedy(model, folder, count):
    """Given mlx_lm's own choices as a text, ours would choose the same."""
    cache = make_prompt_cache(model)
    tokens, next_ones = list(TOKENS), TOKENS
    for _ in range(count):
        logits = model(mx.array([next_ones]), cache=cache)[0, -1]
        next_ones = [mx.argmax(logits).item()]
        tokens += next_ones
    for flags in ((), ("--no-patch",)):
        logits = ours(folder, "--step", *flags, tokens=tokens)
        chosen = logits.argmax(-1)[len(TOKENS) - 1 : -1]
        assert chosen.tolist() == tokens[len(TOKENS) :]


def check_random(folder, base, seed, quantization, **changes):
    """Checks a random model of this configuration; answers with it."""
    model, config = build(base, seed, quantization, **changes)
    save(model, config, folder)
    check(model, folder)
    return model


def check_error(tmp_path, base, change, message):
    model, config = build(base, 5, None)
    save(model, {**config, **change}, tmp_path)
    run = subprocess.run(
        [str(PROGRAM), "logits", str(tmp_path), "--tokens", "1", "--output", "x"],
        capture_output=True,
        text=True,
    )
    assert run.returncode in (1, 2)
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
