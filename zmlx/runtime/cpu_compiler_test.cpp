// SPDX-License-Identifier: MIT
// The cache of compiled kernels: kept, found again, mended, shared.
#include "zmlx/runtime/cpu_compiler.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "tests/checkpoint/temporary_folder.h"
#include "zmlx/base/error.h"
#include "zmlx/base/json.h"
#include "zmlx/runtime/compiler_message.h"
#include "zmlx/runtime/subprocess.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

const char* kText =
    "extern \"C\" __attribute__((visibility(\"default\"))) int answer() {"
    " return 42; }";

int call(void* function) {
  return reinterpret_cast<int (*)()>(function)();
}

// Runs in a process of its own, with a memory of compiled kernels of its own.
int exit_code_of(const std::function<int()>& action) {
  const pid_t child = fork();
  if (child == 0) {
    int code = 99;
    try {
      code = action();
    } catch (const std::exception&) {
    }
    _exit(code);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

class CpuCompiler : public ::testing::Test {
 protected:
  CpuCompiler() {
    setenv("ZMLX_CACHE_DIR", folder_.path().c_str(), 1);
    unsetenv("CXX");
  }
  ~CpuCompiler() override {
    unsetenv("ZMLX_CACHE_DIR");
  }
  std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(folder_.path())) {
      if (entry.is_regular_file()) {
        found.push_back(entry.path());
      }
    }
    return found;
  }
  int answer_in_another_process() const {
    return exit_code_of(
        [] { return call(compiled_function("k", kText, "answer")); });
  }
  TemporaryFolder folder_;
};

TEST_F(CpuCompiler, KeepsOneFileForEachText) {
  EXPECT_EQ(answer_in_another_process(), 42);
  ASSERT_EQ(files().size(), 1u);
  const auto file = files()[0];
  const auto written = fs::last_write_time(file);
  EXPECT_EQ(answer_in_another_process(), 42);
  ASSERT_EQ(files().size(), 1u);
  EXPECT_EQ(fs::last_write_time(file), written);
}

TEST_F(CpuCompiler, MakesADamagedEntryAnew) {
  EXPECT_EQ(answer_in_another_process(), 42);
  const auto file = files()[0];
  const auto good = read_file(file);
  for (const std::string& damage :
       {good.substr(0, good.size() / 2),
        std::string(),
        "not a library" + good,
        good.substr(0, 4000) + "x" + good.substr(4001)}) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << damage;
    EXPECT_EQ(answer_in_another_process(), 42);
    ASSERT_EQ(files().size(), 1u);
    EXPECT_TRUE(read_file(files()[0]) == good);
  }
}

TEST_F(CpuCompiler, LetsProcessesCompileTheSameTextAtOnce) {
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      int code = 99;
      try {
        code = call(compiled_function("k", kText, "answer"));
      } catch (const std::exception&) {
      }
      _exit(code);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 42);
  }
  EXPECT_EQ(files().size(), 1u); // the same content has the same name
}

TEST_F(CpuCompiler, GoesOnWhereTheCacheCannotBeWritten) {
  setenv("ZMLX_CACHE_DIR", "/proc/zmlx", 1);
  EXPECT_EQ(answer_in_another_process(), 42);
}

TEST_F(CpuCompiler, SaysThatThereIsNoCompiler) {
  setenv("CXX", "/nowhere/c++", 1);
  EXPECT_EQ(
      exit_code_of([] {
        try {
          compiled_function("kernel k", kText, "answer");
        } catch (const BackendError& error) {
          return std::string(error.what()) ==
                  "[kernel k] a raw kernel on the CPU needs a C++ compiler, "
                  "and none of /nowhere/c++ runs. Try: apt-get install g++, "
                  "or set CXX."
              ? 7
              : 8;
        }
        return 9;
      }),
      7);
}

TEST_F(CpuCompiler, RefusesFramesLargerThanAFibersStack) {
  const char* text =
      "#line 3 \"body\"\n"
      "extern \"C\" int use(volatile char*);\n"
      "extern \"C\" int big() { volatile char x[60000]; return use(x); }";
  try {
    compiled_function("kernel big", text, "big");
    FAIL();
  } catch (const CompileError& error) {
    EXPECT_NE(std::string(error.what()).find("at body:4: "), std::string::npos)
        << error.what();
  }
}

TEST(CompilerMessage, FindsTheAuthorsLine) {
  EXPECT_EQ(
      first_error("body:7:3: error: 'a' was not declared\n  |  ^\n"),
      " at body:7: 'a' was not declared.");
  EXPECT_EQ(
      first_error("header:1000004:1: error: expected ';'\n"),
      " at header:4: expected ';'.");
  EXPECT_EQ(
      first_error(
          "k.cpp: In instantiation of 'x':\n"
          "body:12:5:   required from here\n"
          "k.cpp:90:1: error: static assertion failed\n"),
      " at body:12: static assertion failed.");
  EXPECT_EQ(
      first_error("k.cpp:90:1: error: no\nbody:2:1: note: in instantiation\n"),
      " at body:2: no.");
  EXPECT_EQ(first_error("killed\n"), ": killed.");
  EXPECT_EQ(first_error(""), ": it printed nothing.");
}

TEST(Subprocess, ReportsStatusAndOutput) {
  const auto good = run_program({"sh", "-c", "echo $LC_ALL; exit 3"});
  EXPECT_TRUE(good.started);
  EXPECT_EQ(good.status, 3);
  EXPECT_EQ(good.output, "C\n");
  EXPECT_FALSE(run_program({"/nowhere/program"}).started);
}

} // namespace
} // namespace zmlx
