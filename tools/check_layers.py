#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks who includes whom. Usage: check_layers.py [REPOSITORY]

Prints each include that the rules forbid and exits 1 if there is one.
"""

import re
import sys
from pathlib import Path

# The layers that each folder may include besides itself.
LAYERS = {
    "zmlx/base": "",
    "zmlx/dialect": "base",
    "zmlx/runtime": "base dialect",
    "zmlx/authoring": "base dialect runtime",
    "zmlx/kernels": "base dialect runtime authoring",
    "zmlx/model": "base dialect runtime authoring kernels",
    "zmlx/measure": "base dialect runtime authoring kernels model",
    "cli": "base dialect runtime authoring kernels model measure",
    "python": "base dialect runtime authoring kernels model measure",
    "bench": "base dialect runtime authoring kernels model measure",
    "tests": "base dialect runtime authoring kernels model measure",
    "examples": "base dialect runtime authoring kernels model measure",
}
# These know no MLX.
TEXT_ONLY = ("zmlx/base", "zmlx/dialect")
# MLX's internals come in through one file.
INTERNALS = "zmlx/runtime/mlx_internals.h"
# Libraries that what zmlx/zmlx.h reaches must not show.
PRIVATE = ("nlohmann/", "fmt/", "hwy/", "CLI/", "pcre2", "utf8proc", "xxhash")

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
SOURCES = (".h", ".hpp", ".cpp", ".cc", ".metal")


def includes(path):
    """(line number, included name) of each include in a file."""
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        found = INCLUDE.match(line)
        if found:
            yield number, found.group(1)


def layer_of(name):
    """The key of LAYERS that holds a path, or None."""
    return next((key for key in LAYERS if name.startswith(key + "/")), None)


def family_of(name):
    """The kernel family of a path, None outside kernels/<family>/."""
    parts = name.split("/")
    return parts[2] if parts[:2] == ["zmlx", "kernels"] and len(parts) > 3 else None


def broken_rule(source, name):
    """Why source must not include name, or None."""
    layer = layer_of(source)
    if name.startswith("mlx/backend/") and source != INTERNALS:
        return f"only {INTERNALS} may include MLX's backend headers"
    if name.startswith("mlx/") and layer in TEXT_ONLY:
        return f"{layer} knows no MLX"
    if not name.startswith(("zmlx/", "cli/", "python/")):
        return None
    target = layer_of(name)
    if name == "zmlx/zmlx.h" and source.startswith("zmlx/"):
        return "zmlx/zmlx.h is for users of the library"
    if target is None or target == layer:
        families = {family_of(source), family_of(name)} - {None, "common"}
        if len(families) > 1 or (family_of(source) == "common" and families):
            return "kernel families share code through zmlx/kernels/common only"
        return None
    if target.removeprefix("zmlx/") not in LAYERS[layer].split():
        allowed = LAYERS[layer] or "nothing of zmlx"
        return f"{layer} may include {allowed}"
    return None


def public_headers(root):
    """What zmlx/zmlx.h reaches."""
    found, queue = set(), ["zmlx/zmlx.h"]
    while queue:
        name = queue.pop()
        if name in found or not (root / name).exists():
            continue
        found.add(name)
        queue += [n for _, n in includes(root / name) if n.startswith("zmlx/")]
    return found


def problems(root):
    public = public_headers(root)
    for folder in sorted({key.split("/")[0] for key in LAYERS}):
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.suffix not in SOURCES or layer_of(name) is None:
                continue
            for line, included in includes(path):
                why = broken_rule(name, included)
                if why:
                    yield f"{name}:{line}: includes {included}, but {why}."
    for name in sorted(public):
        for line, included in includes(root / name):
            if included.startswith(PRIVATE):
                yield (
                    f"{name}:{line}: includes {included}, but zmlx/zmlx.h reaches"
                    " this header, and public headers show no private library."
                )


def main(root="."):
    found = list(problems(Path(root)))
    print("\n".join(found) or "layers: good")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
