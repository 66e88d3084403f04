// SPDX-License-Identifier: MIT
// Members of a JSON object read with their types checked, for files that people
// and other programs write.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "zmlx/base/error.h"
#include "zmlx/base/json.h"

namespace zmlx::measure {

/// A view of one object of a file. Every getter throws FileError such as
/// "c.json: 'qwen.patched.peak_mem_gb' must be a number, got null."; the `_or`
/// forms only for a member of the wrong type. The JSON must outlive it.
class Fields {
 public:
  /// path: the object's place in the file, "" for the whole. Throws FileError
  /// unless json is an object.
  Fields(const Json& json, const std::string& origin, const std::string& path);

  const Json& json() const {
    return json_;
  }
  bool has(const std::string& key) const {
    return json_.contains(key);
  }
  Fields object(const std::string& key) const;
  const Json& array(const std::string& key) const;
  std::string text(const std::string& key) const;
  std::string text_or(const std::string& key, const std::string& other) const;
  /// A finite number.
  double number(const std::string& key) const;
  double number_or(const std::string& key, double other) const;
  /// A whole number in 0..2^31 - 1.
  int64_t count(const std::string& key) const;
  int64_t count_or(const std::string& key, int64_t other) const;
  std::vector<double> numbers(const std::string& key) const;
  std::vector<std::string> texts(const std::string& key) const;

  [[noreturn]] void fail(
      const std::string& key,
      const std::string& must,
      const std::string& got) const;

 private:
  const Json& member(const std::string& key, const char* must) const;
  std::string place(const std::string& key) const;

  const Json& json_;
  std::string origin_, path_;
};

} // namespace zmlx::measure
