// SPDX-License-Identifier: MIT
// Normalisation layers.
#pragma once

#include <utility>

#include "zmlx/model/layers/parameter.h"
#include "zmlx/model/module.h"

namespace zmlx {

/// mlx.nn.RMSNorm over the last axis: x / sqrt(mean(x^2) + eps) * weight.
class RMSNorm : public Layer {
 public:
  RMSNorm(Parameter weight, float eps) : weight(std::move(weight)), eps(eps) {}
  std::string_view kind() const override {
    return "RMSNorm";
  }
  mx::array forward(const mx::array& x) const override {
    return mx::fast::rms_norm(x, weight.value(), eps);
  }
  void release() override {
    weight.release();
  }

  Parameter weight; // (dim)
  float eps;
};

} // namespace zmlx
