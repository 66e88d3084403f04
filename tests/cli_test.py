# SPDX-License-Identifier: MIT
"""The program as users meet it: text, exit codes, signals, pipes, terminals."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import mlx.core as mx
import pytest
import tiny_model
from conftest import ROOT
from mlx_lm import load, stream_generate
from tokenizers import Tokenizer

COMMANDS = ["generate", "validate", "bench", "report", "compare"]
COMMANDS += ["logits", "tokenize", "synth", "kernels", "doctor"]
PROMPT = "Once upon a time there was a sea."


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return str(tiny_model.write_model(tmp_path_factory.mktemp("a model") / "tiny"))


@pytest.fixture(scope="session")
def oracle(tiny):
    return load(tiny)


def json_lines(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def tokens(done):
    return [line["token"] for line in json_lines(done)[:-1]]


# Help and wrong use.


def test_help_fits_one_screen(zmlx):
    done = zmlx("--help")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == ""
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(zmlx, command):
    done = zmlx(command, "--help")
    assert done.returncode == 0 and f"Usage: zmlx {command}" in done.stdout
    assert len(done.stdout.splitlines()) <= 32
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert zmlx("help", command).stdout == done.stdout


def test_version_names_mlx_too(zmlx):
    assert re.fullmatch(
        rf"zmlx \d+\.\d+\.\d+ \(MLX {re.escape(mx.__version__)}\)\n",
        zmlx("--version").stdout,
    )


def test_no_command_shows_help_on_stderr(zmlx):
    done = zmlx()
    assert done.returncode == 2 and done.stdout == ""
    assert "Usage: zmlx" in done.stderr


@pytest.mark.parametrize(
    "args, message",
    [
        (
            ["genrate", "--model", "m"],
            "zmlx: no command 'genrate'. Did you mean 'generate'?",
        ),
        (["frobnicate"], "zmlx: no command 'frobnicate'. Run 'zmlx --help'"),
        (["--verison"], "zmlx: no option '--verison'. Did you mean '--version'?"),
        (
            ["generate", "--promt=x"],
            "zmlx generate: no option '--promt'. Did you mean '--prompt'?",
        ),
        (["generate", "--model", "m"], "zmlx generate: --prompt is required."),
        (["doctor", "extra"], "zmlx doctor: no place for the argument 'extra'."),
        (
            ["generate", "--model", "m", "--prompt", "p", "--max-tokens", "ten"],
            "zmlx generate: --max-tokens must be a whole number, got 'ten'.",
        ),
        (
            ["generate", "--model", "m", "--prompt", "p", "--threads", "all"],
            "zmlx generate: --threads must be a whole number, got 'all'.",
        ),
        (
            ["generate", "--model", "m", "--prompt", "p", "--seed", "-1"],
            "zmlx generate: --seed: must be a whole number of 0 or more, got '-1'.",
        ),
        (
            ["generate", "--model", "m", "--prompt", "p", "--temp", "-1"],
            "zmlx generate: [sampler] temperature must be 0 or more, got -1.",
        ),
        (
            ["generate", "--model", "m", "--prompt", "p", "--dtype", "float23"],
            "zmlx generate: [dtype] must be one of float32, float16, bfloat16",
        ),
        (
            ["generate", "--model", "m", "--prompt", "p", "--patterns", "moe_mlb"],
            "zmlx generate: [patch] no pattern 'moe_mlb'. Did you mean 'moe_mlp'?",
        ),
        (
            [
                "generate",
                "--model",
                "m",
                "--prompt",
                "p",
                "--no-patch",
                "--exclude",
                "moe_mlp",
            ],
            "zmlx generate: [patch] --no-patch goes without --patterns and --exclude.",
        ),
        (
            ["logits", "m", "--tokens", "1,x", "--output", "o"],
            "zmlx logits: --tokens must be ids",
        ),
        (
            ["logits", "m", "--tokens", "", "--output", "o"],
            "zmlx logits: --tokens must have",
        ),
        (
            ["synth", "lfm2-8b-a1c", "/nowhere/out"],
            "Did you mean 'lfm2-8b-a1b'?",
        ),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(zmlx, args, message):
    done = zmlx(*args)
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr
    assert done.stderr.startswith("zmlx") and done.stderr.count("\n") == 1


def test_a_model_that_is_not_there_shows_the_download_command(zmlx, tmp_path):
    env = dict(os.environ, HF_HUB_CACHE=str(tmp_path))
    done = zmlx("generate", "--model", "some/model", "--prompt", "p", env=env)
    assert done.returncode == 1
    assert (
        done.stderr.startswith("zmlx generate: ")
        and "hf download some/model" in done.stderr
    )


def test_a_broken_checkpoint_is_exit_1(zmlx, tmp_path):
    (tmp_path / "config.json").write_text("{")
    done = zmlx("generate", "--model", tmp_path, "--prompt", "p")
    assert done.returncode == 1 and "config.json" in done.stderr
    assert done.stderr.count("\n") == 1


# generate


def test_generate_prints_text_and_tail(zmlx, tiny):
    done = zmlx("generate", "--model", tiny, "--prompt", PROMPT, "-m", 12)
    assert done.returncode == 0 and done.stderr == ""
    assert re.fullmatch(
        r"==========\n.*\n==========\n"
        r"Prompt: \d+ tokens, \d+\.\d{3} tokens-per-sec\n"
        r"Generation: 12 tokens, \d+\.\d{3} tokens-per-sec\n"
        r"Peak memory: \d+\.\d{3} GB\n",
        done.stdout,
        re.S,
    )


@pytest.mark.parametrize("extra", [[], ["--no-patch"], ["--prefill-step-size", "3"]])
def test_generate_gives_mlx_lms_tokens(zmlx, tiny, oracle, extra):
    expected = [r.token for r in stream_generate(*oracle, PROMPT, max_tokens=40)]
    done = zmlx(
        "generate", "--model", tiny, "--prompt", PROMPT, "-m", 40, "--json", *extra
    )
    assert tokens(done) == expected


@pytest.mark.parametrize("prompt", ["The sea", "It was a dark night, and"])
def test_the_demo_model_gives_mlx_lms_tokens(zmlx, prompt):
    demo = str(ROOT / "models" / "demo")
    model, tokenizer = load(demo)
    model.set_dtype(mx.float32)  # bfloat16 sums of stock MLX on CPU are 5% off
    answer = stream_generate(model, tokenizer, prompt, max_tokens=60)
    expected = [r.token for r in answer]
    args = ["generate", "--model", demo, "--prompt", prompt, "-m", 60, "--json"]
    assert tokens(zmlx(*args)) == expected
    assert tokens(zmlx(*args, "--no-patch")) == expected


def test_generate_reads_the_prompt_from_stdin(zmlx, tiny):
    given = zmlx("generate", "--model", tiny, "--prompt", PROMPT, "-m", 8, "--json")
    read = zmlx(
        "generate", "--model", tiny, "--prompt", "-", "-m", 8, "--json", stdin=PROMPT
    )
    assert tokens(given) == tokens(read)


def test_generate_json_adds_up(zmlx, tiny):
    *pieces, tail = json_lines(
        zmlx("generate", "--model", tiny, "--prompt", PROMPT, "-m", 9, "--json")
    )
    assert [p.get("finish_reason") for p in pieces] == [None] * 8 + ["length"]
    tokenizer = Tokenizer.from_file(tiny + "/tokenizer.json")
    text = "".join(p["text"] for p in pieces)
    assert text == tokenizer.decode(
        [p["token"] for p in pieces], skip_special_tokens=False
    )
    assert tail["prompt_tokens"] == len(tokenizer.encode(PROMPT).ids)
    assert tail["generation_tokens"] == 9


def test_generate_draws_by_seed(zmlx, tiny):
    def draw(seed):
        return tokens(
            zmlx(
                *("generate", "--model", tiny, "--prompt", PROMPT, "-m", 20, "--json"),
                *("--temp", 1.5, "--top-p", 0.95, "--top-k", 50, "--min-p", 0.01),
                *("--seed", seed),
            )
        )

    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize(
    "args, message",
    [
        (["--prompt", PROMPT, "-m", 0], "max_tokens must be at least 1, got 0."),
        (
            ["--prompt", PROMPT, "--prefill-step-size", 0],
            "prefill_step must be at least 1, got 0.",
        ),
        (["--prompt", ""], "the prompt must have at least one token, got none."),
    ],
)
def test_generate_refuses_with_exit_2(zmlx, tiny, args, message):
    done = zmlx("generate", "--model", tiny, *args)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"zmlx generate: {message}\n"


def test_generate_stops_at_the_end_token(zmlx, tiny, tmp_path):
    first = tokens(
        zmlx("generate", "--model", tiny, "--prompt", PROMPT, "-m", 6, "--json")
    )
    for name in os.listdir(tiny):
        os.symlink(f"{tiny}/{name}", tmp_path / name)
    (tmp_path / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [5, first[3]]})
    )
    pieces = json_lines(
        zmlx("generate", "--model", tmp_path, "--prompt", PROMPT, "-m", 6, "--json")
    )
    assert [p["token"] for p in pieces[:-1]] == first[:4]
    assert pieces[3]["finish_reason"] == "stop"


# Pipes, terminals and signals


def test_a_closed_pipe_ends_quietly(program, tiny):
    process = subprocess.Popen(
        [program, "generate", "--model", tiny, "--prompt", PROMPT, "-m", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.read(10) == b"=========="
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("args", [["--help"], ["doctor"]])
def test_a_full_disk_is_told(program, args):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [program, *args], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "standard output: No space left on device" in done.stderr


class Terminal:
    """A program whose input, output and errors are one terminal."""

    def __init__(self, *command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(command[0], command)
        self.seen = b""

    def read(self, seconds):
        """Reads what comes within some time; False at the end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            block = os.read(self.fd, 65536)
        except OSError:  # Linux's end of a terminal
            block = b""
        self.seen += block
        return bool(block)

    def read_until(self, pattern, seconds=60):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.seen, re.S) and time.monotonic() < end:
            if not self.read(0.1):
                break
        assert re.search(pattern, self.seen, re.S), self.seen[-2000:]

    def finish(self, seconds=60):
        """The exit code; negative for a signal."""
        end = time.monotonic() + seconds
        while self.read(0.1) and time.monotonic() < end:
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def assert_terminal_is_clean(seen):
    """No cursor hidden, no colour left; lines are only rewritten."""
    assert set(re.findall(rb"\x1b\[[0-9;?]*[A-Za-z]", seen)) <= {b"\x1b[K"}


