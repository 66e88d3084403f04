# SPDX-License-Identifier: MIT
"""zmlx_kernel_family() and zmlx_kernel_catalog() of cmake/kernel_family.cmake."""

import subprocess

import pytest
from conftest import ROOT

PROJECT = f"""cmake_minimum_required(VERSION 3.25)
project(families LANGUAGES CXX)
include("{ROOT / "cmake" / "kernel_family.cmake"}")
add_library(zmlx STATIC)
zmlx_kernel_family(norms)
zmlx_kernel_family(moe router)
zmlx_kernel_catalog()
get_property(tests GLOBAL PROPERTY zmlx_kernel_tests)
message(STATUS "tests: ${{tests}}")
"""
FILES = ["norms/norms.h", "norms/norms.cpp", "norms/norms_test.cpp"]
FILES += ["moe/moe.h", "moe/moe.cpp", "moe/router.cpp"]


@pytest.fixture
def configure(build, tmp_path):
    def run(files):
        for name in files:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "CMakeLists.txt").write_text(PROJECT)
        return subprocess.run(
            [build.cmake, "-G", "Ninja", "-S", tmp_path, "-B", tmp_path / "build"],
            capture_output=True,
            text=True,
        )

    return run


def test_catalog_asks_each_family_in_turn(configure, tmp_path):
    done = configure(FILES)
    assert done.returncode == 0, done.stderr
    assert f"tests: {tmp_path}/norms/norms_test.cpp" in done.stdout
    catalog = (tmp_path / "build" / "catalog.cpp").read_text()
    calls = [line.strip() for line in catalog.splitlines() if "(filled)" in line]
    assert calls == [
        "kernels::register_norms(filled);",
        "kernels::register_moe(filled);",
    ]
    assert catalog.count("(Registry& registry);") == 2


@pytest.mark.parametrize("missing", ["norms/norms.h", "moe/moe.cpp", "moe/router.cpp"])
def test_file_that_is_missing_is_named(configure, missing):
    done = configure([name for name in FILES if name != missing])
    assert done.returncode != 0
    assert f"zmlx/kernels/{missing} must exist." in " ".join(done.stderr.split())
