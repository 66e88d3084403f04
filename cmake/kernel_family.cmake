# SPDX-License-Identifier: MIT
# Kernel families: what a folder of zmlx/kernels must hold, and the catalog that
# is made from their names. No globbing, and no static initialisers, which a
# static library drops.

# zmlx_kernel_family(FAMILY [PART...]): FAMILY/FAMILY.h (contracts) and
# FAMILY/FAMILY.cpp must exist, and FAMILY/PART.cpp for each part. One of them
# defines zmlx::kernels::register_FAMILY(Registry&). FAMILY/FAMILY_test.cpp
# joins the tests of the kernels if it is there.
function(zmlx_kernel_family family)
  set(sources ${family}/${family}.cpp)
  foreach(part IN LISTS ARGN)
    list(APPEND sources ${family}/${part}.cpp)
  endforeach()
  foreach(file IN LISTS sources ITEMS ${family}/${family}.h)
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "zmlx_kernel_family(${family}): zmlx/kernels/${file} "
                          "must exist.")
    endif()
  endforeach()
  target_sources(zmlx PRIVATE ${sources})
  set_property(GLOBAL APPEND PROPERTY zmlx_kernel_families ${family})
  set(test "${CMAKE_CURRENT_SOURCE_DIR}/${family}/${family}_test.cpp")
  if(EXISTS "${test}")
    set_property(GLOBAL APPEND PROPERTY zmlx_kernel_tests "${test}")
  endif()
endfunction()

# zmlx_kernel_catalog(): writes catalog.cpp, which asks each family so far for
# its kernels, in the order of the calls.
function(zmlx_kernel_catalog)
  get_property(families GLOBAL PROPERTY zmlx_kernel_families)
  set(declarations)
  set(calls)
  foreach(family IN LISTS families)
    string(APPEND declarations "void register_${family}(Registry& registry);\n")
    string(APPEND calls "    kernels::register_${family}(filled);\n")
  endforeach()
  set(catalog "${CMAKE_CURRENT_BINARY_DIR}/catalog.cpp")
  file(
    CONFIGURE
    OUTPUT "${catalog}"
    CONTENT
      [[// Made by cmake/kernel_family.cmake.
#include "zmlx/kernels/catalog.h"

namespace zmlx {
namespace kernels {
@declarations@} // namespace kernels

const Registry& catalog() {
  static const Registry registry = [] {
    Registry filled;
@calls@    return filled;
  }();
  return registry;
}

} // namespace zmlx
]] @ONLY)
  target_sources(zmlx PRIVATE "${catalog}")
endfunction()
