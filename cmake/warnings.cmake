# SPDX-License-Identifier: MIT
# Flags of our own sources; never part of what an installed zmlx asks of others.
add_library(zmlx_warnings INTERFACE)
target_compile_options(zmlx_warnings INTERFACE -Wall -Wextra -Wno-psabi)
option(ZMLX_WERROR "Treat warnings as errors" OFF)
if(ZMLX_WERROR)
  target_compile_options(zmlx_warnings INTERFACE -Werror)
endif()
