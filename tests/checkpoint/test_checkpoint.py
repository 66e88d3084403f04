# SPDX-License-Identifier: MIT
"""Checkpoints against mlx, safetensors and mlx_lm, through checkpoint_tool."""

import json
import math
import operator
import os
import random
import struct
import subprocess

import mlx.core as mx
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, load_model

TOOL = os.environ["ZMLX_CHECKPOINT_TOOL"]
NO_SPLIT = str(5 << 30)


def call(*words):
    done = subprocess.run(
        [TOOL, *map(str, words)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout) if done.stdout else None


def bytes_of(array):
    return bytes(mx.view(array.reshape(-1), mx.uint8)) if array.size else b""


def check_same(dumped, arrays):
    names = {
        mx.float32: "F32",
        mx.float16: "F16",
        mx.bfloat16: "BF16",
        mx.int64: "I64",
        mx.int32: "I32",
        mx.int16: "I16",
        mx.int8: "I8",
        mx.uint64: "U64",
        mx.uint32: "U32",
        mx.uint16: "U16",
        mx.uint8: "U8",
        mx.bool_: "BOOL",
    }
    assert sorted(dumped) == sorted(arrays)
    for name, array in arrays.items():
        assert dumped[name]["dtype"] == names[array.dtype], name
        assert tuple(dumped[name]["shape"]) == array.shape, name
        assert bytes.fromhex(dumped[name]["bytes"]) == bytes_of(array), name


def many_arrays():
    mx.random.seed(0)
    x = mx.random.normal((3, 5)) * 9
    types = [mx.float32, mx.float16, mx.bfloat16, mx.int64, mx.int32, mx.int16]
    types += [mx.int8, mx.uint64, mx.uint32, mx.uint16, mx.uint8, mx.bool_]
    arrays = {f"t.{i}": mx.abs(x).astype(t) for i, t in enumerate(types)}
    arrays["scalar"] = mx.array(2.5, mx.bfloat16)
    arrays["empty"] = mx.zeros((0, 7))
    arrays["odd"] = mx.arange(13).astype(mx.uint8)
    arrays["unicode \u00e9\u4e16"] = mx.ones((2,))
    return arrays


@pytest.mark.parametrize("padding", range(8))
def test_reads_what_mlx_writes_at_any_alignment(tmp_path, padding):
    # MLX does not pad its header, so the data may start at any byte.
    arrays = many_arrays()
    path = tmp_path / "model.safetensors"
    mx.save_safetensors(str(path), arrays, {"format": "m" * padding})
    (tmp_path / "config.json").write_text("{}")
    check_same(call("dump", tmp_path), arrays)


def test_reads_what_safetensors_writes(tmp_path):
    rng = np.random.default_rng(0)
    types = ["f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
    arrays = {t: (rng.random((4, 3)) * 100).astype(t) for t in types}
    arrays["none"] = np.zeros((3, 0), "f4")
    arrays["scalar"] = np.array(3, "i4")
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    dumped = call("dump", tmp_path)
    assert sorted(dumped) == sorted(arrays)
    for name, array in arrays.items():
        assert tuple(dumped[name]["shape"]) == array.shape
        assert bytes.fromhex(dumped[name]["bytes"]) == array.tobytes()


def test_safetensors_and_mlx_read_what_we_write(tmp_path):
    path = tmp_path / "a.safetensors"
    call("save", path)
    loaded, metadata = mx.load(str(path), return_metadata=True)
    assert metadata == {"format": "mlx", "note": 'a"b\\\n'}
    grid = np.arange(6, dtype=np.float32).reshape(2, 3)
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata() == metadata
        assert sorted(file.keys()) == sorted(loaded)
        for name in set(loaded) - {"brain"}:
            assert (file.get_tensor(name) == np.array(loaded[name])).all()
        assert (file.get_tensor("grid") == grid.T).all()
        assert file.get_tensor('na"me\n').dtype == np.uint16
    assert loaded["brain"].dtype == mx.bfloat16
    assert (np.array(loaded["brain"].astype(mx.float32)) == grid).all()
    size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    assert (8 + size) % 64 == 0


def mutated_file(rng):
    """A file that is good, or has one thing wrong with it."""
    counts = [rng.choice([0, 1, 2, 5]) for _ in range(rng.randint(0, 4))]
    entries, offset = {}, 0
    for i, count in enumerate(counts):
        dtype, size = rng.choice([("F32", 4), ("BF16", 2), ("U8", 1), ("I64", 8)])
        end = offset + count * size
        entries[f"t{i}"] = {
            "dtype": dtype,
            "shape": rng.choice([[count], [count, 1], [1, count]]),
            "data_offsets": [offset, end],
        }
        offset = end
    data = offset
    for _ in range(rng.choice([0, 0, 1, 1, 1, 2])):
        kind = rng.randrange(7)
        entry = rng.choice(list(entries.values())) if entries else None
        if kind == 0:
            data = max(0, data + rng.choice([-1, 1]))
        elif entry is None:
            continue
        elif kind == 1:
            place = rng.randrange(2)
            entry["data_offsets"][place] += rng.choice([-8, -4, -1, 1, 4, 8])
        elif kind == 2:
            entry["shape"] = entry["shape"] + [rng.choice([0, 1, 2, -1, 2**31 - 1])]
        elif kind == 3:
            entry["dtype"] = rng.choice(["F32", "F16", "U8", "X", "f32", 3, None])
        elif kind == 4:
            del entry[rng.choice(["dtype", "shape", "data_offsets"][: len(entry)])]
            break
        elif kind == 5:
            entry["data_offsets"] = rng.choice([[0], [0, 1, 2], [], 5, [0, 1.5]])
            break
        else:
            entries["extra"] = json.loads(json.dumps(entry))
    header = json.dumps(entries).encode()
    header += b" " * rng.choice([0, 0, 3])
    length = len(header) + rng.choice([0] * 9 + [-1, 1, 1 << 40])
    return struct.pack("<Q", length) + header + bytes(data)


def test_takes_and_refuses_files_as_safetensors_does(tmp_path):
    rng = random.Random(5)
    taken = {}
    for i in range(3000):
        path = tmp_path / f"{i}"
        path.write_bytes(mutated_file(rng))
        try:
            with safetensors.safe_open(path, "numpy"):
                taken[path.name] = True
        except safetensors.SafetensorError:
            taken[path.name] = False
    ours = call("headers", tmp_path)
    different = {
        name: (ours[name], (tmp_path / name).read_bytes()[:300])
        for name, good in taken.items()
        if (ours[name] == "") != good
    }
    assert not different
    assert 500 < sum(taken.values()) < 2500


@pytest.mark.parametrize(
    "mode,bits",
    [("affine", b) for b in (2, 3, 4, 5, 6, 8)]
    + [("mxfp4", 4), ("nvfp4", 4), ("mxfp8", 8)],
)
@pytest.mark.parametrize(
    "shape, gate",
    [("lfm2-moe-tiny", "feed_forward.gate"), ("qwen3-moe-tiny", "mlp.gate")],
)
def test_mlx_lm_loads_and_runs_a_synthetic_model(tmp_path, mode, bits, shape, gate):
    out = tmp_path / "m"
    call("synth", shape, out, mode, bits, NO_SPLIT)
    model, config = load_model(out)
    assert config["quantization"]["bits"] == bits
    logits = model(mx.array([[1, 5, 9, 400]])).astype(mx.float32)
    assert logits.shape == (1, 4, 512)
    # Sane activations: neither dead nor exploding.
    assert 0.05 < mx.std(logits).item() < 20
    gate = operator.attrgetter(gate)(model.layers[1])
    assert (gate.bits, gate.group_size, gate.mode) == (8, 64, "affine")


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("lfm2-1.2b", 1170340608),
        ("lfm2-8b-a1b", 8339930560),
        ("lfm2-moe-tiny", None),
        ("qwen3-30b-a3b", 30532122624),
        ("qwen3-moe-tiny", None),
    ],
)
def test_shapes_are_those_of_mlx_lms_model(name, parameters):
    shown = call("shape", name)
    model_class, arguments = _get_classes(shown["config"])
    model = model_class(arguments.from_dict(shown["config"]))
    theirs = {k: list(v.shape) for k, v in tree_flatten(model.parameters())}
    assert shown["weights"] == theirs
    if parameters:
        assert sum(map(math.prod, theirs.values())) == parameters


def test_mlx_lm_loads_a_split_model(tmp_path):
    call("synth", "lfm2-moe-tiny", tmp_path / "one", "affine", 4, NO_SPLIT)
    call("synth", "lfm2-moe-tiny", tmp_path / "many", "affine", 4, 200000)
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 2
    one = dict(tree_flatten(load_model(tmp_path / "one")[0].parameters()))
    many = dict(tree_flatten(load_model(tmp_path / "many")[0].parameters()))
    assert sorted(one) == sorted(many)
    assert all(mx.array_equal(one[name], many[name]).item() for name in one)
    check_same(call("dump", tmp_path / "many"), one)
    index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
    total = sum(array.nbytes for array in one.values())
    assert index["metadata"]["total_size"] == total
