// SPDX-License-Identifier: MIT
#include "zmlx/base/json.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <unordered_set>
#include <utility>
#include <vector>

#include <unistd.h>

#include "zmlx/base/error.h"

namespace zmlx {
namespace {

constexpr size_t kMaxDepth = 64;

std::string position(std::string_view text, size_t offset) {
  const auto head = text.substr(0, std::min(offset, text.size()));
  const auto line = std::count(head.begin(), head.end(), '\n') + 1;
  const size_t newline = head.rfind('\n');
  const size_t column = newline == std::string_view::npos
      ? head.size()
      : head.size() - newline - 1;
  return concat("line ", line, ", column ", column);
}

// Builds the value while it checks what nlohmann's own builder takes silently:
// repeated keys and deep nesting. It appends members without the linear search
// that ordered_map's operator[] makes for each (150,000 keys took 19 s).
class LimitedBuilder : public nlohmann::json_sax<Json> {
 public:
  LimitedBuilder(std::string_view text, const std::string& origin)
      : text_(text), origin_(origin) {}
  Json take() {
    return std::move(root_);
  }
  bool null() override {
    return place(nullptr);
  }
  bool boolean(bool value) override {
    return place(value);
  }
  bool number_integer(number_integer_t value) override {
    return place(value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    return place(value);
  }
  bool number_float(number_float_t value, const string_t&) override {
    return place(value);
  }
  bool string(string_t& value) override {
    return place(std::move(value));
  }
  bool binary(binary_t&) override {
    return false; // JSON text holds none
  }
  bool start_object(size_t) override {
    return enter(Json::object());
  }
  bool end_object() override {
    return leave();
  }
  bool start_array(size_t) override {
    return enter(Json::array());
  }
  bool end_array() override {
    return leave();
  }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) {
      bad_file(origin_, "JSON key '", name, "' stands twice in one object.");
    }
    key_ = std::move(name);
    return true;
  }
  bool parse_error(
      size_t offset,
      const std::string&,
      const nlohmann::detail::exception& error) override {
    std::string what = error.what();
    const size_t colon = what.find("syntax error");
    bad_file(
        origin_,
        "not valid JSON at ",
        position(text_, offset),
        ": ",
        colon == std::string::npos ? what : what.substr(colon));
  }

 private:
  Json* append(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      return &open_.back()->get_ref<Json::array_t&>().emplace_back(
          std::move(value));
    }
    auto& members = open_.back()->get_ref<Json::object_t&>();
    return &members.emplace_back(std::move(key_), std::move(value)).second;
  }
  bool place(Json value) {
    append(std::move(value));
    return true;
  }
  bool enter(Json value) {
    open_.push_back(append(std::move(value)));
    keys_.emplace_back();
    if (keys_.size() > kMaxDepth) {
      bad_file(origin_, "JSON nests deeper than ", kMaxDepth, " levels.");
    }
    return true;
  }
  bool leave() {
    open_.pop_back();
    keys_.pop_back();
    return true;
  }

  std::string_view text_;
  const std::string& origin_;
  Json root_;
  string_t key_;
  // An open value is the last member of its parent, so it stays where it is.
  std::vector<Json*> open_;
  std::vector<std::unordered_set<std::string>> keys_;
};

} // namespace

Json parse_json(std::string_view text, const std::string& origin) {
  LimitedBuilder builder(text, origin);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

std::string read_file(const std::string& path, size_t max_bytes) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) {
    bad_file(path, "cannot be opened: ", std::strerror(errno), ".");
  }
  const auto size = static_cast<size_t>(in.tellg());
  if (size > max_bytes) {
    bad_file(path, "must have at most ", max_bytes, " bytes, got ", size, ".");
  }
  std::string text(size, '\0');
  in.seekg(0);
  if (!in.read(text.data(), static_cast<std::streamsize>(size))) {
    bad_file(path, "cannot be read.");
  }
  return text;
}

Json read_json(const std::string& path, size_t max_bytes) {
  return parse_json(read_file(path, max_bytes), path);
}

void write_file(const std::string& path, std::string_view text) {
  const std::string temporary = concat(path, ".tmp", ::getpid());
  {
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    out.flush();
    if (!out) {
      const int error = errno;
      std::remove(temporary.c_str());
      bad_file(path, "cannot be written: ", std::strerror(error), ".");
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    std::remove(temporary.c_str());
    bad_file(path, "cannot be written: ", std::strerror(error), ".");
  }
}

} // namespace zmlx
