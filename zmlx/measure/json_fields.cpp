// SPDX-License-Identifier: MIT
#include "zmlx/measure/json_fields.h"

#include <limits>

namespace zmlx::measure {
namespace {

// Short values as they stand, long ones by their type.
std::string shown(const Json& json) {
  std::string text = json.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= 40 ? text : std::string("a JSON ") + json.type_name();
}

} // namespace

Fields::Fields(
    const Json& json,
    const std::string& origin,
    const std::string& path)
    : json_(json), origin_(origin), path_(path) {
  if (!json.is_object()) {
    if (path.empty()) {
      bad_file(origin, "must hold a JSON object, got ", shown(json), '.');
    }
    bad_file(origin, '\'', path, "' must be an object, got ", shown(json), '.');
  }
}

std::string Fields::place(const std::string& key) const {
  return path_.empty() ? key : path_ + '.' + key;
}

void Fields::fail(
    const std::string& key,
    const std::string& must,
    const std::string& got) const {
  bad_file(origin_, '\'', place(key), "' must ", must, ", got ", got, '.');
}

const Json& Fields::member(const std::string& key, const char* must) const {
  const auto found = json_.find(key);
  if (found == json_.end()) {
    fail(key, must, "nothing");
  }
  return *found;
}

Fields Fields::object(const std::string& key) const {
  return {member(key, "be an object"), origin_, place(key)};
}

const Json& Fields::array(const std::string& key) const {
  const Json& value = member(key, "be an array");
  if (!value.is_array()) {
    fail(key, "be an array", shown(value));
  }
  return value;
}

std::string Fields::text(const std::string& key) const {
  const Json& value = member(key, "be a string");
  if (!value.is_string()) {
    fail(key, "be a string", shown(value));
  }
  return value.get<std::string>();
}

std::string Fields::text_or(const std::string& key, const std::string& other)
    const {
  return has(key) ? text(key) : other;
}

double Fields::number(const std::string& key) const {
  const Json& value = member(key, "be a number");
  if (!value.is_number()) {
    fail(key, "be a number", shown(value));
  }
  return value.get<double>();
}

double Fields::number_or(const std::string& key, double other) const {
  return has(key) ? number(key) : other;
}

int64_t Fields::count(const std::string& key) const {
  const Json& value = member(key, "be a whole number");
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  const bool fits = value.is_number_unsigned()
      ? value.get<uint64_t>() <= uint64_t{kMost}
      : value.is_number_integer() && value.get<int64_t>() >= 0 &&
          value.get<int64_t>() <= kMost;
  if (!fits) {
    fail(key, concat("be a whole number in 0..", kMost), shown(value));
  }
  return value.get<int64_t>();
}

int64_t Fields::count_or(const std::string& key, int64_t other) const {
  return has(key) ? count(key) : other;
}

std::vector<double> Fields::numbers(const std::string& key) const {
  std::vector<double> numbers;
  for (const Json& value : array(key)) {
    if (!value.is_number()) {
      fail(key, "hold numbers only", shown(value));
    }
    numbers.push_back(value.get<double>());
  }
  return numbers;
}

std::vector<std::string> Fields::texts(const std::string& key) const {
  std::vector<std::string> texts;
  for (const Json& value : array(key)) {
    if (!value.is_string()) {
      fail(key, "hold strings only", shown(value));
    }
    texts.push_back(value.get<std::string>());
  }
  return texts;
}

} // namespace zmlx::measure
