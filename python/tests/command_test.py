# SPDX-License-Identifier: MIT
"""The command lines: validate, bench.report, generate and the console script."""

import json
import subprocess
import sys

import lm_models
import mlx.core as mx
import pytest

from zmlx import _lm, cli, validate
from zmlx.bench import report

DEMO = str(lm_models.DEMO)
FAST = [DEMO, "--max-tokens", "6", "--runs", "1", "--prompt", "Once upon a time"]


def python(*args):
    return subprocess.run(
        [sys.executable, "-m", *args], capture_output=True, text=True, timeout=120
    )


def test_validate_proves_the_demo_model_and_writes_a_capsule(tmp_path, capsys):
    path = tmp_path / "capsule.json"
    assert validate.main([*FAST, "--json", str(path)]) == 0
    text = capsys.readouterr().out
    assert "FIDELITY:  6/6 tokens identical [PASS]" in text
    assert "activations float32" in text and "1 thread" in text
    for line in ("Baseline (stock MLX)", "VALIDATION REPORT", "Run 1/1 ...", "Speedup"):
        assert line in text
    capsule = json.loads(path.read_text())
    meta, model = capsule["meta"], capsule["demo"]
    assert meta["mlx_version"] == mx.__version__ and meta["python"]
    assert meta["command"].startswith("python -m zmlx.validate ")
    assert model["fidelity"] == {"matched": 6, "total": 6, "verdict": "PASS"}
    assert model["patched"]["patterns"] and model["patched"]["modules_patched"] >= 1
    for side in ("baseline", "patched"):
        assert len(model[side]["decode_tok_s"]) == 1
        assert model[side]["median_prefill"] > 0 and model[side]["peak_mem_gb"] > 0
    assert model["summary"]["decode_speedup"] > 0
    assert model["ladder"]["L3"] == {"oracle": "stock itself"}
    assert report.main([str(path)]) == 0
    assert "Fidelity" in capsys.readouterr().out


def test_validate_at_bfloat16_compares_both_sides_with_float32(tmp_path, capsys):
    path = tmp_path / "capsule.json"
    args = [*FAST, "--dtype", "bfloat16", "--json", str(path)]
    assert validate.main(args) == 0
    ladder = json.loads(path.read_text())["demo"]["ladder"]
    assert ladder["L3"]["oracle"] == "stock at float32"
    assert ladder["L3"]["patched_rms_error"] < ladder["L3"]["stock_rms_error"]


def test_validate_fails_a_model_whose_patch_is_wrong(monkeypatch, capsys):
    class Result:
        modules = {"": "planted"}

    def plant(model, args):
        def call(self, *args, **kwargs):
            return -type(self).__mro__[1].__call__(self, *args, **kwargs)

        stock = type(model)
        model.__class__ = type(stock.__name__, (stock,), {"__call__": call})
        return Result()

    monkeypatch.setattr(_lm, "patch_model", plant)
    assert validate.main(FAST) == 1
    text = capsys.readouterr().out
    assert "[FAIL]" in text and "FAIL L1: prompt 1 diverges at token 0" in text
    assert "of a tie: no tie" in text


def test_validate_takes_random_prompts_where_there_is_no_tokenizer(tmp_path, capsys):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(lm_models.DEMO / name)
    assert validate.main([str(tmp_path), "--max-tokens", "2", "--runs", "1"]) == 0
    assert "5 prompts, 10 tokens" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--prompt needs a model with a tokenizer"):
        validate.main([str(tmp_path), "--prompt", "a"])


@pytest.mark.parametrize(
    "args",
    [[], [DEMO, "--runs", "0"], [DEMO, "--max-tokens", "0"], [DEMO, "--dtype", "int8"]],
)
def test_wrong_use_of_validate_exits_with_2(args, capsys):
    with pytest.raises(SystemExit) as stop:
        validate.main(args)
    assert stop.value.code == 2


def test_an_unknown_pattern_or_model_is_one_line_and_2(capsys):
    assert cli.main(["validate", DEMO, "--patterns", "moe_mpl"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["validate", "/no/such/model"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_report_without_a_capsule_exits_with_1(tmp_path, capsys):
    assert report.main([str(tmp_path / "none.json")]) == 1
    assert "none.json" in capsys.readouterr().err
    (tmp_path / "bad.json").write_text("{")
    assert report.main([str(tmp_path / "bad.json")]) == 1
    assert python("zmlx.bench", str(tmp_path / "none.json")).returncode == 1


def test_the_console_script_lists_its_commands(capsys):
    assert cli.main([]) == 1
    assert "validate" in capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert cli.main(["valdate"]) == 2
    assert "Did you mean 'validate'?" in capsys.readouterr().err
    done = python("zmlx", "--version")
    assert done.returncode == 0 and done.stdout.startswith("zmlx ")


def test_generate_prints_the_text_of_the_same_model_unpatched():
    args = ["--model", DEMO, "--prompt", "ROMEO:", "--max-tokens", "8", "--temp", "0"]
    patched = python("zmlx.generate", *args, "--patch-verbose")
    stock = python("zmlx.generate", *args, "--no-patch")
    assert patched.returncode == stock.returncode == 0, patched.stderr
    assert "Patched" in patched.stderr and "Patched" not in stock.stderr

    def body(done):
        return done.stdout.split("==========")[1]

    # At bfloat16 the patched side is the nearer one to float32, so only the first
    # words are sure to agree.
    assert body(patched)[:8] == body(stock)[:8]
    assert "Generation: 8 tokens" in patched.stdout


def test_generate_knows_the_flags_of_mlx_lm():
    done = python("zmlx.generate", "--help")
    assert done.returncode == 0
    for flag in ("--patterns", "--no-patch", "--max-kv-size", "--kv-bits"):
        assert flag in done.stdout
    assert python("zmlx.generate", "--no-such-flag").returncode == 2
