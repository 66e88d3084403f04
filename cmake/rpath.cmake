# SPDX-License-Identifier: MIT
# Programs find the libmlx.so that they were built against, installed or not.
# As RUNPATH, not RPATH: LD_LIBRARY_PATH goes first, so that one build runs on
# MLX's CPU and CUDA libraries of the same version.
set(CMAKE_INSTALL_RPATH "${MLX_LIBRARY_DIRS}")
if(APPLE)
  list(PREPEND CMAKE_INSTALL_RPATH "@loader_path/../lib")
else()
  list(PREPEND CMAKE_INSTALL_RPATH "$ORIGIN/../lib")
  add_link_options(LINKER:--enable-new-dtags)
endif()
# Else CMake pads the build's path with empty entries, which mean the folder
# that a program is started in. A shared libzmlx is elsewhere in the build.
if(NOT BUILD_SHARED_LIBS)
  set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
endif()