def test_ctrl_c_stops_after_a_token_and_prints_the_tail(program, tiny):
    terminal = Terminal(
        program, "generate", "--model", tiny, "--prompt", PROMPT, "-m", "100000"
    )
    terminal.read_until(rb"Reading the prompt: [^\r]*\r\x1b\[K.{20}")
    os.write(terminal.fd, b"\x03")
    assert terminal.finish() == 130
    lines = [
        b"==========",
        rb"Prompt: .*",
        rb"Generation: \d+ tokens, .*",
        b"Peak .* GB",
    ]
    tail = rb"\r\n" + rb"\r\n".join(lines) + rb"\r\n$"
    assert re.search(tail, terminal.seen)
    assert_terminal_is_clean(terminal.seen)


def test_ctrl_c_stops_the_prompt_too(program, tiny, tmp_path):
    (tmp_path / "prompt").write_text(PROMPT * 4000)
    flags = f'--model "{tiny}" --prompt - --prefill-step-size 8'
    script = f'exec "{program}" generate {flags} < "{tmp_path}/prompt"'
    terminal = Terminal("/bin/sh", "-c", script)
    terminal.read_until(rb"Reading the prompt: \d+/\d+ tokens")
    os.write(terminal.fd, b"\x03")
    assert terminal.finish() == 130
    assert_terminal_is_clean(terminal.seen)
    assert terminal.seen.endswith(b"\r\x1b[K")


