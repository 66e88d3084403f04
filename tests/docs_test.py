# SPDX-License-Identifier: MIT
"""Runs the bash, cpp, cmake and python blocks of the pages, so that they stay true."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
# What makes a block short enough for a test; nothing else is changed.
SHORTER = [
    (r"--max-tokens \d+", "--max-tokens 8"),
    (r"--runs \d+", "--runs 1"),
    (r"-p \d+", "-p 16"),
    (r"-n \d+", "-n 4"),
    (r"\.max_tokens = \d+", ".max_tokens = 8"),
    (r"max_tokens=\d+", "max_tokens=8"),
]
TESTED = ("bash", "cpp", "cmake", "python")
# Shown to be read, not to be run.
UNTESTED = ("text", "json")


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    flags: list
    text: str

    def __str__(self):
        return f"{self.page.name}:{self.line}"


def blocks_of(page, text):
    """Every fenced block of a page."""
    fence = re.compile(r"^ *```(\S*)([^\n`]*)\n(.*?)^ *```$", re.M | re.S)
    for found in fence.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found[1], found[2].split(), found[3])


BLOCKS = [block for page in PAGES for block in blocks_of(page, page.read_text())]


def of(*languages):
    return [b for b in BLOCKS if b.language in languages and "skip-test" not in b.flags]


def shorter(text):
    for pattern, replacement in SHORTER:
        text = re.sub(pattern, replacement, text)
    return text


@pytest.fixture
def scratch(tmp_path):
    """A folder that looks like the repository; what blocks write stays in it."""
    for entry in ROOT.iterdir():
        if entry.name != "build" and not entry.name.startswith("."):
            (tmp_path / entry.name).symlink_to(entry)
    return tmp_path


def test_every_block_names_a_language_that_is_known():
    unknown = [str(b) for b in BLOCKS if b.language not in TESTED + UNTESTED]
    assert unknown == []
    assert of("bash") and of("cpp") and of("cmake")


@pytest.mark.parametrize("block", of("bash"), ids=str)
def test_bash_block_runs(build, scratch, block):
    if build.option("ZMLX_BUILD_CLI") == "OFF":
        pytest.skip("the program is not built")
    (scratch / "build").symlink_to(build.folder)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", shorter(block.text)],
        cwd=scratch,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def whole_program(text):
    """A block with a main() as it is; another one inside of main()."""
    if "int main(" in text:
        return text
    head = "#include <iostream>\n#include <zmlx/zmlx.h>\nnamespace mx = mlx::core;\n"
    lines = text.splitlines()
    head += "".join(line + "\n" for line in lines if line.startswith("#include"))
    body = [line for line in lines if not line.startswith("#include")]
    return head + "int main() {\n" + "\n".join(body) + "\n}\n"


def project_of(block):
    """The page's own CMake project, or README's."""
    own = [b for b in of("cmake") if b.page == block.page]
    return (own or of("cmake"))[0].text


@pytest.mark.parametrize("block", of("cpp"), ids=str)
def test_cpp_block_compiles_and_runs(build, prefix, scratch, tmp_path_factory, block):
    source = tmp_path_factory.mktemp("snippet")
    (source / "main.cpp").write_text(whole_program(shorter(block.text)))
    (source / "CMakeLists.txt").write_text(project_of(block))
    build.make_project(source, source / "build", prefix)
    build.run(source / "build" / "app", cwd=scratch)


@pytest.mark.parametrize(
    "page", sorted({block.page for block in of("python")}), ids=lambda page: page.name
)
def test_python_blocks_of_a_page_run_one_after_the_other(build, scratch, page):
    """As a reader types them: later ones use the names of earlier ones."""
    if build.option("ZMLX_BUILD_PYTHON") != "ON":
        pytest.skip("the package is not built")
    blocks = [block for block in of("python") if block.page == page]
    # From a file: jit() reads the text of functions.
    script = scratch / "snippets.py"
    script.write_text("\n".join(shorter(block.text) for block in blocks))
    done = subprocess.run(
        [build.option("ZMLX_PYTHON") or sys.executable, str(script)],
        cwd=scratch,
        env={**os.environ, "PYTHONPATH": str(build.folder / "python")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
