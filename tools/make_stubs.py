#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the type stubs of what Python has from C++, or checks them.

Usage: PYTHONPATH=build/python make_stubs.py [--check]
zmlx/_core.pyi comes from nanobind's stubgen; zmlx/kernels/<module>.pyi from the
registry of kernels. --check writes nothing and exits with 1 where one is stale.
"""

import sys
from pathlib import Path

HEAD = "# SPDX-License-Identifier: MIT\n# Written by tools/make_stubs.py.\n"


def extension_stub():
    from nanobind.stubgen import StubGen

    from zmlx import _core

    generator = StubGen(_core, quiet=True)
    generator.put(_core)
    lines = generator.get().splitlines()
    return HEAD + "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def parameter_types(made):
    """A function that gives ': type' for each parameter of a function."""
    kinds = {name: "mx.array" for name in made.arrays}
    kinds |= {name: "mx.array | None" for name in made.kernel.optional}
    kinds |= {
        "threadgroup": "int | str",
        "compute_dtype": "mx.Dtype | None",
        "compute_dtype_key": "str",
        "kahan": "bool",
        "streaming": "bool | None",
    }

    def annotate(name):
        return f": {kinds.get(name, 'float')}"

    return annotate


def function_stub(made):
    result = "mx.array"
    if made.results > 1:
        result = f"tuple[{', '.join([result] * made.results)}]"
    if made.factory:
        arrays = ", ".join(["mx.array"] * len(made.arrays))
        result = f"Callable[[{arrays}], {result}]"
    text = made.documentation().replace("\n", "\n    ").replace("\n    \n", "\n\n")
    closing = "\n    " if "\n" in text else ""
    parameters = made.parameters(parameter_types(made))
    return f'def {made.name}({parameters}) -> {result}:\n    """{text}{closing}"""\n'


def kernel_stubs():
    """The text of each module's stub, by file name."""
    from zmlx.kernels._generate import functions

    modules = {}
    for made in functions():
        modules.setdefault(made.module, []).append(made)
    stubs = {}
    for module, found in modules.items():
        text = HEAD
        if any(made.factory for made in found):
            text += "from collections.abc import Callable\n\n"
        text += "import mlx.core as mx\n\n"
        stubs[f"kernels/{module}.pyi"] = text + "\n".join(map(function_stub, found))
    names = "".join(f"from . import {name} as {name}\n" for name in sorted(modules))
    stubs["kernels/__init__.pyi"] = HEAD + names
    return stubs


def stubs():
    return {"_core.pyi": extension_stub(), **kernel_stubs()}


def stale(package):
    """Names of stubs that are missing, out of date or of nothing."""
    wanted = stubs()
    there = {
        path.relative_to(package).as_posix()
        for path in [*package.glob("_core.pyi"), *package.glob("kernels/*.pyi")]
    }
    return sorted(
        name
        for name in wanted.keys() | there
        if name not in wanted
        or name not in there
        or (package / name).read_text() != wanted[name]
    )


def main(*arguments):
    package = Path(__file__).resolve().parent.parent / "python" / "zmlx"
    if arguments == ("--check",):
        found = stale(package)
        print("\n".join(f"{name}: must be written again." for name in found))
        return int(bool(found))
    if arguments:
        sys.exit(__doc__)
    for name in stale(package):
        wanted = stubs().get(name)
        if wanted is None:
            (package / name).unlink()
        else:
            (package / name).write_text(wanted)
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
