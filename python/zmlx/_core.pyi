# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
"""zmlx's C++ library on arrays of mlx.core."""

from collections.abc import Callable, Mapping, Sequence

import mlx.core


class FileError(RuntimeError):
    pass

class BackendError(RuntimeError):
    pass

class CompileError(RuntimeError):
    pass

class DecodeModel:
    def __init__(self, config: str, tensors: Mapping[str, mlx.core.array], packing: Mapping[str, tuple[int, int, str]], origin: str) -> None: ...

    def forward(self, tokens: mlx.core.array, caches: list | None) -> mlx.core.array | None: ...

    def move_weights(self) -> None: ...

    def start_timing(self) -> None: ...

    def stop_timing(self) -> list: ...

class RowOperation:
    def __call__(self, *inputs: mlx.core.array) -> mlx.core.array: ...

    @property
    def input_names(self) -> list[str]: ...

def reduce(init: str, update: str, finalize: str, name: str, header: str) -> RowOperation: ...

def map_reduce(pass1: Sequence[str], pass2: Sequence[str], write: str, name: str, header: str, inputs: Sequence[str]) -> RowOperation: ...

def binary(name: str, expr: str, *, header: str = '') -> Elementwise: ...

def jit(text: str, name: str) -> Elementwise: ...

class Elementwise:
    def __call__(self, *inputs: mlx.core.array) -> mlx.core.array: ...

    @property
    def input_names(self) -> list[str]: ...

    def text(self) -> str: ...

    def gradient_text(self, input: int = 0) -> str: ...

def elementwise_map(name: str, expr: str, input_names: Sequence[str], *, grad_expr: Sequence[str] = [], grad_prelude: str = '', header: str = '') -> Elementwise: ...

class Validation:
    def __init__(self, model: str, dtype: str, quantization: str, max_tokens: int, runs: int, has_oracle: bool) -> None: ...

    def add_prompt(self, text: str, ids: Sequence[int]) -> int: ...

    def compare(self, prompt: int, step: int, stock: mlx.core.array, patched: mlx.core.array, oracle: mlx.core.array | None) -> bool: ...

    def set_tokens(self, prompt: int, stock: Sequence[int], patched: Sequence[int]) -> None: ...

    def repeat(self, first: mlx.core.array, again: mlx.core.array, one_thread: bool) -> None: ...

    def departure(self, prompt: int) -> int: ...

    def set_tie(self, prompt: int, step: int, gap: float) -> None: ...

    def set_patched(self, installed: Sequence[tuple[str, str]]) -> None: ...

    def time(self, patched: bool, prefill: float, decode: float, peak_bytes: int) -> None: ...

    def set_timed(self, prompt_tokens: int, tokens: int) -> None: ...

    def finish(self) -> list[str]: ...

    def text(self) -> str: ...

    def write_capsule(self, path: str, command: str, python: str) -> None: ...

def least_router_gap(spec: RouterSpec, logits: mlx.core.array, bias: mlx.core.array | None) -> float:
    """
    How near rows of logits come to a choice of other experts: by what part of a row's largest logit two must move towards one another.
    """

def default_prompts() -> list[str]: ...

def random_tokens(count: int, vocab_size: int, seed: int) -> list[int]: ...

def report_text(path: str) -> str: ...

def num_threads() -> int: ...

def set_num_threads(threads: int) -> None: ...

class RouterSpec:
    """A router as data."""

    def __init__(self, *, score: str = 'softmax', top_k: int = 1, select_on_logits: bool = False, weight_from_biased: bool = False, groups: int = 1, chosen_groups: int = 1, group_score: str = 'top_two', renormalise: bool = True, epsilon: float = 0.0, epsilon_is_floor: bool = False, scale: float = 1.0, weight_on_input: bool = False, jitter: float = 0.009999999776482582) -> None: ...

    @property
    def top_k(self) -> int: ...

class Projection:
    """A matrix, or a stack of them."""

    def __init__(self, weight: mlx.core.array, scales: mlx.core.array | None = None, biases: mlx.core.array | None = None, bits: int = 0, group_size: int = 0, mode: str = 'affine', bias: mlx.core.array | None = None) -> None: ...

class Mlp:
    """Projections and their activation."""

    def __init__(self, gate: Projection | None, up: Projection, down: Projection, activation: str = 'silu', alpha: float = 1.7020000219345093, limit: float = 7.0) -> None: ...

