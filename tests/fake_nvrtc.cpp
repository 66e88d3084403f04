// SPDX-License-Identifier: MIT
// A library under NVRTC's name that "compiles" without CUDA: into the text
// itself, unless that says no_such_name; with "meet" in it, once a second text
// is under way too, or after two seconds; with "slow" in it, in 0.3 s.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>

namespace {

struct Program {
  std::string source, name;
};

std::mutex mutex;
std::condition_variable changed;
int calls = 0, running = 0, most_at_once = 0;

} // namespace

extern "C" {

/// Calls of nvrtcCompileProgram so far.
int fake_nvrtc_calls() {
  const std::lock_guard lock(mutex);
  return calls;
}

/// The most of them that ran at once.
int fake_nvrtc_most_at_once() {
  const std::lock_guard lock(mutex);
  return most_at_once;
}

int nvrtcCreateProgram(
    void** program,
    const char* source,
    const char*,
    int,
    const char* const*,
    const char* const*) {
  *program = new Program{source, ""};
  return 0;
}

int nvrtcAddNameExpression(void* program, const char* name) {
  static_cast<Program*>(program)->name = name;
  return 0;
}

int nvrtcCompileProgram(void* program, int, const char* const*) {
  const auto& source = static_cast<Program*>(program)->source;
  std::unique_lock lock(mutex);
  ++calls;
  most_at_once = std::max(most_at_once, ++running);
  changed.notify_all();
  if (source.find("meet") != std::string::npos) {
    changed.wait_for(
        lock, std::chrono::seconds(2), [] { return most_at_once > 1; });
  }
  if (source.find("slow") != std::string::npos) {
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    lock.lock();
  }
  --running;
  return source.find("no_such_name") == std::string::npos ? 0 : 1;
}

int nvrtcGetLoweredName(void* program, const char*, const char** name) {
  *name = static_cast<Program*>(program)->name.c_str();
  return 0;
}

int nvrtcGetCUBINSize(void* program, size_t* size) {
  *size = static_cast<Program*>(program)->source.size();
  return 0;
}

int nvrtcGetCUBIN(void* program, char* binary) {
  const auto& source = static_cast<Program*>(program)->source;
  std::memcpy(binary, source.data(), source.size());
  return 0;
}

int nvrtcDestroyProgram(void** program) {
  delete static_cast<Program*>(*program);
  return 0;
}

} // extern "C"
