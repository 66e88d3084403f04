# SPDX-License-Identifier: MIT
"""Makes the modules of zmlx.kernels from the C++ registry."""

import functools
import types
import warnings
from typing import NamedTuple

import mlx.core as mx

from zmlx import _core
from zmlx._rules import check_threadgroup

# Parameters that callers may give by position although they have a default.
_POSITIONAL = {"k", "seed", "scale", "alpha"}
# Where compute_dtype is the type of the first result, not a hint of old times.
_TYPED = {"linear", "moe", "quant"}
# Modules of functions that make functions of arrays.
_FACTORIES = {"activations", "fused"}
# What callers of the ZMLX package may pass, to no effect here.
_ACCEPTED = {
    "mean_lastdim": [("kahan", "False")],
    "sum_lastdim": [("kahan", "False")],
    "gather_qmm_combine": [("streaming", "None")],
    "gather_qmm_combine_quantized": [("streaming", "None")],
}
_SILENT = {"attention", "reductions", "rope", "scan", "image", "indexing"}


class Function(NamedTuple):
    """One function of the package, as text and as what it runs."""

    module: str
    name: str
    kernel: object
    # Pairs of a name and its default as Python writes it, or None.
    positional: list
    keyword: list
    factory: bool

    @property
    def arrays(self):
        return [python_name(self.kernel, name) for name, _ in self.kernel.inputs]

    @property
    def results(self):
        return len(self.kernel.outputs)

    def parameters(self, annotate=None):
        """The text between the parentheses of its definition."""

        def text(name, default):
            kind = annotate(name) if annotate else ""
            equals = " = " if kind else "="
            return f"{name}{kind}" + (f"{equals}{default}" if default else "")

        parts = [text(*each) for each in self.positional]
        if self.keyword:
            parts += ["*", *(text(*each) for each in self.keyword)]
        return ", ".join(parts)

    def documentation(self):
        """Summary, arrays and parameters, as the contract has them."""
        kernel = self.kernel
        lines = [kernel.summary + ".", ""]
        inputs = zip(self.arrays, kernel.inputs, strict=True)
        lines += [f"{name}: {contract}" for name, (_, contract) in inputs]
        lines += [f"{name}: {meaning}" for name, meaning, _ in kernel.params]
        returned = "; ".join(contract for _, contract in kernel.outputs)
        lines += [f"Returns: {returned}"]
        places = [self.arrays[place] for place in kernel.gradient]
        lines += ["Differentiable in: " + (", ".join(places) or "nothing")]
        if not kernel.gpu:
            lines += ["Runs on the CPU only."]
        if self.factory:
            lines[0] = f"A function of {', '.join(self.arrays)}: {lines[0]}"
        return "\n".join(lines)


def python_name(kernel, name):
    """The name of an input in Python: a cotangent is called so."""
    cotangent = name == "g" and kernel.name.endswith("_grad")
    return "cotan" if cotangent else name.replace(" ", "_")


def number_text(value):
    """A default: whole numbers and truth values come as doubles from C++."""
    return (
        str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)
    )


def places(kernel):
    """(module, name) of each function that a kernel gives."""
    for place in (kernel.python or f"{kernel.family}.{kernel.name}").split(";"):
        module, _, name = place.strip().partition(".")
        yield module, name
        if module == "activations":
            yield module, name + "_grad"


def function(kernel, module, name):
    """The function's signature, from its arrays and parameters."""
    factory = module in _FACTORIES
    arrays = [(python_name(kernel, each), None) for each, _ in kernel.inputs]
    positional, keyword = [], []
    for each, _, default in kernel.params:
        text = None if default is None else repr(default)
        if text and float(default) == int(default) and each not in ("alpha", "eps"):
            text = number_text(default)
        side = positional if text is None or each in _POSITIONAL else keyword
        side.append((each, text))
    positional.sort(key=lambda pair: pair[1] is not None)
    keyword += _ACCEPTED.get(name, [])
    if factory and keyword and keyword[0][0] == "c":  # those with a bias
        keyword.append(("compute_dtype", "None"))
    elif factory:
        keyword.append(("compute_dtype_key", "'float32'"))
    else:
        optional = [(each, "None") for each in kernel.optional]
        positional = arrays[: len(arrays) - len(optional)] + positional
        keyword = optional + keyword
        keyword += [("threadgroup", "256"), ("compute_dtype", "None")]
    return Function(module, name, kernel, positional, keyword, factory)


def functions():
    """Every function, in the order of the registry."""
    for kernel in _core.catalog():
        for module, name in places(kernel):
            yield function(kernel, module, name)


def check_compute_dtype(op, dtype):
    warnings.warn(
        f"[{op}] compute_dtype has no effect, got {dtype}: float32 is used inside.",
        DeprecationWarning,
        stacklevel=3,
    )


def check_key(op, key):
    if key not in ("float32", "float16"):
        raise ValueError(
            f"[{op}] compute_dtype_key must be 'float32' or 'float16', got {key!r}."
        )


def source(made):
    """The text of the function."""
    params = ", ".join(f"{name!r}: {name}" for name, _, _ in made.kernel.params)
    given = f"({', '.join(made.arrays)},)"
    if made.kernel.optional:
        given = f"tuple(each for each in {given} if each is not None)"
    call = f"kernel({given}, {{{params}}})"
    result = call + "[0]" if made.results == 1 else f"tuple({call})"
    lines = [f"def {made.name}({made.parameters()}):"]
    if made.factory:
        key, default = made.keyword[-1]
        check, differs = "check_key", "!="
        if key == "compute_dtype":
            check, differs = "check_compute_dtype", "is not"
        lines += [
            f"    if {key} {differs} {default}: {check}({made.name!r}, {key})",
            f"    def {made.name}({', '.join(made.arrays)}): return {result}",
            f"    return {made.name}",
        ]
        return "\n".join(lines)
    lines.append(
        "    if threadgroup != 256: check_threadgroup("
        + repr(made.name)
        + ", threadgroup)"
    )
    if made.module in _TYPED:
        lines += [
            f"    result = {result}",
            "    if compute_dtype is not None: result = cast(result, compute_dtype)",
            "    return result",
        ]
        return "\n".join(lines)
    if made.module not in _SILENT:
        lines.append(
            "    if compute_dtype is not None: check_compute_dtype("
            f"{made.name!r}, compute_dtype)"
        )
    lines.append(f"    return {result}")
    return "\n".join(lines)


def cast(result, dtype):
    """The first result in another type."""
    if isinstance(result, mx.array):
        return result.astype(dtype)
    return (result[0].astype(dtype), *result[1:])


def make(made, package):
    """The function itself."""
    scope = {
        "kernel": made.kernel,
        "cast": cast,
        "check_threadgroup": check_threadgroup,
        "check_compute_dtype": check_compute_dtype,
        "check_key": check_key,
    }
    exec(source(made), scope)
    result = scope[made.name]
    result.__module__ = f"{package}.{made.module}"
    result.__doc__ = made.documentation()
    if made.factory:
        return functools.wraps(result)(functools.cache(result))
    return result


def modules(package):
    """Every module by name, filled."""
    made = {}
    for each in functions():
        module = made.get(each.module)
        if module is None:
            module = types.ModuleType(
                f"{package}.{each.module}", f"Kernels: {each.module}."
            )
            module.__all__ = []
            module.__package__ = package
            made[each.module] = module
        setattr(module, each.name, make(each, package))
        module.__all__.append(each.name)
    return made
