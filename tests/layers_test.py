# SPDX-License-Identifier: MIT
"""The layer check passes on this repository and finds planted violations."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import check_layers


def plant(root, name, *included):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f'#include "{other}"\n' for other in included))


def test_this_repository_keeps_the_rules():
    assert list(check_layers.problems(ROOT)) == []


@pytest.mark.parametrize(
    "source, included, why",
    [
        ("zmlx/base/a.h", "zmlx/runtime/b.h", "zmlx/base may include nothing"),
        ("zmlx/base/a.h", "mlx/mlx.h", "zmlx/base knows no MLX"),
        ("zmlx/dialect/a.cpp", "mlx/array.h", "zmlx/dialect knows no MLX"),
        ("zmlx/kernels/moe/a.cpp", "zmlx/model/b.h", "zmlx/kernels may include"),
        ("zmlx/model/a.cpp", "zmlx/measure/b.h", "zmlx/model may include"),
        ("zmlx/measure/a.cpp", "cli/b.h", "zmlx/measure may include"),
        ("zmlx/model/a.cpp", "mlx/backend/cpu/encoder.h", "mlx_internals.h"),
        ("zmlx/kernels/moe/a.cpp", "zmlx/kernels/norms/b.h", "kernel families"),
        ("zmlx/kernels/common/a.h", "zmlx/kernels/moe/b.h", "kernel families"),
        ("zmlx/model/a.cpp", "zmlx/zmlx.h", "for users of the library"),
    ],
)
def test_finds_a_planted_violation(tmp_path, source, included, why):
    plant(tmp_path, source, "zmlx/version.h", included)
    (found,) = check_layers.problems(tmp_path)
    assert found.startswith(f"{source}:2: includes {included}, but ")
    assert why in found


@pytest.mark.parametrize(
    "source, included",
    [
        ("zmlx/runtime/a.cpp", "zmlx/base/b.h"),
        ("zmlx/runtime/mlx_internals.h", "mlx/backend/cpu/encoder.h"),
        ("zmlx/kernels/moe/a.cpp", "zmlx/kernels/common/b.h"),
        ("zmlx/kernels/moe/a.cpp", "zmlx/kernels/moe/b.h"),
        ("zmlx/measure/a.cpp", "zmlx/model/b.h"),
        ("cli/a.cpp", "zmlx/measure/b.h"),
        ("tests/a.cpp", "zmlx/zmlx.h"),
    ],
)
def test_lets_pass_what_is_allowed(tmp_path, source, included):
    plant(tmp_path, source, included)
    assert list(check_layers.problems(tmp_path)) == []


def test_public_headers_show_no_private_library(tmp_path):
    plant(tmp_path, "zmlx/zmlx.h", "zmlx/model/model.h")
    plant(tmp_path, "zmlx/model/model.h", "zmlx/base/json.h")
    plant(tmp_path, "zmlx/base/json.h", "nlohmann/json.hpp")
    plant(tmp_path, "zmlx/base/other.h", "nlohmann/json.hpp")
    (found,) = check_layers.problems(tmp_path)
    assert found.startswith("zmlx/base/json.h:1: includes nlohmann/json.hpp")


def test_exits_with_one_when_a_rule_is_broken(tmp_path, capsys):
    assert check_layers.main(tmp_path) == 0
    plant(tmp_path, "zmlx/base/a.h", "cli/b.h")
    assert check_layers.main(tmp_path) == 1
    assert "zmlx/base/a.h:1" in capsys.readouterr().out
