// SPDX-License-Identifier: MIT
// XXH3-128 as text, for naming models and files; not for security.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace zmlx {

/// Hashes bytes as they come.
class Hash {
 public:
  Hash();
  Hash(const Hash&) = delete;
  Hash& operator=(const Hash&) = delete;
  ~Hash();
  void add(std::string_view bytes);
  /// 32 hex digits of all that was added.
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

} // namespace zmlx
