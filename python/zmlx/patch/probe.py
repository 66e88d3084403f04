# SPDX-License-Identifier: MIT
"""The probe: a fused module against its stock call, on the model's own weights."""

import contextlib
import functools
import threading

import mlx.core as mx
from mlx.utils import tree_flatten

from zmlx import _core
from zmlx.patch.stock import stock_class

# Rounding of a float32 sum of 10^4 terms is below 1e-5 of its size. Probes are in
# float32 whatever the weights' type: both sides then compute the same function.
ALLOWED = 1e-4

# Stock quantised products take 0.1 s for 30 MB of weights on a slow CPU.
_CHEAP_BYTES = 256 << 10
_SEEDS = (1, 2)
# Outputs of dear products are sampled at each place of a kernel's block of rows.
_STEP = 7
# A wrong noise threshold or group score changes the choice for a few rows of these.
_ROUTED_ROWS = 16
# On a GPU MLX compiles the products of 8 rows and more where they are first used,
# for half a minute each.
_ROUTED_AT_ONCE = {"cpu": 16, "gpu": 7}
# Rows that a GPU takes another way, whatever the experts, and the error allowed
# there, in the weights' own type.
_MANY, _ALONE, _NARROW_ALLOWED = 512, 7, 5e-2
_local = threading.local()


