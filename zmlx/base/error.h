// SPDX-License-Identifier: MIT
// Error types and the one helper that builds their messages.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace zmlx {

/// A checkpoint, tokenizer or capsule file that cannot be used as it is.
struct FileError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A backend (thread team, compiler, device) that cannot do what was asked.
struct BackendError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A kernel's text that a compiler refused.
struct CompileError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Joins its arguments as an ostream would print them.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}

/// Throws std::invalid_argument("[op] ..."): the caller passed what must not
/// be passed. State what must hold, then what came: "k must be 1..32, got 0."
template <class... Parts>
[[noreturn]] void invalid(std::string_view op, const Parts&... parts) {
  throw std::invalid_argument(concat('[', op, "] ", parts...));
}

/// Throws FileError("path: ...").
template <class... Parts>
[[noreturn]] void bad_file(std::string_view path, const Parts&... parts) {
  throw FileError(concat(path, ": ", parts...));
}

} // namespace zmlx
