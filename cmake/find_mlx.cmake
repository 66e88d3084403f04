# SPDX-License-Identifier: MIT
# Finds MLX in the Python that ZMLX_PYTHON names, else in the one that pip builds
# for, else in the project's .venv.
if(NOT ZMLX_PYTHON AND SKBUILD)
  set(ZMLX_PYTHON "${Python_EXECUTABLE}")
endif()
if(NOT ZMLX_PYTHON)
  set(ZMLX_PYTHON "${CMAKE_SOURCE_DIR}/.venv/bin/python")
  if(NOT EXISTS "${ZMLX_PYTHON}")
    set(ZMLX_PYTHON python3)
  endif()
endif()
if(NOT MLX_DIR AND NOT MLX_ROOT)
  execute_process(
    COMMAND "${ZMLX_PYTHON}" -m mlx --cmake-dir
    OUTPUT_VARIABLE MLX_ROOT
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(SKBUILD)
  include(steady_path)
  steady_link(MLX_ROOT mlx)
endif()
find_package(MLX CONFIG REQUIRED)
