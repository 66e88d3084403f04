# SPDX-License-Identifier: MIT
# cmake -DSOURCE=.. -DPACKAGE=.. -P link_package.cmake: links each file and
# folder of SOURCE into PACKAGE, and removes links whose file is gone.
file(GLOB there LIST_DIRECTORIES true "${PACKAGE}/*")
foreach(path IN LISTS there)
  if(IS_SYMLINK "${path}")
    file(REMOVE "${path}")
  endif()
endforeach()
file(GLOB sources LIST_DIRECTORIES true RELATIVE "${SOURCE}" "${SOURCE}/*")
list(REMOVE_ITEM sources __pycache__)
foreach(name IN LISTS sources)
  file(CREATE_LINK "${SOURCE}/${name}" "${PACKAGE}/${name}" SYMBOLIC)
endforeach()
