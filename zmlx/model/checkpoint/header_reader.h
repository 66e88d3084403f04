// SPDX-License-Identifier: MIT
// What safetensors.cpp and its JSON events share; part of no interface.
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include <nlohmann/json.hpp>

#include "zmlx/model/checkpoint/safetensors.h"
#include "zmlx/model/checkpoint/safetensors_dtypes.h"

namespace zmlx {

/// Reads the header's JSON event by event: the form is so narrow that no value
/// tree is needed, and depth and repeated keys are checked on the way. Every
/// handler throws FileError on what the form does not allow.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(
      uint64_t data_begin,
      uint64_t data_bytes,
      const std::string& origin)
      : data_bytes_(data_bytes), origin_(origin) {
    header_.data_begin = data_begin;
  }
  SafetensorsHeader take() {
    return std::move(header_);
  }

  bool null() override;
  bool boolean(bool value) override;
  bool binary(binary_t&) override;
  bool number_integer(number_integer_t value) override;
  bool number_float(number_float_t, const string_t& text) override;
  bool number_unsigned(number_unsigned_t value) override;
  bool string(string_t& value) override;
  bool start_object(size_t) override;
  bool end_object() override;
  bool start_array(size_t) override;
  bool end_array() override;
  bool key(string_t& name) override;
  bool parse_error(
      size_t offset,
      const std::string& token,
      const nlohmann::detail::exception& error) override;

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };
  enum class Field { kNone, kDtype, kShape, kOffsets };

  std::string tensor_label() const;
  [[noreturn]] void unexpected(const std::string& what) const;
  void start_tensor(const std::string& name);
  void finish_tensor();

  SafetensorsHeader header_;
  uint64_t data_bytes_;
  const std::string& origin_;
  Place place_ = Place::kStart;
  Field field_ = Field::kNone;
  std::string metadata_key_;
  std::unordered_set<std::string> names_;
  // The tensor being read.
  TensorInfo tensor_;
  const SafetensorsDtype* dtype_ = nullptr;
  bool has_shape_ = false, has_offsets_ = false;
  std::vector<uint64_t> offsets_;
};

} // namespace zmlx
