// SPDX-License-Identifier: MIT
// The demo model, as it is or written again with other weights.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "zmlx/model/checkpoint/checkpoint.h"
#include "zmlx/model/checkpoint/safetensors.h"
#include "zmlx/model/model.h"

namespace zmlx {

constexpr const char* kDemo = ZMLX_SOURCE_DIR "/models/demo";

/// Without its tokenizer.
inline std::unique_ptr<Model> demo(LoadOptions options = {}) {
  options.skip_tokenizer = true;
  return load(kDemo, options);
}

using Tensors = std::vector<std::pair<std::string, mx::array>>;

/// What takes the place of the packed weight at a path ("model.norm"), whose
/// values are given; none: it stays packed as it is.
using Repack = std::function<
    std::optional<Tensors>(const std::string& path, const mx::array& values)>;

/// Writes the demo model's weights to a file.
inline void write_demo(const std::string& file, const Repack& repack) {
  const auto demo = Checkpoint::open(kDemo);
  Tensors tensors;
  for (const auto& name : demo.names()) {
    const auto path = name.substr(0, name.rfind('.'));
    const auto part = [&](const char* what) {
      return demo.tensor(path + what);
    };
    std::optional<Tensors> others;
    if (const auto packing = demo.quantization_of(path)) {
      const auto values = mx::dequantize(
          part(".weight"),
          part(".scales"),
          part(".biases"),
          packing->group_size,
          packing->bits);
      others = repack(path, values);
    }
    if (!others) {
      tensors.emplace_back(name, demo.tensor(name));
    } else if (name.ends_with(".weight")) {
      tensors.insert(tensors.end(), others->begin(), others->end());
    }
  }
  save_safetensors(file, tensors);
}

} // namespace zmlx
