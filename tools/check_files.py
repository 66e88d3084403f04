#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the house rules on source files: licence line, ASCII, length, ends.

Usage: check_files.py [REPOSITORY]; reads what git tracks or would add.
"""

import subprocess
import sys
from pathlib import Path

COMMENT = {
    ".h": "//",
    ".cpp": "//",
    ".metal": "//",
    ".py": "#",
    ".sh": "#",
    ".cmake": "#",
}
NAMED = {"CMakeLists.txt": "#", "Makefile": "#", "run": "#"}
# The stop; tests may go on for longer.
MAX_LINES = 600
MAX_TEST_LINES = 800
LICENCE = "SPDX-License-Identifier: MIT"


def problems_of(name, data):
    """What is wrong with a file of this name and content."""
    path = Path(name)
    comment = COMMENT.get(path.suffix) or NAMED.get(path.name)
    if comment is None:
        return
    lines = data.decode("latin-1").splitlines()
    # A script's first line says what runs it.
    head = lines[1:2] if lines[:1] and lines[0].startswith("#!") else lines[:1]
    if head != [f"{comment} {LICENCE}"]:
        yield f"{name}:1: must start with '{comment} {LICENCE}'."
    for number, line in enumerate(lines, 1):
        if not line.isascii():
            yield f"{name}:{number}: must be ASCII."
        if line != line.rstrip():
            yield f"{name}:{number}: must not end in white space."
    if data and not data.endswith(b"\n"):
        yield f"{name}: must end with a newline."
    is_test = "_test." in name or "/tests/" in f"/{name}"
    most = MAX_TEST_LINES if is_test else MAX_LINES
    if len(lines) > most:
        yield f"{name}: must have at most {most} lines, got {len(lines)}."


def main(root="."):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    found = []
    for name in sorted(set(listed.decode().split("\0")) - {""}):
        path = Path(root) / name
        if path.is_file():  # a file removed but not yet committed is listed too
            found += problems_of(name, path.read_bytes())
    print("\n".join(found) or "files: good")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
