# SPDX-License-Identifier: MIT
# Whether to build the Python package: where nanobind is found beside MLX. Not
# with sanitizers, which the interpreter does not have.
execute_process(
  COMMAND "${ZMLX_PYTHON}" -m nanobind --cmake_dir
  OUTPUT_VARIABLE ZMLX_NANOBIND_DIR
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(SKBUILD AND ZMLX_NANOBIND_DIR)
  get_filename_component(nanobind_package "${ZMLX_NANOBIND_DIR}" DIRECTORY)
  steady_copy(nanobind_package nanobind)
  set(ZMLX_NANOBIND_DIR "${nanobind_package}/cmake")
endif()
set(zmlx_build_python OFF)
if(PROJECT_IS_TOP_LEVEL AND ZMLX_NANOBIND_DIR AND NOT ZMLX_SANITIZE)
  set(zmlx_build_python ON)
endif()
option(ZMLX_BUILD_PYTHON "Build the Python package" ${zmlx_build_python})
