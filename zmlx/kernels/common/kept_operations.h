// SPDX-License-Identifier: MIT
// Operations whose text holds numbers: each made once for each of them.
#pragma once

#include <map>
#include <mutex>
#include <utility>

namespace zmlx {

/// Operations by key. A number belongs into the text rather than among the
/// inputs where it must not change the type of narrow results.
template <class Key, class Operation>
class KeptOperations {
 public:
  /// The operation of key, from make() when it is asked for first.
  template <class Make>
  const Operation& get(const Key& key, Make&& make) {
    const std::lock_guard lock(mutex_);
    auto found = made_.find(key);
    if (found == made_.end()) {
      found = made_.emplace(key, std::forward<Make>(make)()).first;
    }
    return found->second;
  }

 private:
  std::mutex mutex_;
  std::map<Key, Operation> made_;
};

} // namespace zmlx
