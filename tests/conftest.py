# SPDX-License-Identifier: MIT
"""What the Python tests share: the build under test and an install of it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


class Build:
    """The CMake build folder that CTest is running."""

    def __init__(self):
        self.folder = Path(os.environ["ZMLX_BUILD_DIR"])
        self.cmake = os.environ["ZMLX_CMAKE"]
        self.cache = (self.folder / "CMakeCache.txt").read_text()

    def option(self, name):
        """A variable of CMake's cache, "" if it is not there."""
        found = re.search(rf"^{name}:\w+=(.*)$", self.cache, re.M)
        return found.group(1) if found else ""

    def run(self, *command, **options):
        """Standard output and error of a command that must succeed."""
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout

    def make_project(self, source, folder, prefix):
        """Builds a CMake project of somebody else against an installed zmlx."""
        sanitizers = self.option("ZMLX_SANITIZE")
        flags = f"-fsanitize={sanitizers}" if sanitizers else ""
        self.run(
            self.cmake,
            *("-G", "Ninja", "-S", source, "-B", folder),
            f"-DCMAKE_PREFIX_PATH={prefix}",
            f"-DCMAKE_CXX_COMPILER={self.option('CMAKE_CXX_COMPILER')}",
            f"-DCMAKE_CXX_COMPILER_LAUNCHER={shutil.which('ccache') or ''}",
            f"-DCMAKE_CXX_FLAGS={flags}",
        )
        self.run(self.cmake, "--build", folder)


@pytest.fixture(scope="session")
def build():
    return Build()


@pytest.fixture(scope="session")
def prefix(build, tmp_path_factory):
    """Where the build was installed; the path has a space in it."""
    where = tmp_path_factory.mktemp("an install") / "prefix"
    build.run(build.cmake, "--install", build.folder, "--prefix", where)
    return where


@pytest.fixture(scope="session")
def program(build):
    return str(build.folder / "bin" / "zmlx")


@pytest.fixture(scope="session")
def zmlx(program):
    """Runs the program; what it is given beside its arguments is its stdin."""

    def run(*args, stdin="", **options):
        return subprocess.run(
            [program, *map(str, args)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            **options,
        )

    return run
