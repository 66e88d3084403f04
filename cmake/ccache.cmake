# SPDX-License-Identifier: MIT
# Compiles through ccache where it is installed, unless a launcher is given.
find_program(ZMLX_CCACHE ccache)
if(ZMLX_CCACHE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${ZMLX_CCACHE}")
endif()
