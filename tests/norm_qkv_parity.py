# SPDX-License-Identifier: MIT
"""Logits with the pattern norm_qkv against mlx_lm's, whole prompts and steps."""

import numpy as np
import pytest
from lfm2_parity import DENSE as LFM2
from lfm2_parity import MOE as LFM2_MOE
from llama_parity import LLAMA, QWEN2
from parity import SMALL_FLOATS, build, expected, ours, patterns_of, save
from qwen3_parity import DENSE as QWEN3

FLAGS = ["--patterns", "norm_qkv"]


@pytest.mark.parametrize(
    "base", [LFM2, LFM2_MOE, LLAMA, QWEN2, QWEN3], ids=lambda b: b["model_type"]
)
@pytest.mark.parametrize(
    "quantization",
    [{"group_size": 64, "bits": 4}, {"group_size": 32, "bits": 8}, SMALL_FLOATS[0]],
    ids=["4", "8", "mxfp4"],
)
def test_logits_equal_mlx_lm(tmp_path, base, quantization):
    model, config = build(base, 9, quantization)
    save(model, config, tmp_path)
    whole, steps = expected(model)
    np.testing.assert_allclose(ours(tmp_path, *FLAGS), whole, atol=1e-4)
    np.testing.assert_allclose(ours(tmp_path, "--step", *FLAGS), steps, atol=1e-4)
    assert patterns_of(tmp_path, *FLAGS) == ["norm_qkv"]


def test_layers_of_floats_are_not_of_its_kind(tmp_path):
    model, config = build(LLAMA, 9, None)
    save(model, config, tmp_path)
    assert patterns_of(tmp_path, *FLAGS) == []