def test_progress_is_for_terminals_only(zmlx, program, tiny):
    args = ["generate", "--model", tiny, "--prompt", PROMPT, "-m", "3"]
    assert zmlx(*args).stderr == ""
    terminal = Terminal(program, *args)
    assert terminal.finish() == 0
    assert b"Reading the prompt" in terminal.seen
    assert_terminal_is_clean(terminal.seen)


def test_ctrl_c_leaves_synth_without_a_trace(program, tmp_path):
    folder = tmp_path / "out"
    terminal = Terminal(program, "synth", "lfm2-8b-a1b", str(folder), "--layers", "6")
    terminal.read_until(rb"Writing [^\r]*: ")
    os.write(terminal.fd, b"\x03")
    assert terminal.finish() == 130
    assert list(tmp_path.iterdir()) == []


def test_sigterm_is_left_alone(program, tiny):
    process = subprocess.Popen(
        [program, "generate", "--model", tiny, "--prompt", PROMPT, "-m", "100000"],
        stdout=subprocess.PIPE,
    )
    process.stdout.read(20)
    process.terminate()
    process.stdout.close()
    assert process.wait(timeout=60) == -signal.SIGTERM


# tokenize, logits, synth, doctor


@pytest.mark.parametrize(
    "text", [PROMPT, "", "\n", "na\u00efve \u6d77 \U0001f30a\n", "<|endoftext|>x"]
)
def test_tokenize_and_back(zmlx, tiny, text):
    done = zmlx("tokenize", tiny, stdin=text)
    ids = json.loads(done.stdout)
    assert ids == Tokenizer.from_file(tiny + "/tokenizer.json").encode(text).ids
    assert zmlx("tokenize", tiny, "--decode", stdin=done.stdout).stdout == text


@pytest.mark.parametrize(
    "text", ["", "[1,", '{"ids": 1}', "[1.5]", "[-1]", '["a"]', "[4294967296]"]
)
def test_tokenize_refuses_what_is_no_list_of_ids(zmlx, tiny, text):
    done = zmlx("tokenize", tiny, "--decode", stdin=text)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("zmlx tokenize: standard input: ")


