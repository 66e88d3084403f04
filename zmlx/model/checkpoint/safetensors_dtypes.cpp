// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/safetensors_dtypes.h"

namespace zmlx {
namespace {

namespace mx = mlx::core;

// The first name of a dtype is the one that is written.
const SafetensorsDtype kDtypes[] = {
    {"F64", mx::float64},
    {"F32", mx::float32},
    {"F16", mx::float16},
    {"BF16", mx::bfloat16},
    {"I64", mx::int64},
    {"I32", mx::int32},
    {"I16", mx::int16},
    {"I8", mx::int8},
    {"U64", mx::uint64},
    {"U32", mx::uint32},
    {"U16", mx::uint16},
    {"U8", mx::uint8},
    {"BOOL", mx::bool_},
    {"F8_E4M3", mx::uint8},
    {"F8_E5M2", mx::uint8},
    {"F8_E8M0", mx::uint8},
};

} // namespace

const SafetensorsDtype* find_safetensors_dtype(std::string_view name) {
  for (const auto& entry : kDtypes) {
    if (name == entry.name) {
      return &entry;
    }
  }
  return nullptr;
}

const char* safetensors_dtype_name(mx::Dtype dtype) {
  for (const auto& entry : kDtypes) {
    if (entry.dtype == dtype) {
      return entry.name;
    }
  }
  return nullptr;
}

std::string safetensors_dtype_names() {
  std::string names;
  for (const auto& entry : kDtypes) {
    names += (names.empty() ? "" : ", ") + std::string(entry.name);
  }
  return names;
}

} // namespace zmlx
