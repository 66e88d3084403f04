# SPDX-License-Identifier: MIT
"""The package exchanges arrays with MLX, loads lazily and refuses other MLXs."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import zmlx
from zmlx import _core


def run(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, **options
    )


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_takes_lazy_arrays_and_returns_arrays_of_their_type(dtype):
    lazy = (mx.arange(6).reshape(2, 3) - 2).astype(dtype)
    y = zmlx.api.elementwise("x * x + 1")(lazy)
    assert type(y) is mx.array and y.dtype == dtype and y.shape == (2, 3)
    want = (np.arange(6, dtype=np.float64).reshape(2, 3) - 2) ** 2 + 1
    assert np.array_equal(np.array(y.astype(mx.float32)), want)


def test_refuses_what_is_no_array():
    square = zmlx.api.elementwise("x * x", name="square")
    with pytest.raises(TypeError, match="input 0 must be an mx.array, got list"):
        square([1.0])


def test_errors_of_the_library_are_value_errors():
    with pytest.raises(ValueError, match=r"\[bad\]"):
        zmlx.api.elementwise("x * nothing", name="bad")


def test_unknown_attributes_are_missing():
    assert not hasattr(zmlx, "foo")
    with pytest.raises(AttributeError, match="no attribute 'foo'"):
        _ = zmlx.foo


def test_every_listed_name_resolves():
    for name in zmlx.__all__:
        assert getattr(zmlx, name) is not None, name
    assert set(dir(zmlx)) == set(zmlx.__all__)


def test_names_of_modules_and_functions_are_both():
    done = run(
        "import zmlx, zmlx.generate, zmlx.elementwise, zmlx.autotune, zmlx.patch\n"
        "for name in ('generate', 'elementwise', 'autotune', 'patch'):\n"
        "    assert callable(getattr(zmlx, name)), name\n"
        "from zmlx.patch import patch\n"
        "from zmlx.elementwise import unary\n"
        "assert zmlx.elementwise('x + 1') is not None"
    )
    assert done.returncode == 0, done.stderr


def test_import_loads_no_more_than_mlx():
    code = (
        "import sys, mlx.core; before = set(sys.modules); import zmlx;"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = run(code).stdout.split()
    assert "zmlx" in loaded
    assert not {"numpy", "mlx.nn", "mlx_lm", "zmlx._core", "zmlx.api"} & set(loaded)


def test_another_mlx_gives_an_import_error_that_names_both():
    wanted = _core_mlx_version()
    done = run("import mlx.core as mx; mx.__version__ = '0.1.2'; import zmlx")
    assert done.returncode == 1
    assert "ImportError: [zmlx]" in done.stderr
    assert f"built with MLX {wanted}, got MLX 0.1.2" in done.stderr


def test_a_suffix_of_the_version_is_the_same_mlx():
    wanted = _core_mlx_version()
    code = f"import mlx.core as mx; mx.__version__ = '{wanted}.dev1'; import zmlx"
    assert run(code).returncode == 0


def test_a_missing_backend_gives_an_import_error_with_advice(tmp_path):
    broken = tmp_path / "mlx" / "core.py"
    broken.parent.mkdir()
    broken.write_text("raise ImportError('libmlx.so: cannot open')")
    (tmp_path / "mlx" / "__init__.py").write_text("")
    package = Path(zmlx.__file__).parent.parent
    done = run(
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(package)!r}]; import zmlx"
    )
    assert "libmlx.so: cannot open" in done.stderr
    assert "pip install 'mlx[cpu]==" in done.stderr


def _core_mlx_version():
    from zmlx import _built_with

    return _built_with.MLX_VERSION


def test_the_extension_uses_the_mlx_that_is_loaded():
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    assert _core.__version__ == zmlx.__version__
    loaded = {
        line.split()[-1] for line in maps.read_text().splitlines() if "libmlx" in line
    }
    assert len(loaded) == 1


def test_other_threads_run_while_an_operation_is_made():
    # With this interval a thread runs on until it lets go of the lock itself.
    text = "x" + "".join(f" + sin(x * {i}.0f)" for i in range(100))
    count, done = [0], threading.Event()

    def tick():
        while not done.is_set():
            count[0] += 1
            time.sleep(0.0001)

    thread = threading.Thread(target=tick)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread.start()
        before = count[0]
        for _ in range(1000):
            zmlx.api.elementwise(text)
            if count[0] > before:
                break
        assert count[0] > before
    finally:
        done.set()
        sys.setswitchinterval(interval)
        thread.join()
