# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
"""zmlx's C++ library on arrays of mlx.core."""

from collections.abc import Sequence

import mlx.core


class FileError(RuntimeError):
    pass

class BackendError(RuntimeError):
    pass

class CompileError(RuntimeError):
    pass

class Elementwise:
    def __call__(self, *inputs: mlx.core.array) -> mlx.core.array: ...

    @property
    def input_names(self) -> list[str]: ...

    def text(self) -> str: ...

    def gradient_text(self, input: int = 0) -> str: ...

def elementwise_map(name: str, expr: str, input_names: Sequence[str], *, grad_expr: Sequence[str] = [], grad_prelude: str = '', header: str = '') -> Elementwise: ...

class CatalogKernel:
    @property
    def name(self) -> str: ...

    @property
    def family(self) -> str: ...

    @property
    def summary(self) -> str: ...

    @property
    def python(self) -> str: ...

    @property
    def gradient(self) -> list[int]: ...

    @property
    def gpu(self) -> bool: ...

    @property
    def inputs(self) -> list[tuple[str, str]]: ...

    @property
    def outputs(self) -> list[tuple[str, str]]: ...

    @property
    def params(self) -> list[tuple[str, str, float | None]]: ...

    def __call__(self, inputs: tuple, params: dict) -> list[mlx.core.array]: ...

def catalog() -> list[CatalogKernel]: ...
