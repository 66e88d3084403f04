# SPDX-License-Identifier: MIT
# zmlx_public_headers(OUT): the headers that zmlx/zmlx.h reaches. Those, and no
# list kept by hand, are the public interface; tools/check_layers.py keeps
# private libraries out of them.
function(zmlx_public_headers out)
  set(found)
  set(queue "${PROJECT_SOURCE_DIR}/zmlx/zmlx.h")
  while(queue)
    list(POP_FRONT queue header)
    if(NOT header IN_LIST found)
      list(APPEND found "${header}")
      file(STRINGS "${header}" lines REGEX "^#include \"zmlx/")
      foreach(line IN LISTS lines)
        string(REGEX REPLACE "^#include \"(.*)\".*" "\\1" path "${line}")
        list(APPEND queue "${PROJECT_SOURCE_DIR}/${path}")
      endforeach()
    endif()
  endwhile()
  set_property(
    DIRECTORY "${PROJECT_SOURCE_DIR}"
    APPEND
    PROPERTY CMAKE_CONFIGURE_DEPENDS ${found})
  set(${out} ${found} PARENT_SCOPE)
endfunction()
