# SPDX-License-Identifier: MIT
"""``python -m zmlx.validate MODEL``: a model with and without patching, on mlx_lm.

Fidelity first (bits, tokens, divergence, and at narrow types both sides against a
float32 oracle), then interleaved timed runs. Exit code 0: proven, 1: not, 2: wrong
use.
"""

import argparse
import math
import os
import platform
import shlex
import sys
import time

import mlx.core as mx

from zmlx import _core, _lm
from zmlx._routers import RouterWatch
from zmlx.cli import run

# A timed run decodes no more than stock does in so many seconds, but at least 8.
SECONDS_A_RUN = 20
RANDOM_LENGTHS = (8, 16, 32, 48, 64)


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


class Stepper:
    """A model fed with tokens, by the path that generation takes."""

    def __init__(self, model, prompt):
        from mlx_lm.models.cache import make_prompt_cache

        self._model = model
        self._cache = make_prompt_cache(model)
        if len(prompt) > 1:
            model(mx.array([prompt[:-1]]), cache=self._cache)
            mx.eval([layer.state for layer in self._cache])
        self.feed(prompt[-1])

    def feed(self, token):
        out = self._model(mx.array([[token]]), cache=self._cache)
        self.logits = out[0, -1].astype(mx.float32)
        mx.eval(self.logits, [layer.state for layer in self._cache])

    def best(self):
        return mx.argmax(self.logits).item()


class Proof:
    """The fidelity ladder, prompt by prompt."""

    def __init__(self, model, sides, oracle, validation, max_tokens, eos):
        self.model, self.sides, self.oracle = model, sides, oracle
        self.validation = validation
        self.max_tokens, self.eos = max_tokens, eos
        self.stock_steps, self.stock_seconds = 0, 0.0

    def run(self, text, prompt):
        number = self.validation.add_prompt(text, prompt)
        ends = self.eos if text else ()  # random ids mean nothing to the model
        progress(f"Stock, prompt {number + 1}")
        stock, rows = self._greedy(prompt, ends, stock=True)
        progress(f"Patched, prompt {number + 1}")
        same, rows = self._compare(number, prompt, stock, rows)
        patched = stock if same else self._greedy(prompt, ends, stock=False)[0]
        self.validation.set_tokens(number, stock, patched)
        self._repeat(prompt, stock, rows, one_thread=False)
        threads = _core.num_threads()
        if threads > 1 and mx.default_device() == mx.Device(mx.cpu):
            _core.set_num_threads(1)
            try:
                self._repeat(prompt, stock, rows, one_thread=True)
            finally:
                _core.set_num_threads(threads)
        self._find_tie(number, prompt, stock)

    def _find_tie(self, number, prompt, stock):
        """How near stock's routers were to a tie where patched parted from it."""
        step = self.validation.departure(number)
        if step < 0:
            return
        progress(f"Stock again, prompt {number + 1}")
        self.sides.to(False)
        with RouterWatch(self.model) as watch:
            for _ in self._forced(self.model, prompt, stock[: step + 1]):
                gap = watch.least_gap()
        if gap < math.inf:
            self.validation.set_tie(number, step, gap)

    def _greedy(self, prompt, ends, stock):
        self.sides.to(not stock)
        stepper, tokens, rows = None, [], []
        start = time.perf_counter()
        for _ in range(self.max_tokens):
            if stepper is None:
                stepper = Stepper(self.model, prompt)
                start = time.perf_counter()
            else:
                stepper.feed(tokens[-1])
            rows.append(stepper.logits)
            tokens.append(stepper.best())
            if tokens[-1] in ends:
                break
        if stock:
            self.stock_steps += len(tokens) - 1
            self.stock_seconds += time.perf_counter() - start
        return tokens, rows

    def _forced(self, model, prompt, tokens):
        """The logits of each step along the tokens."""
        stepper = Stepper(model, prompt)
        yield stepper.logits
        for token in tokens[:-1]:
            stepper.feed(token)
            yield stepper.logits

    def _compare(self, number, prompt, stock, rows):
        self.sides.to(True)
        exact = [None] * len(stock)
        if self.oracle is not None:
            exact = self._forced(self.oracle, prompt, stock)
        ours, same = [], True
        patched = self._forced(self.model, prompt, stock)
        for step, (logits, truth) in enumerate(zip(patched, exact, strict=True)):
            ours.append(logits)
            same &= self.validation.compare(number, step, rows[step], logits, truth)
        return same, ours

    def _repeat(self, prompt, stock, rows, one_thread):
        self.sides.to(True)
        for first, again in zip(
            rows, self._forced(self.model, prompt, stock), strict=True
        ):
            self.validation.repeat(first, again, one_thread)


