// SPDX-License-Identifier: MIT
// Feeds any bytes to the safetensors header reader: it must take them, or
// throw FileError, and what it takes must lie within the file.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "zmlx/base/error.h"
#include "zmlx/model/checkpoint/safetensors.h"

namespace {

void read(std::string_view file) {
  try {
    const auto header = zmlx::read_safetensors_header(file, "fuzz");
    for (const auto& tensor : header.tensors) {
      uint64_t bytes = tensor.dtype.size();
      for (const auto dim : tensor.shape) {
        bytes *= static_cast<uint64_t>(dim);
      }
      if (tensor.begin < header.data_begin || tensor.begin > tensor.end ||
          tensor.end > file.size() || tensor.end - tensor.begin != bytes) {
        std::abort();
      }
    }
  } catch (const zmlx::FileError&) {
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  read(input);
  // The input again as a header of the right length, which random bytes seldom
  // have; its first byte is the length of the data part.
  if (!input.empty()) {
    const uint64_t length = size - 1;
    std::string file(reinterpret_cast<const char*>(&length), sizeof length);
    file += input.substr(1);
    file.append(data[0], '\0');
    read(file);
  }
  return 0;
}
