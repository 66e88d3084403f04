# SPDX-License-Identifier: MIT
# Finds what an extension module needs in the Python that MLX was found in.
find_program(python_program NAMES "${ZMLX_PYTHON}" NO_CACHE REQUIRED)
set(Python_EXECUTABLE "${python_program}")
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
find_package(nanobind CONFIG REQUIRED PATHS "${ZMLX_NANOBIND_DIR}" NO_DEFAULT_PATH)

# In a wheel libmlx lies in the package mlx beside zmlx. import mlx.core has
# loaded it before: the extension never brings a second one.
if(APPLE)
  set(mlx_beside_package "@loader_path/../mlx/lib")
else()
  set(mlx_beside_package "$ORIGIN/../mlx/lib")
endif()
