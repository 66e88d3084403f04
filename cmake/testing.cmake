# SPDX-License-Identifier: MIT
# How tests are declared. Each leaves its cases as JUnit XML in build/results,
# which tools/run_tests.py adds up.
find_package(GTest REQUIRED)
set(zmlx_results "${PROJECT_BINARY_DIR}/results")

# zmlx_test(NAME FILE...): one GoogleTest program and its CTest entry.
function(zmlx_test name)
  add_executable(${name} ${ARGN})
  target_link_libraries(
    ${name} PRIVATE zmlx zmlx_warnings fmt::fmt-header-only
                    nlohmann_json::nlohmann_json GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_property(
    TEST ${name}
    PROPERTY ENVIRONMENT "GTEST_OUTPUT=xml:${zmlx_results}/${name}.xml"
             ${zmlx_test_environment})
endfunction()

# zmlx_pytest(NAME FILE... [VARIABLE=VALUE...]): pytest on files of this folder.
# They are told the build folder and CMake through the environment, and what
# else is given here.
function(zmlx_pytest name)
  set(files ${ARGN})
  list(FILTER files EXCLUDE REGEX "^[A-Z_]+=")
  set(variables ${ARGN})
  list(FILTER variables INCLUDE REGEX "^[A-Z_]+=")
  add_test(
    NAME ${name}
    COMMAND "${ZMLX_PYTHON}" -m pytest -q -p no:cacheprovider
            "--junitxml=${zmlx_results}/${name}.xml" ${files}
    WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}")
  set_property(
    TEST ${name}
    PROPERTY ENVIRONMENT
             "ZMLX_BUILD_DIR=${PROJECT_BINARY_DIR}"
             "ZMLX_CMAKE=${CMAKE_COMMAND}"
             "PYTHONDONTWRITEBYTECODE=1"
             ${variables}
             ${zmlx_test_environment})
endfunction()
