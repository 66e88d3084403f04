// SPDX-License-Identifier: MIT
// Where the weights of a block or a layer stand among an operation's inputs.
#pragma once

#include <optional>
#include <vector>

#include "zmlx/kernels/moe/experts.h"
#include "zmlx/kernels/moe/moe_mlp.h"
#include "zmlx/kernels/moe/product.h"

namespace zmlx::moe {

using Arrays = std::vector<mx::array>;

/// The arrays of a projection.
class Place {
 public:
  /// Appends them.
  Place(const Projection& projection, Arrays& inputs);

  cpu::ExpertMatrix view(const Arrays& in) const;
  void add_differentiable(std::vector<int>& places) const;
  /// As product() of its arrays, and the bias.
  mx::array composed(
      const mx::array& x,
      const Arrays& in,
      const std::optional<ChosenMatrices>& chosen) const;

 private:
  quant::QuantizedArrays quantized(const Arrays& in) const;

  int first_ = 0, bias_ = -1;
  int bits_ = 0, group_size_ = 0; // none: not quantised
  cpu::Scheme scheme_ = cpu::Scheme::Affine;
  /// In blocks; then they are no inputs, for their rows may not be there, nor
  /// are they read.
  std::optional<quant::QuantizedArrays> held_;
};

/// Those of experts, or of a layer.
struct ExpertPlaces {
  std::optional<Place> gate;
  Place up, down;
  Activation activation;

  /// Appends them.
  ExpertPlaces(const ExpertArrays& experts, Arrays& inputs);

  cpu::Experts view(const Arrays& in) const;
  void add_differentiable(std::vector<int>& places) const;
  /// down(activation(gate x, up x)) of MLX operations.
  mx::array composed(
      const mx::array& x,
      const Arrays& in,
      const std::optional<ChosenMatrices>& chosen) const;
};

} // namespace zmlx::moe
