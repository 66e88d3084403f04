// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/hub.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>

#include "zmlx/base/env.h"
#include "zmlx/base/error.h"
#include "zmlx/base/json.h"
#include "zmlx/base/text.h"
#include "zmlx/model/checkpoint/safetensors.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "models--";

// A variable that is set and not empty, with a leading "~" as the home folder.
std::optional<std::string> path_variable(const char* name) {
  auto path = env(name);
  const auto home = env("HOME");
  if (path && home && (*path == "~" || path->rfind("~/", 0) == 0)) {
    path->replace(0, 1, *home);
  }
  return path;
}

bool is_word(const std::string& text) {
  const auto plain = [](unsigned char letter) {
    return (letter >= '0' && letter <= '9') ||
        (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
        letter == '-' || letter == '_' || letter == '.';
  };
  // The hub's own rules; "--" would be read as a slash in the cache.
  return !text.empty() && text.size() <= 96 && text.front() != '.' &&
      text.front() != '-' && text.back() != '.' && text.back() != '-' &&
      text.find("..") == text.npos && text.find("--") == text.npos &&
      std::all_of(text.begin(), text.end(), plain);
}

bool is_model_id(const std::string& name) {
  const auto parts = split(name, '/');
  return (parts.size() == 1 || parts.size() == 2) &&
      std::all_of(parts.begin(), parts.end(), is_word);
}

bool holds_model(const fs::path& snapshot) {
  std::error_code error;
  return fs::exists(snapshot / "config.json", error);
}

std::optional<fs::path> main_snapshot(const fs::path& model) {
  std::error_code error;
  const fs::path ref = model / "refs" / "main";
  if (!fs::is_regular_file(ref, error)) {
    return std::nullopt;
  }
  std::string commit = read_file(ref.string(), 4096);
  commit.erase(commit.find_last_not_of(" \r\n\t") + 1);
  if (!is_word(commit)) {
    bad_file(ref.string(), "must hold a commit, got ", shown_name(commit), ".");
  }
  const fs::path snapshot = model / "snapshots" / commit;
  return holds_model(snapshot) ? std::optional(snapshot) : std::nullopt;
}

std::optional<fs::path> newest_snapshot(const fs::path& model) {
  std::optional<fs::path> newest;
  fs::file_time_type newest_time;
  std::error_code error;
  for (fs::directory_iterator entry(model / "snapshots", error), end;
       !error && entry != end;
       entry.increment(error)) {
    std::error_code unreadable;
    const auto time = fs::last_write_time(entry->path(), unreadable);
    if (!unreadable && holds_model(entry->path()) &&
        (!newest || time > newest_time)) {
      newest = entry->path();
      newest_time = time;
    }
  }
  return newest;
}

std::string folder_name(const std::string& id) {
  return kPrefix + join(split(id, '/'), "--");
}

} // namespace

std::string hub_id(const std::string& folder_name) {
  if (folder_name.rfind(kPrefix, 0) != 0) {
    return "";
  }
  std::string id = folder_name.substr(std::string_view(kPrefix).size());
  const size_t dashes = id.find("--");
  return dashes == id.npos
      ? id
      : concat(id.substr(0, dashes), '/', id.substr(dashes + 2));
}

std::string hub_cache_folder() {
  if (const auto cache = path_variable("HF_HUB_CACHE")) {
    return *cache;
  }
  if (const auto home = path_variable("HF_HOME")) {
    return (fs::path(*home) / "hub").string();
  }
  if (const auto cache = path_variable("XDG_CACHE_HOME")) {
    return (fs::path(*cache) / "huggingface" / "hub").string();
  }
  const fs::path home = path_variable("HOME").value_or("/");
  return (home / ".cache" / "huggingface" / "hub").string();
}

std::vector<std::string> cached_models() {
  std::vector<std::string> ids;
  std::error_code error;
  for (fs::directory_iterator entry(hub_cache_folder(), error), end;
       !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::string id = hub_id(name);
    if (!id.empty() && newest_snapshot(entry->path())) {
      ids.push_back(std::move(id));
    }
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::string resolve_model(const std::string& name_or_path) {
  std::error_code error;
  if (fs::is_directory(name_or_path, error)) {
    return name_or_path;
  }
  if (fs::exists(name_or_path, error)) {
    invalid(
        "model",
        "must be a folder or a Hugging Face id, got the file ",
        shown_name(name_or_path),
        ".");
  }
  if (!is_model_id(name_or_path)) {
    invalid(
        "model",
        "must be an existing folder or a Hugging Face id such as "
        "'org/name', got ",
        shown_name(name_or_path),
        ".");
  }
  const std::string cache = hub_cache_folder();
  const fs::path model = fs::path(cache) / folder_name(name_or_path);
  auto snapshot = main_snapshot(model);
  if (!snapshot) {
    snapshot = newest_snapshot(model);
  }
  if (!snapshot) {
    bad_file(
        name_or_path,
        "no such folder, and the Hugging Face cache ",
        cache,
        fs::exists(model, error) ? " holds no complete snapshot of it."
                                 : " does not hold it.",
        did_you_mean(name_or_path, cached_models()),
        " Try: hf download ",
        name_or_path);
  }
  return snapshot->string();
}

} // namespace zmlx
