// SPDX-License-Identifier: MIT
// Writes one safetensors file as its bytes are made, never holding it whole.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "zmlx/model/checkpoint/safetensors.h"

namespace zmlx {

/// A tensor to be written.
struct TensorSpec {
  std::string name;
  mx::Dtype dtype = mx::float32;
  mx::Shape shape;
};

/// The whole front of a file, header length included, and where each tensor's
/// bytes go. Tensors keep their order if each then starts at a multiple of its
/// item size, else larger items come first. Throws std::invalid_argument as
/// save_safetensors does.
struct SafetensorsPlan {
  std::string front; // a multiple of 64 bytes
  std::vector<TensorInfo> tensors; // in the order of their bytes
  uint64_t file_bytes = 0;
};
SafetensorsPlan plan_safetensors(
    const std::vector<TensorSpec>& tensors,
    const std::map<std::string, std::string>& metadata);

/// Writes to a temporary file beside path; finish() gives it its name, and
/// without it the destructor removes it. Throws FileError when writing fails.
class SafetensorsWriter {
 public:
  SafetensorsWriter(std::string path, SafetensorsPlan plan);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// The tensors in the order in which their bytes must be appended.
  const std::vector<TensorInfo>& tensors() const {
    return plan_.tensors;
  }
  /// Appends the next bytes of the data part; a tensor may come in pieces.
  void append(const void* data, size_t bytes);
  /// Throws std::logic_error unless every byte has been appended.
  void finish();

 private:
  void write(const char* data, size_t bytes);

  std::string path_, temporary_;
  SafetensorsPlan plan_;
  uint64_t written_ = 0;
  int fd_ = -1;
};

} // namespace zmlx
