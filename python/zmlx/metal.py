# SPDX-License-Identifier: MIT
"""Raw kernels in Metal that run on whatever MLX runs on.

Metal compiles the text as it is; CUDA and the CPU compile a translation of it.
"""

import dataclasses
import time

import mlx.core as mx

from zmlx import _core, cache
from zmlx.msl import kernel_header


@dataclasses.dataclass
class KernelStats:
    """What one kernel has cost so far."""

    compile_time_ms: float = 0.0  # building it; devices compile when it first runs
    run_count: int = 0
    total_run_time_ms: float = 0.0  # of verbose calls, which wait for the result


class MetalKernel:
    """A raw kernel: call it on arrays for a list of arrays."""

    def __init__(
        self,
        name,
        input_names,
        output_names,
        source,
        header="",
        ensure_row_contiguous=True,
        atomic_outputs=False,
    ):
        start = time.perf_counter()
        self.name = name
        self.input_names = tuple(input_names)
        self.output_names = tuple(output_names)
        self.source = source
        self.header = header
        self._kernel = _core.Kernel(
            name,
            list(input_names),
            list(output_names),
            source,
            kernel_header(header),
            ensure_row_contiguous,
            atomic_outputs,
        )
        self.stats = KernelStats(compile_time_ms=(time.perf_counter() - start) * 1e3)

    def __repr__(self):
        return f"MetalKernel({self.name!r})"

    def __call__(
        self,
        *inputs,
        template=None,
        grid=None,
        threadgroup=None,
        output_shapes=None,
        output_dtypes=None,
        init_value=None,
        verbose=False,
    ):
        """Defaults: outputs of the first input's shape and type, a thread for each
        element of the first output, and the largest threadgroup up to 512 threads.
        verbose prints the text, waits for the result and adds to stats."""
        self.stats.run_count += 1
        if verbose:
            print(self.source)
            start = time.perf_counter()
        outputs = self._kernel(
            inputs,
            grid=grid,
            threadgroup=threadgroup,
            output_shapes=output_shapes,
            output_dtypes=output_dtypes,
            template=template,
            init_value=init_value,
        )
        if verbose:
            mx.eval(outputs)
            mx.synchronize()
            self.stats.total_run_time_ms += (time.perf_counter() - start) * 1e3
        return outputs

    def _with(self, raw):
        other = object.__new__(MetalKernel)
        other.__dict__ = {**self.__dict__, "_kernel": raw, "stats": KernelStats()}
        return other

    def custom_vjp(self, vjp):
        """The kernel with a gradient: vjp(inputs, cotangents, outputs) gives one
        array for each input."""
        return self._with(self._kernel.custom_vjp(vjp))

    def checked(self, on=True):
        """The kernel run on the CPU with every access checked: KernelCheckError
        says what was found."""
        return self._with(self._kernel.checked(on))


def kernel(
    name,
    input_names,
    output_names,
    source,
    header="",
    ensure_row_contiguous=True,
    atomic_outputs=False,
    cache=True,
):
    """A MetalKernel; the same one for the same text where cache is on."""
    arguments = (
        name,
        tuple(input_names),
        tuple(output_names),
        source,
        header or "",
        ensure_row_contiguous,
        atomic_outputs,
    )
    if not cache:
        return MetalKernel(*arguments)
    return _cached(arguments)


def _cached(arguments):
    return cache.get(arguments, lambda: MetalKernel(*arguments))