def saved_logits(zmlx, tiny, path, *extra):
    done = zmlx("logits", tiny, "--tokens", "1,2,3,40,5", "--output", path, *extra)
    assert done.returncode == 0, done.stderr
    logits = mx.load(str(path))
    assert list(logits) == ["logits"] and logits["logits"].dtype == mx.float32
    return logits["logits"]


@pytest.mark.parametrize(
    "extra",
    [[], ["--no-patch"], ["--step"], ["--chunk", "2"], ["--step", "--no-patch"]],
)
def test_logits_are_mlx_lms(zmlx, tiny, oracle, tmp_path, extra):
    expected = oracle[0](mx.array([[1, 2, 3, 40, 5]]))[0].astype(mx.float32)
    logits = saved_logits(zmlx, tiny, tmp_path / "l.safetensors", *extra)
    assert logits.shape == expected.shape
    assert mx.abs(logits - expected).max().item() < 1e-4 * mx.abs(expected).max().item()


def test_logits_need_no_tokenizer_and_take_dtypes(zmlx, tiny, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        os.symlink(f"{tiny}/{name}", bare / name)
    full = saved_logits(zmlx, bare, tmp_path / "a.safetensors")
    half = saved_logits(zmlx, bare, tmp_path / "b.safetensors", "--dtype", "float16")
    error = mx.abs(full - half).max().item()
    assert 0 < error < 0.05 * mx.abs(full).max().item()


def test_logits_check_tokens_against_the_vocabulary(zmlx, tiny, tmp_path):
    done = zmlx("logits", tiny, "--tokens", "1,320", "--output", tmp_path / "l")
    assert done.returncode == 2
    assert done.stderr == "zmlx logits: --tokens must be in 0..319, got 320.\n"
    assert not (tmp_path / "l").exists()


def test_logits_tell_where_they_cannot_write(zmlx, tiny, tmp_path):
    done = zmlx("logits", tiny, "--tokens", "1", "--output", tmp_path / "no" / "l")
    assert done.returncode == 1 and str(tmp_path / "no") in done.stderr


def test_synth_writes_what_runs(zmlx, tmp_path):
    folder = tmp_path / "out"
    done = zmlx("synth", "lfm2-moe-tiny", folder, "--bits", 8, "--seed", 3)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.startswith("Wrote ") and str(folder) in done.stdout
    assert json.loads((folder / "config.json").read_text())["quantization"]["bits"] == 8
    assert saved_logits(zmlx, folder, tmp_path / "l.safetensors").shape[0] == 5
    again = zmlx("synth", "lfm2-moe-tiny", folder)
    assert again.returncode != 0 and str(folder) in again.stderr
    text = zmlx("generate", "--model", folder, "--prompt", "p")
    assert text.returncode == 1 and "tokenizer.json" in text.stderr


def test_doctor_tells_what_is_here(zmlx):
    done = zmlx("doctor")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("zmlx can work here.\n")
    report = json.loads(zmlx("doctor", "--json").stdout)
    assert report["ok"] and report["problems"] == [] and report["mlx"] == mx.__version__
    assert "ZMLX_THREADS" in report["environment"] and len(report["environment"]) <= 10


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "--prompt", "p", "--model"],
        ["logits", "--tokens", "1", "--output", "o"],
        ["bench", "--model"],
        ["validate"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("threads", [0, 1000])
def test_threads_are_those_of_the_machine(zmlx, tiny, command, threads):
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    most = len(affinity(0)) if affinity else os.cpu_count()
    holds = f"must be 1 to {most}, the processors that this process may use, got "
    done = zmlx(*command, str(tiny), "--threads", str(threads))
    assert done.returncode == 2 and f"--threads {holds}{threads}.\n" in done.stderr
    done = zmlx(*command, str(tiny), env=dict(os.environ, ZMLX_THREADS=str(threads)))
    assert done.returncode == 2
    assert f"[ZMLX_THREADS] {holds}'{threads}'.\n" in done.stderr


def test_an_option_of_threads_goes_before_the_environment(zmlx, tiny):
    one = zmlx(
        "bench",
        *["--model", str(tiny), "-p", "4", "-n", "2", "-r", "1", "-o", "json"],
        *["--threads", "1"],
        env=dict(os.environ, ZMLX_THREADS="many"),
    )
    assert one.returncode == 0, one.stderr
    assert {row["n_threads"] for row in json.loads(one.stdout)} == {1}


def test_doctor_finds_a_bad_setting(zmlx):
    done = zmlx("doctor", "--json", env=dict(os.environ, ZMLX_THREADS="many"))
    report = json.loads(done.stdout)
    assert done.returncode == 1 and not report["ok"]
    assert "ZMLX_THREADS" in report["problems"][0] and "many" in report["problems"][0]
    assert report["environment"]["ZMLX_THREADS"] == "many"
