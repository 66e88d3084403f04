// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/part.h"

#include "zmlx/base/error.h"

namespace zmlx {

Part::Part(const Json& json, std::string path, std::string place)
    : json_(&json), path_(std::move(path)), place_(std::move(place)) {}

void Part::fail(std::string_view what) const {
  bad_file(path_, place_, place_.empty() ? "" : " ", what);
}

std::string Part::type() {
  std::string name = text("type");
  place_ += concat(" '", name, "'");
  return name;
}

bool Part::has(std::string_view key) const {
  if (!json_->is_object()) {
    fail("must be an object.");
  }
  const auto found = json_->find(std::string(key));
  return found != json_->end() && !found->is_null();
}

Part Part::at(std::string_view key) const {
  if (!has(key)) {
    fail(concat("must have a member '", key, "'."));
  }
  return Part(
      json_->at(std::string(key)),
      path_,
      concat(place_, place_.empty() ? "" : ".", key));
}

std::vector<Part> Part::items(std::string_view key) const {
  const Part list = at(key);
  if (!list.json().is_array()) {
    list.fail("must be an array.");
  }
  std::vector<Part> out;
  for (const auto& item : list.json()) {
    out.emplace_back(item, path_, concat(list.place_, "[", out.size(), "]"));
  }
  return out;
}

std::string Part::text() const {
  if (!json_->is_string()) {
    fail(concat("must be a string, got ", json_->type_name(), "."));
  }
  return json_->get<std::string>();
}

std::string Part::text(std::string_view key) const {
  return at(key).text();
}

std::string Part::text(std::string_view key, std::string_view otherwise) const {
  return has(key) ? text(key) : std::string(otherwise);
}

bool Part::flag(std::string_view key) const {
  const Part value = at(key);
  if (!value.json().is_boolean()) {
    value.fail("must be true or false.");
  }
  return value.json().get<bool>();
}

bool Part::flag(std::string_view key, bool otherwise) const {
  return has(key) ? flag(key) : otherwise;
}

int64_t Part::number(std::string_view key, int64_t limit) const {
  const Part value = at(key);
  const Json& json = value.json();
  if (!json.is_number_unsigned() ||
      json.get<uint64_t>() >= static_cast<uint64_t>(limit)) {
    value.fail(concat(
        "must be an integer of 0 to ", limit - 1, ", got ", json.dump(), "."));
  }
  return json.get<int64_t>();
}

Pattern::Pattern(const Part& part) {
  if (part.has("String")) {
    literal_ = part.text("String");
    if (literal_.empty()) {
      part.fail("must not be an empty string.");
    }
    return;
  }
  if (!part.has("Regex")) {
    part.fail("must be {\"String\": ...} or {\"Regex\": ...}.");
  }
  try {
    regex_ = std::make_shared<Regex>(part.text("Regex"));
  } catch (const std::invalid_argument& error) {
    part.fail(concat("has a pattern that cannot be used: ", error.what(), "."));
  }
}

std::vector<Stretch> Pattern::cut(std::string_view text) const {
  return regex_ ? regex_->cut(text) : cut_at_literal(text, literal_);
}

std::vector<TypedPart> flatten(const Part& part, std::string_view list_key) {
  Part named = part;
  const std::string type = named.type();
  if (type != "Sequence") {
    return {{type, named}};
  }
  std::vector<TypedPart> out;
  for (const auto& item : part.items(list_key)) {
    for (auto& step : flatten(item, list_key)) {
      out.push_back(std::move(step));
    }
  }
  return out;
}

} // namespace zmlx
