# SPDX-License-Identifier: MIT
"""Writes a tiny random LFM2-MoE checkpoint with a tokenizer, through mlx_lm."""

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import lfm2_moe
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CONFIG = {
    "model_type": "lfm2_moe",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128000,
    "use_expert_bias": True,
    "num_dense_layers": 1,
    "norm_eps": 1e-5,
    "conv_bias": False,
    "conv_L_cache": 3,
    "rope_theta": 1000000.0,
    "layer_types": ["conv", "full_attention", "conv"],
}
TEXT = "Once upon a time there was a small house by the sea. " * 20


def write_tokenizer(folder: Path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))


def write_model(folder: Path, seed: int = 0):
    """A 4-bit model in float32 whose tokens do not loop at once."""
    mx.random.seed(seed)
    args = lfm2_moe.ModelArgs.from_dict(CONFIG)
    model = lfm2_moe.Model(args)
    model.update(
        tree_map(
            lambda x: (
                mx.random.normal(x.shape) * (x.shape[-1] ** -0.5)
                if x.ndim > 1
                else x + 0.1 * mx.random.normal(x.shape)
            ),
            model.parameters(),
        )
    )
    nn.quantize(
        model,
        group_size=32,
        bits=4,
        class_predicate=lambda path, module: (
            hasattr(module, "to_quantized") and not path.endswith("feed_forward.gate")
        ),
    )
    weights = dict(tree_flatten(model.parameters()))
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    config = dict(CONFIG, eos_token_id=0)
    config["quantization"] = {"group_size": 32, "bits": 4}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write_tokenizer(folder)
    return folder


if __name__ == "__main__":
    import sys

    write_model(Path(sys.argv[1]))
