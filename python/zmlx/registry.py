# SPDX-License-Identifier: MIT
"""What kernels there are: those that ship, and raw ones made in this process."""

import dataclasses
import threading

from zmlx import cache


def list_kernels():
    """Names of the raw kernels made so far."""
    return [kernel.name for _, kernel in cache.kernels()]


def clear_cache():
    """Forgets them; those in use live on."""
    cache.clear()


def cache_size():
    return cache.size()


@dataclasses.dataclass(frozen=True)
class KernelEntry:
    """One kernel by name, with what is known of it."""

    name: str
    module: str = ""
    summary: str = ""
    function: object = None
    tags: tuple = ()
    metadata: dict = dataclasses.field(default_factory=dict)


class KernelRegistry:
    """Kernel entries by name."""

    def __init__(self):
        self._lock = threading.Lock()
        self._entries = {}

    def register(self, entry):
        with self._lock:
            if entry.name in self._entries:
                raise ValueError(
                    f"[registry] names must be unique, got {entry.name!r} twice."
                )
            self._entries[entry.name] = entry
        return entry

    def get(self, name):
        with self._lock:
            if name not in self._entries:
                raise KeyError(f"[registry] no kernel {name!r}.")
            return self._entries[name]

    def list(self, tag=None):
        with self._lock:
            entries = list(self._entries.values())
        return [each for each in entries if tag is None or tag in each.tags]

    def __len__(self):
        return len(self._entries)

    def __contains__(self, name):
        return name in self._entries

    def __iter__(self):
        return iter(self.list())


def _catalog():
    from zmlx import kernels
    from zmlx.kernels._generate import functions

    filled = KernelRegistry()
    for made in functions():
        spec = made.kernel
        filled.register(
            KernelEntry(
                name=f"{made.module}.{made.name}",
                module=made.module,
                summary=spec.summary,
                function=getattr(getattr(kernels, made.module), made.name),
                tags=(made.module,)
                + (("differentiable",) if spec.gradient else ())
                + (("gpu",) if spec.gpu else ()),
                metadata={"kernel": spec.name, "family": spec.family},
            )
        )
    return filled


def __getattr__(name):
    if name == "GLOBAL_REGISTRY":
        globals()[name] = _catalog()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
