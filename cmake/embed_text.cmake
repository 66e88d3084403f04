# SPDX-License-Identifier: MIT
# zmlx_embed_text(OUT HEADER NAMESPACE PREFIX FILE...): writes a C++ file that
# defines one std::string_view a file, PREFIX and the file's stem, as HEADER
# declares them. Comment lines and #pragma once are left out.
function(zmlx_embed_text out header namespace prefix)
  set(text "// Written by the build.\n#include \"${header}\"\nnamespace ${namespace} {\n")
  foreach(file IN LISTS ARGN)
    get_filename_component(stem "${file}" NAME_WE)
    file(READ "${file}" content)
    string(REGEX REPLACE "(^|\n)[ \t]*//[^\n]*" "\\1" content "${content}")
    string(REPLACE "#pragma once\n" "" content "${content}")
    string(REGEX REPLACE "\n\n+" "\n" content "${content}")
    string(APPEND text "const std::string_view ${prefix}${stem} = R\"zmlx_text(${content})zmlx_text\";\n")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
  endforeach()
  string(APPEND text "} // namespace ${namespace}\n")
  file(CONFIGURE OUTPUT "${out}" CONTENT "${text}" @ONLY)
endfunction()
