# SPDX-License-Identifier: MIT
"""Finds the fastest launch of a kernel by measuring, and remembers it.

Candidates are checked against the first that works, so a fast wrong one is never
chosen, and timed interleaved; a candidate that fails is reported, not hidden.
"""

import dataclasses
import functools
import inspect
import json
import math
import os
import statistics
import threading
import time
from pathlib import Path

import mlx.core as mx

from zmlx import _core
from zmlx._callable import make_callable
from zmlx._rules import require_callable

SCHEMA_VERSION = "3.0"
_MAX_THREADS = 1024

_lock = threading.Lock()
_found = {}


@dataclasses.dataclass(frozen=True)
class AutotuneConfig:
    threadgroup: tuple
    template: tuple = ()


@dataclasses.dataclass(frozen=True)
class AutotuneResult:
    """best_config, and milliseconds (the median; NaN where it failed) and failures
    by configuration."""

    best_config: AutotuneConfig
    timings_ms: dict
    failures: dict = dataclasses.field(default_factory=dict)


def _size(value):
    values = (value,) if isinstance(value, int) else tuple(value)
    return values + (1,) * (3 - len(values))


def _configs(op, templates, threadgroups):
    configs = [
        AutotuneConfig(_size(threadgroup), tuple(template or ()))
        for template in templates or [None]
        for threadgroup in threadgroups
        if math.prod(_size(threadgroup)) <= _MAX_THREADS
    ]
    if not configs:
        raise ValueError(
            f"[{op}] candidates must have one of at most {_MAX_THREADS} threads, got"
            f" {list(threadgroups)}."
        )
    return configs


def autotune_kernel(
    kernel,
    *,
    inputs,
    grid,
    template_candidates,
    threadgroup_candidates,
    output_shapes=None,
    output_dtypes=None,
    warmup=3,
    iters=10,
):
    """Times a raw kernel with every template and threadgroup.

    grid: the number of threads, or a function of the threadgroup that gives it.
    Raises zmlx.BackendError with each candidate's failure when none works.
    """
    configs = _configs(
        f"autotune {kernel.name}", template_candidates, threadgroup_candidates
    )
    best, seconds, failures, _ = _core.autotune_kernel(
        kernel._kernel,
        list(inputs),
        [
            (
                each.threadgroup,
                list(each.template) or None,
                _size(grid(each.threadgroup) if callable(grid) else grid),
            )
            for each in configs
        ],
        output_shapes=output_shapes,
        output_dtypes=output_dtypes,
        warmup=warmup,
        iterations=iters,
    )
    times = [value * 1e3 for value in seconds]
    failed = {c: why for c, why in zip(configs, failures, strict=True) if why}
    return AutotuneResult(configs[best], dict(zip(configs, times, strict=True)), failed)


def autotune_threadgroup(kernel, *, inputs, grid, candidates, template=None, **options):
    """autotune_kernel with one template."""
    return autotune_kernel(
        kernel,
        inputs=inputs,
        grid=grid,
        template_candidates=[template],
        threadgroup_candidates=candidates,
        **options,
    )


def _entry_key(kernel, inputs, grid, templates, threadgroups):
    """What a result holds for, as a text that JSON can key."""
    return json.dumps(
        [
            kernel.name,
            _hash_of(kernel),
            [[list(each.shape), str(each.dtype)] for each in inputs],
            "function" if callable(grid) else list(_size(grid)),
            [str(each) for each in templates or []],
            [list(_size(each)) for each in threadgroups],
        ]
    )


def _hash_of(kernel):
    from zmlx.cache import key_of

    key = key_of((kernel.name, (), (), kernel.source, kernel.header or "", True, False))
    return key.source_hash[:16] + key.header_hash[:16]


def get_autotuned_config(
    kernel,
    *,
    inputs,
    grid,
    template_candidates=None,
    threadgroup_candidates,
    **options,
):
    """The best configuration for these shapes and types, measured once a process;
    load_autotune_cache() brings those of earlier ones."""
    key = _entry_key(kernel, inputs, grid, template_candidates, threadgroup_candidates)
    configs = _configs(
        f"autotune {kernel.name}", template_candidates, threadgroup_candidates
    )
    with _lock:
        entry = _found.get(key)
    # A file may hold anything.
    if entry is not None and 0 <= entry["template"] < len(configs):
        return configs[entry["template"]]
    best = autotune_kernel(
        kernel,
        inputs=inputs,
        grid=grid,
        template_candidates=template_candidates,
        threadgroup_candidates=threadgroup_candidates,
        **options,
    ).best_config
    with _lock:
        _found[key] = {"tg": list(best.threadgroup), "template": configs.index(best)}
    return best


