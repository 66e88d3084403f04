# SPDX-License-Identifier: MIT
"""validate, bench, report and compare as users meet them."""

import json
import os
import shutil
import stat

import pytest
import tiny_model

ROW_KEYS = {"build_commit", "cpu_info", "model_type", "n_prompt", "n_gen", "n_depth"}
ROW_KEYS |= {"test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts"}
SAMPLE_KEYS = {"samples_ns", "samples_ts"}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return str(tiny_model.write_model(tmp_path_factory.mktemp("a model") / "tiny"))


@pytest.fixture(scope="session")
def capsule(zmlx, tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("capsule") / "c.json"
    prompts = ("--prompt", "the sea's edge", "--prompt", "a", "--tokens", "1,2,3")
    sizes = ("--max-tokens", 12, "--runs", 2)
    done = zmlx("validate", tiny, *prompts, *sizes, "--json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    return path, done.stdout


def test_validate_prints_the_proof(capsule):
    text = capsule[1]
    assert "tokens identical [PASS]" in text
    assert "L1 greedy tokens    3/3 prompts identical" in text
    assert "Baseline" in text and "Patched" in text and "Speedup" in text


def test_validate_keeps_a_capsule(capsule):
    data = json.loads(capsule[0].read_text())
    model = data["tiny"]
    assert data["meta"]["schema_version"] == 1
    assert "'the sea'\\''s edge'" in data["meta"]["command"]
    assert model["fidelity"]["verdict"] == "PASS"
    assert model["fidelity"]["matched"] == model["fidelity"]["total"] > 0
    assert len(model["model_hash"]) == 32 and len(model["tokenizer_hash"]) == 32
    assert len(model["patched"]["decode_tok_s"]) == model["runs"] == 2
    assert model["patched"]["modules_patched"] > 0
    assert 0 <= model["ladder"]["L2"]["mean_kld"] <= 1e-7
    assert [prompt.get("tokens") for prompt in model["prompts"]] == [
        None,
        None,
        [1, 2, 3],
    ]
    ratio = model["patched"]["median_decode"] / model["baseline"]["median_decode"]
    assert model["summary"]["decode_speedup"] == pytest.approx(ratio)


def test_validate_runs_the_rules_of_narrow_types(zmlx, tiny, tmp_path):
    path = tmp_path / "c.json"
    flags = ("--dtype", "bfloat16", "--max-tokens", 6, "--runs", 1, "--json", path)
    done = zmlx("validate", tiny, "--prompt", "a", *flags)
    assert done.returncode in (0, 1), done.stderr
    model = json.loads(path.read_text())["tiny"]
    assert model["ladder"]["L3"]["stock_rms_error"] > 0
    assert (model["ladder"]["failures"] == []) == (done.returncode == 0)


def test_validate_does_without_a_tokenizer(zmlx, tiny, tmp_path):
    for name in ("config.json", "model.safetensors"):
        os.symlink(f"{tiny}/{name}", tmp_path / name)
    done = zmlx("validate", tmp_path, "--max-tokens", 2, "--runs", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5/5 prompts identical" in done.stdout
    done = zmlx("validate", tmp_path, "--prompt", "text")
    assert done.returncode == 2 and "tokenizer" in done.stderr


def test_validate_stops_at_the_end_token(zmlx, tiny, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    prompt = ("--prompt", "the sea", "--raw", "--max-tokens", 8)
    done = zmlx("generate", "--model", copy, *prompt, "--json")
    greedy = [json.loads(line)["token"] for line in done.stdout.splitlines()[:-1]]
    (copy / "generation_config.json").write_text(
        json.dumps({"eos_token_id": greedy[3]})
    )
    path = tmp_path / "c.json"
    done = zmlx("validate", copy, *prompt, "--runs", 1, "--json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(path.read_text())["copy"]["prompts"]
    assert [part["total"] for part in parts] == [greedy.index(greedy[3]) + 1]


@pytest.mark.parametrize(
    "args, words",
    [
        (["--max-tokens", 0], "max_tokens must be at least 1, got 0"),
        (["--runs", 0], "runs must be at least 1"),
        (["--tokens", "1,x"], "--tokens must be ids such as 1,2,3, got 'x'"),
        (["--tokens", "999999"], "token ids must be in 0.."),
        (["--patterns", "moe_mpl"], "Did you mean 'moe_mlp'?"),
        (["--dtype", "float23"], "Did you mean 'float32'?"),
    ],
)
def test_validate_refuses_wrong_use(zmlx, tiny, args, words):
    done = zmlx("validate", tiny, *args)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert done.stderr.startswith("zmlx validate: ") and done.stdout == ""


def test_validate_tells_before_the_work_where_it_cannot_write(zmlx, tiny, tmp_path):
    done = zmlx("validate", tiny, "--json", tmp_path / "no" / "c.json")
    assert done.returncode == 1 and "no folder" in done.stderr


def test_report_prints_the_table(zmlx, capsule):
    done = zmlx("report", capsule[0], capsule[0])
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.count("Metric") == 2
    assert all(
        word in done.stdout for word in ("Decode", "Prefill", "Peak memory", "PASS")
    )


def test_compare_finds_a_regression(zmlx, capsule, tmp_path):
    done = zmlx("compare", capsule[0], capsule[0])
    assert done.returncode == 0 and "No regression" in done.stdout
    data = json.loads(capsule[0].read_text())
    side = data["tiny"]["patched"]
    side["decode_tok_s"] = [rate / 10 for rate in side["decode_tok_s"]]
    slower = tmp_path / "slower.json"
    slower.write_text(json.dumps(data))
    done = zmlx("compare", capsule[0], slower)
    assert done.returncode == 1 and "REGRESSION" in done.stdout
    assert zmlx("compare", slower, capsule[0]).returncode == 0


@pytest.mark.parametrize("command", ["report", "compare"])
def test_bad_files_are_told(zmlx, tmp_path, command):
    bad = tmp_path / "bad.json"
    again = [bad] if command == "compare" else []
    done = zmlx(command, bad, *again)
    assert done.returncode == 1 and "bad.json: cannot be opened" in done.stderr
    for text, words in (("{", "not valid JSON"), ("{}", "'meta' must be an object")):
        bad.write_text(text)
        done = zmlx(command, bad, *again)
        assert done.returncode == 1 and words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_bench_speaks_llama_bench(zmlx, tiny):
    sizes = ("-p", "8", "-n", "4,2", "-d", "0,3", "-r", "2")
    done = zmlx("bench", "--model", tiny, *sizes, "-o", "json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["n_prompt"], row["n_gen"], row["n_depth"]) for row in rows] == [
        (8, 0, 0),
        (0, 4, 0),
        (0, 2, 0),
        (8, 0, 3),
        (0, 4, 3),
        (0, 2, 3),
    ]
    for row in rows:
        assert row.keys() >= ROW_KEYS | SAMPLE_KEYS
        assert len(row["samples_ns"]) == 2 and row["side"] == "patched"
        tokens = row["n_prompt"] + row["n_gen"]
        rates = [tokens / (each * 1e-9) for each in row["samples_ns"]]
        assert row["samples_ts"] == pytest.approx(rates, rel=1e-3)
    lines = zmlx("bench", "--model", tiny, *sizes, "-o", "csv").stdout.splitlines()
    assert len(lines) == 7 and set(lines[0].split(",")) >= ROW_KEYS


def test_bench_compares_the_sides(zmlx, tiny, tmp_path):
    llama = tmp_path / "llama bench"
    llama.write_text("#!/bin/sh\necho '[{\"samples_ns\": [4000000]}]'\n")
    llama.chmod(llama.stat().st_mode | stat.S_IXUSR)
    for more, backends in (
        (("--compare",), ["zmlx CPU", "MLX CPU", "llama.cpp"]),
        ((), ["zmlx CPU", "llama.cpp"]),
    ):
        flags = ("-p", "0", "-n", "2", "-r", "2", "--gguf", "m.gguf", *more)
        llamas = ("--llama-bench", str(llama))
        done = zmlx("bench", "--model", tiny, *flags, *llamas)
        assert done.returncode == 0, done.stderr
        rows = done.stdout.splitlines()[2 : 2 + len(backends)]
        assert [row.split("|")[4].strip() for row in rows] == backends
        assert ("tg2: patched / stock " in done.stdout) == bool(more)
        assert "tg2: patched / llama.cpp " in done.stdout


@pytest.mark.parametrize(
    "args, words",
    [
        (["-o", "jsn"], "Did you mean 'json'?"),
        (["-p", "0", "-n", "0"], "at least one of -p and -n"),
        (["-n", "x"], "-n must be counts such as 1,2,3, got 'x'"),
        (["-r", "0"], "repetitions must be at least 1"),
        (["--compare", "--no-patch"], "--compare goes without --no-patch"),
    ],
)
def test_bench_refuses_wrong_use(zmlx, tiny, args, words):
    done = zmlx("bench", "--model", tiny, *args)
    assert done.returncode == 2 and words in done.stderr, done.stderr