class MoeBlock:
    """A router and its experts."""

    def __init__(self, spec: RouterSpec, router: Projection, expert_bias: mlx.core.array | None, experts: Mlp) -> None: ...

def moe_mlp(x: mlx.core.array, block: MoeBlock) -> mlx.core.array: ...

def gated_mlp(x: mlx.core.array, mlp: Mlp) -> mlx.core.array: ...

def linear(x: mlx.core.array, projection: Projection) -> mlx.core.array: ...

def rms_norm(x: mlx.core.array, weight: mlx.core.array, eps: float) -> mlx.core.array: ...

def add_rms_norm(x: mlx.core.array, residual: mlx.core.array, weight: mlx.core.array, eps: float) -> tuple[mlx.core.array, mlx.core.array]:
    """The norm of the sum, and the sum."""

def layer_norm(x: mlx.core.array, weight: mlx.core.array | None, bias: mlx.core.array | None, eps: float) -> mlx.core.array: ...

def softmax(x: mlx.core.array) -> mlx.core.array: ...

def route(logits: mlx.core.array, spec: RouterSpec, bias: mlx.core.array | None = None) -> tuple[mlx.core.array, mlx.core.array]:
    """Weights and experts of each token."""

class NormQkv:
    """A norm and one to three projections."""

    def __init__(self, norm_weight: mlx.core.array, eps: float, one_plus: bool, projections: Sequence[Projection]) -> None: ...

def rms_norm_qkv(x: mlx.core.array, norm_qkv: NormQkv) -> list[mlx.core.array]:
    """What each projection gives of x normalised."""

class PackedWeights:
    """Weights kept in blocks."""

    def __init__(self) -> None: ...

    def add(self, words: object, scales: object, biases: object | None, bits: int, group_size: int) -> bool:
        """
        Keeps an affine weight in blocks, and makes its arrays unpack themselves when they are read; False where it cannot lie in blocks.
        """

    def count_holders(self) -> None:
        """Arrays with more holders than now keep what is unpacked."""

    def drop(self) -> int:
        """Drops what has been unpacked since."""

    def unpack(self) -> None:
        """Unpacks all, until drop()."""

    def restore(self) -> None:
        """Unpacks all for good."""

    def holds(self) -> bool:
        """Whether all arrays have their values still."""

    @staticmethod
    def trim() -> None: ...

    def __len__(self) -> int: ...

def wants_blocks() -> bool: ...

def unpack(array: mlx.core.array) -> None:
    """Evaluates an array that unpacks itself, in one thread at a time."""

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
    def optional(self) -> list[str]: ...

    @property
    def outputs(self) -> list[tuple[str, str]]: ...

    @property
    def params(self) -> list[tuple[str, str, float | None]]: ...

    def __call__(self, inputs: tuple, params: dict) -> list[mlx.core.array]: ...

def catalog() -> list[CatalogKernel]: ...

class KernelCheckError(RuntimeError):
    pass

def set_checked_kernels(on: bool) -> None: ...

class Kernel:
    def __init__(self, name: str, inputs: Sequence[str], outputs: Sequence[str], body: str, header: str = '', ensure_row_contiguous: bool = True, atomic_outputs: bool = False) -> None: ...

    def __call__(self, inputs: object, *, grid: object | None = None, threadgroup: object | None = None, output_shapes: Sequence[Sequence[int]] | None = None, output_dtypes: Sequence[mlx.core.Dtype] | None = None, template: object | None = None, init_value: float | None = None) -> list[mlx.core.array]: ...

    def custom_vjp(self, vjp: Callable) -> Kernel: ...

    def checked(self, on: bool = True) -> Kernel: ...

def autotune_kernel(kernel: Kernel, inputs: object, candidates: list, *, output_shapes: Sequence[Sequence[int]] | None = None, output_dtypes: Sequence[mlx.core.Dtype] | None = None, warmup: int = 3, iterations: int = 10, use_cache: bool = False) -> tuple[int, list[float], list[str], bool]: ...

class Witness:
    def __init__(self) -> None: ...

    def add(self, holder: dict, key: object) -> None: ...

    def add_list(self, holder: list) -> None: ...

    def holds(self) -> bool: ...