def cache_path():
    folder = os.environ.get("ZMLX_CACHE_DIR") or Path.home() / ".cache" / "zmlx"
    return Path(folder) / "autotune_v3.json"


def _device_key():
    from zmlx.device import detect_device

    device = detect_device()
    variant = f"_{device.variant}" if device.variant else ""
    return f"{device.family}{variant}_{mx.__version__}".replace(" ", "_")


def _read(path):
    try:
        content = json.loads(Path(path).read_text())
        devices = content["devices"]
        known = content.get("schema_version") == SCHEMA_VERSION
        return devices if known and isinstance(devices, dict) else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def save_autotune_cache(path=None):
    """Writes what was measured, beside other devices' entries; the number of
    entries."""
    path = Path(path or cache_path())
    with _lock:
        entries = dict(_found)
    devices = _read(path)
    before = devices.get(_device_key(), {}).get("entries", {})
    devices[_device_key()] = {
        "metadata": {"mlx": mx.__version__, "zmlx": _core.__version__},
        "entries": {**before, **entries},
        "saved_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another process sees the old file or the new one, never half of it.
    draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    draft.write_text(
        json.dumps({"schema_version": SCHEMA_VERSION, "devices": devices}, indent=1)
    )
    draft.replace(path)
    return len(entries)


def load_autotune_cache(path=None):
    """Takes over what was saved for this device and MLX; the number of entries, 0
    where there is no file that can be read."""
    entries = _read(path or cache_path()).get(_device_key(), {}).get("entries", {})
    good = {
        key: entry
        for key, entry in entries.items()
        if isinstance(entry, dict) and isinstance(entry.get("template"), int)
    }
    with _lock:
        _found.update(good)
    return len(good)


def _timed(function, args, kwargs):
    start = time.perf_counter()
    result = function(*args, **kwargs)
    mx.eval(result)
    mx.synchronize()
    return result, time.perf_counter() - start


def _measure(function, args, kwargs, candidates, warmup, iters):
    """The fastest of the keyword arguments that work."""
    good, failures = [], []
    for each in candidates:
        try:
            for _ in range(max(warmup, 1)):
                _timed(function, args, {**kwargs, **each})
            good.append(each)
        except (ValueError, TypeError, RuntimeError) as error:
            failures.append(f"{each}: {error}")
    if not good:
        raise _core.BackendError(
            "[autotune] one candidate must work, got " + "; ".join(failures)
        )
    times = [[] for _ in good]
    for number in range(max(iters, 1)):
        order = range(len(good))
        for place in reversed(order) if number % 2 else order:
            times[place].append(_timed(function, args, {**kwargs, **good[place]})[1])
    medians = [statistics.median(each) for each in times]
    return good[medians.index(min(medians))]


def _signature(args, kwargs):
    def one(value):
        if isinstance(value, mx.array):
            return (tuple(value.shape), str(value.dtype))
        return repr(value)

    return (
        tuple(map(one, args)),
        tuple(sorted((key, one(value)) for key, value in kwargs.items())),
    )


def autotune(threadgroups=None, templates=None, warmup=3, iters=10, device_aware=True):
    """Decorates a function that takes threadgroup (and template): the first call
    for each shape and type times every candidate, later ones use the fastest.

    threadgroups: the device's own candidates by default, where device_aware.
    What a caller gives is not changed.
    """

    def decorate(function):
        require_callable("autotune", function)
        names = inspect.signature(function).parameters
        if "threadgroup" not in names:
            raise ValueError(
                f"[autotune] {function.__name__} must take threadgroup, got"
                f" ({', '.join(names)})."
            )
        chosen = {}

        def candidates():
            sizes = threadgroups
            if sizes is None:
                from zmlx.device import detect_device

                default = (64, 128, 256, 512)
                sizes = (
                    detect_device().threadgroup_candidates if device_aware else default
                )
            return [
                {"threadgroup": size}
                | ({} if template is None else {"template": template})
                for size in sizes
                for template in templates or [None]
            ]

        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            if "threadgroup" in kwargs:
                return function(*args, **kwargs)
            key = _signature(args, kwargs)
            if key not in chosen:
                chosen[key] = _measure(
                    function, args, kwargs, candidates(), warmup, iters
                )
            return function(*args, **{**kwargs, **chosen[key]})

        wrapper.chosen = chosen
        return wrapper

    if callable(threadgroups):  # @autotune without parentheses
        function, threadgroups = threadgroups, None
        return decorate(function)
    return decorate


make_callable(__name__, autotune)
