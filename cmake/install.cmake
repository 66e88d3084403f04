# SPDX-License-Identifier: MIT
# cmake --install: public headers, library, program, and what find_package(zmlx)
# reads.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
include(public_headers)

zmlx_public_headers(headers)
target_sources(
  zmlx PUBLIC FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}" FILES
              ${headers})
install(TARGETS zmlx EXPORT zmlx-targets FILE_SET HEADERS)
if(TARGET zmlx_cli)
  install(TARGETS zmlx_cli)
endif()

set(config_folder "${CMAKE_INSTALL_LIBDIR}/cmake/zmlx")
install(
  EXPORT zmlx-targets
  NAMESPACE zmlx::
  DESTINATION "${config_folder}")
configure_package_config_file(
  cmake/zmlx-config.cmake.in "${PROJECT_BINARY_DIR}/zmlx-config.cmake"
  INSTALL_DESTINATION "${config_folder}"
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
  "${PROJECT_BINARY_DIR}/zmlx-config-version.cmake"
  COMPATIBILITY SameMinorVersion)
install(
  FILES "${PROJECT_BINARY_DIR}/zmlx-config.cmake"
        "${PROJECT_BINARY_DIR}/zmlx-config-version.cmake"
        cmake/linked_libraries.cmake
  DESTINATION "${config_folder}")
