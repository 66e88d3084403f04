// SPDX-License-Identifier: MIT
// One part of a tokenizer.json while it is read: its values, and its name.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "zmlx/base/json.h"
#include "zmlx/model/tokenizer/regex.h"

namespace zmlx {

/// A JSON value with the place that errors name: "pre_tokenizer.Split". Every
/// reader throws FileError("path: place ...") when the value is not there or
/// of another type.
class Part {
 public:
  /// json must outlive the part.
  Part(const Json& json, std::string path, std::string place);

  /// Throws FileError("path: place what").
  [[noreturn]] void fail(std::string_view what) const;

  /// The member `type`; also appends it to the place.
  std::string type();

  bool has(std::string_view key) const; // present and not null
  Part at(std::string_view key) const;
  std::vector<Part> items(std::string_view key) const;

  std::string text() const;
  std::string text(std::string_view key) const;
  std::string text(std::string_view key, std::string_view otherwise) const;
  bool flag(std::string_view key) const;
  bool flag(std::string_view key, bool otherwise) const;
  /// An integer of 0 to limit - 1.
  int64_t number(std::string_view key, int64_t limit) const;

  const Json& json() const {
    return *json_;
  }

 private:
  const Json* json_;
  std::string path_, place_;
};

/// {"String": s} or {"Regex": r}: cuts a text at what it matches.
class Pattern {
 public:
  explicit Pattern(const Part& part);
  std::vector<Stretch> cut(std::string_view text) const;

 private:
  std::string literal_;
  std::shared_ptr<const Regex> regex_; // null: the literal
};

/// Steps of one kind of a tokenizer (normalisers, pre-tokenizers, decoders):
/// the part itself, or the members of nested Sequences in `list_key`. Every
/// part comes with its `type` read.
struct TypedPart {
  std::string type;
  Part part;
};
std::vector<TypedPart> flatten(const Part& part, std::string_view list_key);

} // namespace zmlx
