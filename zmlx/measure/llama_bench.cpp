// SPDX-License-Identifier: MIT
#include "zmlx/measure/llama_bench.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "zmlx/base/error.h"
#include "zmlx/base/text.h"
#include "zmlx/measure/json_fields.h"

extern char** environ;

namespace zmlx::measure {
namespace {

constexpr size_t kMaxOutput = size_t{4} << 20;

[[noreturn]] void failed(const std::string& program, const std::string& why) {
  throw BackendError(concat("[bench] ", program, " ", why, '.'));
}

std::string read_to_end(int descriptor) {
  std::string text;
  char chunk[4096];
  for (;;) {
    const ssize_t got = ::read(descriptor, chunk, sizeof chunk);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return text;
    }
    if (text.size() < kMaxOutput) {
      text.append(chunk, static_cast<size_t>(got));
    }
  }
}

// Runs a program without a shell; returns its standard output. What it says on
// standard error is dropped.
std::string output_of(const std::vector<std::string>& words) {
  int ends[2];
  if (::pipe(ends) != 0) {
    failed(words[0], concat("cannot be run: ", std::strerror(errno)));
  }
  // Both ends close when another program is started meanwhile.
  ::fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  ::fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(
      &actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  std::vector<char*> arguments;
  for (const auto& word : words) {
    arguments.push_back(const_cast<char*>(word.c_str()));
  }
  arguments.push_back(nullptr);
  pid_t child = 0;
  const int error = ::posix_spawnp(
      &child, words[0].c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  std::string text = error == 0 ? read_to_end(ends[0]) : "";
  ::close(ends[0]);
  if (error != 0) {
    failed(words[0], concat("cannot be run: ", std::strerror(error)));
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    failed(words[0], concat("failed (", join(words, " "), ")"));
  }
  return text;
}

} // namespace

std::string BenchTest::name() const {
  std::string name =
      n_prompt > 0 ? concat("pp", n_prompt) : concat("tg", n_gen);
  name += n_depth > 0 ? concat(" @ d", n_depth) : "";
  return batch > 1 ? concat(name, " x ", batch) : name;
}

double LlamaBench::run(const BenchTest& test) const {
  const std::string text = output_of(
      {program,
       "-m",
       gguf,
       "-p",
       concat(test.n_prompt),
       "-n",
       concat(test.n_gen),
       "-d",
       concat(test.n_depth),
       "-t",
       concat(threads),
       "-r",
       "1",
       "-o",
       "json"});
  try {
    const Json rows = parse_json(text, program);
    if (!rows.is_array() || rows.size() != 1) {
      failed(program, "must print one JSON row for one test");
    }
    const double nanoseconds =
        Fields(rows[0], program, "").numbers("samples_ns").at(0);
    if (!(nanoseconds > 0)) {
      failed(program, concat("must take time, printed ", nanoseconds, " ns"));
    }
    return nanoseconds;
  } catch (const FileError& error) {
    failed(program, concat("printed what is not its JSON: ", error.what()));
  } catch (const std::out_of_range&) {
    failed(program, "printed no sample");
  }
}

std::string llama_bench_program(const std::string& given) {
  return given.empty() ? "llama-bench" : given;
}

} // namespace zmlx::measure
