// SPDX-License-Identifier: MIT
// A folder that is there for one test.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "zmlx/base/error.h"

namespace zmlx {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name =
        (std::filesystem::temp_directory_path() / "zmlx_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      bad_file(name, "cannot be made.");
    }
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string path() const {
    return path_.string();
  }
  std::string file(const std::string& name) const {
    return (path_ / name).string();
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  bool empty() const {
    return names().empty();
  }

 private:
  std::filesystem::path path_;
};

} // namespace zmlx
