# SPDX-License-Identifier: MIT
"""smart_patch: patterns chosen by time on decoding."""

import statistics
import time

import mlx.core as mx

import zmlx.patch as api
from zmlx.patch.patterns import defaults


def choose(
    model, sample, *, names, exclude, threshold, warmup, iters, verbose, forward
):
    """Keeps, in turn, each pattern with which a step takes at most 1/threshold of
    its time without. A step is ``forward(model, sample)``, by default one token
    after the sample as a prompt. Returns the patched model."""
    if iters < 1 or warmup < 0:
        raise ValueError(
            "[smart_patch] iters must be at least 1 and warmup at least 0, got"
            f" {iters} and {warmup}."
        )
    report = print if verbose else lambda line: None
    candidates = [n for n in (names or defaults()) if n not in exclude]
    api.chosen_patterns(candidates, exclude)
    api.unpatch(model)
    kept, ratios = [], {}

    def timed(patterns):
        api.unpatch(model)
        if patterns:
            api.patch(model, patterns=patterns)
        return seconds(model, sample, warmup, iters, forward)

    report("[zmlx.patch] Benchmarking patterns")
    first = last = timed(kept)
    report(f"  Baseline: {1e3 * first:.2f} ms")
    for name in candidates:
        # Memory moves with the machine's other work: both sides, one after the
        # other.
        without, with_it = timed(kept), timed([*kept, name])
        count = model._zmlx_patch_result.pattern_counts.get(name, 0)
        if count == 0:
            report(f"  {name}: no modules")
            continue
        ratio = without / with_it
        keep = ratio >= threshold
        verdict = f"KEEP ({count} modules)" if keep else "REVERT"
        report(f"  {name}: {ratio:.3f}x -> {verdict}")
        if keep:
            kept.append(name)
            ratios[name] = ratio
            last = with_it
    api.unpatch(model)
    api.patch(model, patterns=kept)
    model._zmlx_patch_result.benchmarks = ratios
    report(f"  Result: {1e3 * first:.2f} ms -> {1e3 * last:.2f} ms")
    return model


def seconds(model, sample, warmup, iters, forward):
    """Median seconds of a step."""
    step = (lambda: forward(model, sample)) if forward else _decoding(model, sample)
    times = []
    for i in range(warmup + iters):
        begin = time.perf_counter()
        _evaluate(step())
        if i >= warmup:
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _evaluate(output):
    mx.eval(output)


def _decoding(model, sample):
    """One token after the sample as a prompt, or the whole sample where the model
    takes no cache."""
    if not hasattr(model, "layers") or sample.ndim != 2:
        return lambda: model(sample)
    from mlx_lm.models.cache import make_prompt_cache

    cache = make_prompt_cache(model)
    logits = model(sample, cache=cache)
    token = mx.argmax(logits[:, -1:], axis=-1)
    mx.eval(token)
    return lambda: model(token, cache=cache)
