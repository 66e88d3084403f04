# SPDX-License-Identifier: MIT
"""Installs the build into a fresh prefix and uses it as another project would."""

import os
import re
import sys

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def consumer(build, prefix, tmp_path_factory):
    folder = tmp_path_factory.mktemp("consumer")
    build.make_project(ROOT / "tests" / "install_consumer", folder, prefix)
    return folder / "consumer"


def test_a_project_finds_links_and_runs_it(build, consumer):
    # 3 / sqrt(12.5) and 10 * 4 / sqrt(12.5).
    said = build.run(consumer)
    assert re.fullmatch(r"zmlx \d+\.\d+\.\d+: 0\.848528 11\.3137\n", said)


def test_public_headers_name_no_private_library(prefix):
    include = prefix / "include"
    assert (include / "zmlx/model/model.h").exists()
    for header in sorted(include.rglob("*.h")):
        for name in re.findall(r'#include [<"]([^>"]+)', header.read_text()):
            folder = name.split("/")[0] if "/" in name else ""
            assert folder in ("", "mlx", "zmlx"), (header, name)
            assert not name.startswith("mlx/backend/"), (header, name)
            assert folder != "zmlx" or (include / name).exists(), (header, name)


@pytest.mark.skipif(sys.platform != "linux", reason="about ELF files")
def test_programs_find_mlx_through_runpath(build, consumer, prefix):
    # RPATH would go before LD_LIBRARY_PATH and pin one build of MLX for ever.
    clean = {"PATH": os.environ["PATH"]}
    for program in [consumer, *(prefix / "bin").glob("zmlx")]:
        dynamic = build.run("readelf", "-d", program)
        assert "(RPATH)" not in dynamic
        assert re.search(r"\(RUNPATH\).*mlx/lib", dynamic)
        assert re.search(r"libmlx\.so => /", build.run("ldd", program, env=clean))
