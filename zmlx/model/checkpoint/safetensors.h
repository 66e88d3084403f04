// SPDX-License-Identifier: MIT
// The safetensors format: its header, read with every claim checked, and a
// writer. Format: https://github.com/huggingface/safetensors
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

/// One tensor of a file. Dtypes that MLX lacks (F8_E4M3, F8_E5M2, F8_E8M0) are
/// given as uint8.
struct TensorInfo {
  std::string name;
  mx::Dtype dtype = mx::float32;
  mx::Shape shape; // at most 8 dimensions
  uint64_t begin = 0, end = 0; // bytes, from the start of the file
};

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors; // in the order of their bytes
  std::map<std::string, std::string> metadata;
  uint64_t data_begin = 0; // where the header ends
};

/// The most that a header may be long, in bytes (the format's own limit), and
/// the most tensors that it may hold.
inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;
inline constexpr size_t kMaxTensors = 1'000'000;

/// Reads the header at the front of a file's bytes, all of which are given;
/// origin names the file in errors. Nothing is allocated for what the header
/// only claims. Throws FileError unless the header lies within the file, is
/// JSON of the format's form, names known dtypes, gives each tensor exactly the
/// bytes that its shape needs, and the tensors fill the data part without
/// overlap or hole.
SafetensorsHeader read_safetensors_header(
    std::string_view file,
    const std::string& origin);

/// Writes tensors one by one to a temporary file that is then renamed to path.
/// Arrays are evaluated as they are written. The data part starts at a multiple
/// of 64 bytes and each tensor at a multiple of its item size. Throws
/// std::invalid_argument for a repeated name, a name that is not UTF-8 or
/// complex numbers, FileError when the file cannot be written.
void save_safetensors(
    const std::string& path,
    const std::vector<std::pair<std::string, mx::array>>& tensors,
    const std::map<std::string, std::string>& metadata = {});

/// A name out of a file as it can be shown: in quotes, at most 80 bytes, and
/// control characters replaced by '?'.
std::string shown_name(std::string_view name);

} // namespace zmlx
