// SPDX-License-Identifier: MIT
// Makes the decode program of a network.
#pragma once

#include <memory>
#include <string>

#include "zmlx/model/decode/program.h"
#include "zmlx/model/model.h"

namespace zmlx::decode {

/// A program, or why there is none for the network.
struct Lowered {
  std::shared_ptr<const Program> program;
  std::string reason; // "model.layers.3.conv: ..."
};

/// Reads the stock modules behind whatever patch() has put in place; weights
/// are shared, not copied. Activations are float32.
Lowered lower(const Network& network);

} // namespace zmlx::decode
