# SPDX-License-Identifier: MIT
# pip builds in an environment that has a new name each time, by which the
# compiler's cache would never know a command again. So what is used of it gets a
# path in the build folder.

# Puts a link to the folder that `variable` names at packages/<name>.
function(steady_link variable name)
  if(${variable} AND NOT CMAKE_HOST_WIN32)
    set(path "${PROJECT_BINARY_DIR}/packages/${name}")
    file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/packages")
    file(REMOVE "${path}")
    file(CREATE_LINK "${${variable}}" "${path}" SYMBOLIC)
    set(${variable}
        "${path}"
        PARENT_SCOPE)
  endif()
endfunction()

# The same with a copy, for what looks through links.
function(steady_copy variable name)
  if(${variable})
    set(path "${PROJECT_BINARY_DIR}/packages/${name}")
    file(REMOVE_RECURSE "${path}")
    file(COPY "${${variable}}/" DESTINATION "${path}")
    set(${variable}
        "${path}"
        PARENT_SCOPE)
  endif()
endfunction()
