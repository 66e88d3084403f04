# SPDX-License-Identifier: MIT
# ZMLX_SANITIZE=address,undefined or thread: instruments the library, program
# and tests. MLX's wheel is not instrumented, which decides the options below.
set(ZMLX_SANITIZE "" CACHE STRING "Sanitizers: address,undefined or thread")
set(zmlx_test_environment "")
if(ZMLX_SANITIZE)
  # vptr checks need type information that libmlx.so does not export.
  add_compile_options(
    -fsanitize=${ZMLX_SANITIZE} -fno-sanitize=vptr
    -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${ZMLX_SANITIZE})
  # A vector that MLX grew has no container annotations to hold ours to.
  set(zmlx_test_environment
      "ASAN_OPTIONS=detect_container_overflow=0:strict_string_checks=1"
      "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_LIST_DIR}/lsan.supp:print_suppressions=0"
      "UBSAN_OPTIONS=print_stacktrace=1"
      "TSAN_OPTIONS=suppressions=${CMAKE_CURRENT_LIST_DIR}/tsan.supp")
endif()