class Probe:
    """One module's: stock on all rows of a random input, the fused call on all of
    them, and on some alone. Where the module is ``dear``, stock on the first row
    only, and where its last product allows, of every seventh output; then a router
    is compared on more rows without the experts, for one may not show a wrong one.
    """

    def __init__(self, module, fused):
        self.module = module
        self.fused = fused
        self._stock = getattr(stock_class(module), fused.method)
        parameters = [value for _, value in tree_flatten(module.parameters())]
        self.dear = sum(value.nbytes for value in parameters) >= _CHEAP_BYTES
        packed = any(value.dtype == mx.uint32 for value in parameters)
        # Enough for the path of many tokens.
        self._rows = fused.probed_rows or (5 if packed and self.dear else 17)
        self._expected = None
        self._routing = None
        self._sample = None
        # On a GPU a whole product costs little, and MLX has none of so many outputs.
        if self._only_first and not self.fused.options.on_gpu:
            self._sample = self.fused.with_outputs(self.module, _STEP)

    def start(self):
        """Builds the stock output of the first seed, on the current stream."""
        self._expected = self._stock_output(self._input(_SEEDS[0]))
        self._routing = self._routing_of(_SEEDS[0])
        return self._expected, self._routing

    def error(self):
        """The largest difference over the stock output's largest value.

        A near tie in a router may send a token to another expert on one side,
        rightly; so one of two inputs must agree.
        """
        for seed in _SEEDS:
            x = self._input(seed)
            expected, self._expected = self._expected, None
            if expected is None:
                expected = self._stock_output(x)
                self._routing = self._routing_of(seed)
            error = self._error_on(x, expected)
            if self._routing is not None:
                error = max_of(error, difference(*self._routing))
            inside = self.fused.inner(self.module, x)
            error = max_of(error, *(difference(*pair) for pair in inside))
            if error <= ALLOWED:
                break
        if self.fused.options.on_gpu:
            apart = self._apart_in_narrow_type()
            error = error if apart <= _NARROW_ALLOWED else apart
        return error

    def build(self):
        """Builds each call that error() makes of a fused module, for its kernels."""
        with contextlib.suppress(Exception):  # error() meets it again
            x = self._input(_SEEDS[0])
            self._routing_of(_SEEDS[0])
            kind = narrow_type(self.module)
            for given in self._inputs(x, kind):
                self._run(given)
                self.fused.inner(self.module, given)

    def _inputs(self, x, kind):
        rowwise = self.fused.rowwise
        yield from (x, x[:, :1]) if rowwise else (x,)
        if kind is not None and rowwise:
            many = self._many(kind)
            yield from (many, many[:, :_ALONE])
        elif kind is not None:
            yield x.astype(kind)

    def _apart_in_narrow_type(self):
        kind = narrow_type(self.module)
        if kind is None:
            return 0.0
        if self.fused.rowwise:
            return self._apart_among_many(kind)
        inside = self.fused.inner(self.module, self._input(_SEEDS[0]).astype(kind))
        return max_of(0.0, *(difference(*pair) for pair in inside))

    def _apart_among_many(self, kind):
        """How far the middle one of seven rows is among many from the same row among
        the seven, where weights are narrow; not the farthest, as in error()."""
        x = self._many(kind)
        many = self._run(x)[:, :_ALONE].astype(mx.float32)
        alone = self._run(x[:, :_ALONE]).astype(mx.float32)
        apart = mx.abs(many - alone).max(-1) / mx.abs(alone).max(-1)
        return mx.sort(apart.flatten())[_ALONE // 2].item()

    def _many(self, kind):
        shape = (1, _MANY, self.fused.width(self.module))
        return mx.random.normal(shape, key=mx.random.key(3)).astype(kind)

    def _input(self, seed):
        shape = (1, self._rows, self.fused.width(self.module))
        x = _normal(shape, seed)
        # Near the first row, so that few experts are read, for many rows each.
        return x[:, :1] + 0.1 * x if self._only_first else x

    def _stock_output(self, x):
        given = x[:, :1] if self._only_first else x
        arguments = self.fused.arguments(self.module, given)
        if self._sample is not None:
            try:
                return self._stock(self._sample, *arguments)
            except ValueError:  # it gives its output the input's shape
                self._sample = None
        return self._stock(self.module, *arguments)

    def _routing_of(self, seed):
        if not self._only_first:
            return None
        x = _normal((1, _ROUTED_ROWS, self.fused.width(self.module)), seed)
        step = _ROUTED_AT_ONCE["gpu" if self.fused.options.on_gpu else "cpu"]
        parts = [
            self.fused.routing(self.module, x[:, i : i + step])
            for i in range(0, _ROUTED_ROWS, step)
        ]
        if parts[0] is None:
            return None
        return tuple(mx.concatenate(sides, 1) for sides in zip(*parts, strict=True))

    @property
    def _only_first(self):
        return self.dear and self.fused.rowwise

    def _run(self, x):
        state = self.fused.ready(self.module)
        given = self.fused.arguments(self.module, x)
        return self.fused.run(self.module, state, self._stock, *given)

    def _error_on(self, x, expected):
        many = self._run(x)
        if not self.fused.rowwise:
            return difference(expected, many)
        first = self._run(x[:, :1])
        step = 1 if self._sample is None else _STEP
        return max_of(
            difference(expected, many[:, : expected.shape[1], ::step]),
            difference(expected[:, :1], first[..., ::step]),
            difference(many[:, :1], first),
            difference(many[:, 3:4], self._run(x[:, 3:4])),
        )


@functools.lru_cache(maxsize=8)
def _normal(shape, seed):
    """Kept, since layers of one width come in dozens and each takes 1 ms to draw."""
    x = mx.random.normal(shape, key=mx.random.key(seed))
    mx.eval(x)
    return x


def start_all(probes):
    """Computes the stock outputs of many, on two streams at once on a CPU, where
    stock MLX has one thread a stream; compiles all their kernels at once on a GPU.
    What raises is left for error()."""
    if mx.default_device() != mx.Device(mx.cpu):
        _core.compile_together(lambda: [one.build() for one in probes])
        return
    if not hasattr(_local, "second"):
        _local.second = mx.new_stream(mx.cpu)
    streams = (mx.default_stream(mx.cpu), _local.second)
    outputs = []
    for i, one in enumerate(probes):
        try:
            with mx.stream(streams[i % 2]):
                outputs.append(one.start())
        except Exception:
            continue
        mx.async_eval(outputs[-1])
    for output in outputs:
        mx.eval(output)


def narrow_type(module):
    """Of the module's parameters the type of 16 bits, or None."""
    kinds = {value.dtype for _, value in tree_flatten(module.parameters())}
    return next((k for k in (mx.bfloat16, mx.float16) if k in kinds), None)


def difference(expected, got):
    if expected.shape != got.shape:
        return float("inf")
    size = mx.abs(expected).max().item()
    return mx.abs(got - expected).max().item() / max(size, 1e-30)


def max_of(*errors):
    """Of all, NaN if there is one, which Python's max() may hide."""
    return float("nan") if any(e != e for e in errors) else max(errors)
