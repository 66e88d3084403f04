// SPDX-License-Identifier: MIT
#include "zmlx/runtime/subprocess.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

extern char** environ;

namespace zmlx {
namespace {

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (auto& text : texts) {
    result.push_back(text.data());
  }
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> c_locale_environment() {
  std::vector<std::string> result;
  for (char** variable = environ; *variable; ++variable) {
    const std::string_view text = *variable;
    if (!text.starts_with("LC_") && !text.starts_with("LANG")) {
      result.emplace_back(text);
    }
  }
  result.emplace_back("LC_ALL=C");
  return result;
}

std::string read_all(int file) {
  std::string result;
  char buffer[4096];
  for (;;) {
    const ssize_t count = read(file, buffer, sizeof buffer);
    if (count > 0) {
      result.append(buffer, static_cast<size_t>(count));
    } else if (count == 0 || errno != EINTR) {
      return result;
    }
  }
}

} // namespace

ProgramResult run_program(const std::vector<std::string>& command) {
  ProgramResult result;
  int ends[2];
  if (pipe(ends) != 0) {
    return result;
  }
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
  auto arguments = command;
  auto environment = c_locale_environment();
  pid_t child = 0;
  const int failed = posix_spawnp(
      &child,
      arguments[0].c_str(),
      &actions,
      nullptr,
      pointers(arguments).data(),
      pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (!failed) {
    result.output = read_all(ends[0]);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    result.started = true;
    result.status =
        WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  close(ends[0]);
  return result;
}

} // namespace zmlx