def timed_run(model, prompt, tokens):
    """(prefill tok/s, decode tok/s, peak bytes) of one greedy run."""
    from mlx_lm.generate import generate_step

    mx.clear_cache()
    mx.reset_peak_memory()
    start = time.perf_counter()
    steps = generate_step(mx.array(prompt), model, max_tokens=tokens)
    next(steps)
    first = time.perf_counter()
    count = sum(1 for _ in steps)
    seconds = time.perf_counter() - first
    return len(prompt) / (first - start), count / seconds, mx.get_peak_memory()


def time_sides(model, sides, validation, prompt, tokens, runs):
    for number in range(runs):
        for patched in (False, True):
            progress(f"Run {number + 1}/{runs}, {'patched' if patched else 'stock'}")
            sides.to(patched)
            if number == 0:
                timed_run(model, prompt[:8], 2)
            validation.time(patched, *timed_run(model, prompt, tokens))
    validation.set_timed(len(prompt), tokens)


def choose_prompts(args, tokenizer, vocab_size):
    """(text, ids) of each prompt."""
    texts = args.prompt or []
    if tokenizer is None:
        if texts:
            raise ValueError("[validate] --prompt needs a model with a tokenizer.")
        return [
            ("", _core.random_tokens(length, vocab_size, seed))
            for seed, length in enumerate(RANDOM_LENGTHS)
        ]
    texts = texts or _core.default_prompts()
    return [(text, _lm.encode(tokenizer, text, args.raw)) for text in texts]


def parse(argv):
    parser = argparse.ArgumentParser(prog="zmlx.validate", description=__doc__)
    parser.add_argument("model", help="a folder or a Hugging Face id")
    parser.add_argument(
        "-m", "--max-tokens", type=int, default=200, help="tokens a prompt (200)"
    )
    parser.add_argument("--runs", type=int, default=3, help="timed runs a side (3)")
    parser.add_argument(
        "-p", "--prompt", action="append", help="a prompt; may be given many times"
    )
    parser.add_argument("--raw", action="store_true", help="use no chat template")
    parser.add_argument(
        "--dtype",
        choices=sorted(_lm.DTYPES),
        help="activations: float32 on the CPU, else the model's own",
    )
    parser.add_argument("--json", metavar="F", help="write a capsule to this file")
    _lm.add_patch_flags(parser)
    args = parser.parse_args(argv)
    for name, value in (("--max-tokens", args.max_tokens), ("--runs", args.runs)):
        if value < 1:
            parser.error(f"{name} must be at least 1, got {value}")
    return args


def dtype_of(args, model):
    if args.dtype:
        return _lm.DTYPES[args.dtype]
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    return mx.float32 if on_cpu else _lm.dtype_of(model)


def main(argv=None):
    args = parse(argv)
    _lm.check_patterns(args)
    if mx.default_device() != mx.Device(mx.cpu):
        # MLX reads it at its first product; stock is to multiply in whole float32.
        os.environ.setdefault("MLX_ENABLE_TF32", "0")
    folder = _lm.folder_of(args.model)
    model, tokenizer, config = _lm.load(folder)
    dtype = dtype_of(args, model)
    _lm.cast(model, dtype)
    oracle = None
    if dtype != mx.float32:
        oracle = _lm.load(folder, mx.float32)[0]
    prompts = choose_prompts(args, tokenizer, model.args.vocab_size)
    validation = _core.Validation(
        str(folder),
        str(dtype).rsplit(".", 1)[-1],
        _lm.quantisation_text(config),
        args.max_tokens,
        args.runs,
        oracle is not None,
    )
    progress("Patching and probing")
    sides = _lm.Sides(model, args)
    validation.set_patched(list(sides.result.modules.items()))
    eos = set(tokenizer.eos_token_ids) if tokenizer else set()
    proof = Proof(model, sides, oracle, validation, args.max_tokens, eos)
    for text, prompt in prompts:
        proof.run(text, prompt)
    rate = proof.stock_steps / proof.stock_seconds if proof.stock_steps else 8.0
    tokens = max(2, min(args.max_tokens, max(8, int(rate * SECONDS_A_RUN))))
    longest = max((ids for _, ids in prompts), key=len)
    time_sides(model, sides, validation, longest, tokens, args.runs)
    progress("")
    failures = validation.finish()
    if args.json:
        command = "python -m zmlx.validate " + shlex.join(argv or sys.argv[1:])
        validation.write_capsule(args.json, command, platform.python_version())
    print(validation.text(), end="")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(run(main))
