# SPDX-License-Identifier: MIT
"""The raw kernels of this process, by what they are made from."""

import hashlib
import threading
from typing import NamedTuple


class KernelCacheKey(NamedTuple):
    name: str
    input_names: tuple
    output_names: tuple
    source_hash: str
    header_hash: str
    ensure_row_contiguous: bool
    atomic_outputs: bool


_lock = threading.Lock()
_kernels = {}


def key_of(arguments):
    """The key of MetalKernel's arguments."""
    name, inputs, outputs, source, header, contiguous, atomic = arguments

    def digest(text):
        return hashlib.sha256(text.encode()).hexdigest()

    return KernelCacheKey(
        name,
        tuple(inputs),
        tuple(outputs),
        digest(source),
        digest(header),
        contiguous,
        atomic,
    )


def get(arguments, make):
    """The kernel of these arguments, made if it is not there."""
    key = key_of(arguments)
    with _lock:
        if key not in _kernels:
            _kernels[key] = make()
        return _kernels[key]


def kernels():
    """(key, kernel) of each."""
    with _lock:
        return list(_kernels.items())


def clear():
    with _lock:
        _kernels.clear()


def size():
    with _lock:
        return len(_kernels)
