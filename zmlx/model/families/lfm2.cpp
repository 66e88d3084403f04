// SPDX-License-Identifier: MIT
// Follows mlx_lm 0.32.2, models/lfm2.py, operation by operation.
#include "zmlx/model/families/lfm2.h"

#include "zmlx/base/error.h"
#include "zmlx/model/families/lfm2_layers.h"

namespace zmlx {
namespace {

// The width of a gated layer that has the weights of a plain one of `width`:
// two thirds of it, by a factor, up to a multiple.
int64_t adjusted(const Config& config, int64_t width) {
  constexpr double kMostFactor = 1024;
  width = 2 * width / 3;
  if (const Json* factor = config.find("block_ffn_dim_multiplier")) {
    if (!factor->is_number() || *factor < 0 || *factor > kMostFactor) {
      bad_file(
          config.path(),
          "'block_ffn_dim_multiplier' must be a number from 0 to ",
          kMostFactor,
          ", got ",
          factor->dump(),
          ".");
    }
    width = static_cast<int64_t>(
        factor->get<double>() * static_cast<double>(width));
  }
  const int64_t unit =
      config.integer("block_multiple_of", 1, kMostFeatures, 256);
  return (width + unit - 1) / unit * unit;
}

int feed_forward_width(const Config& config) {
  const char* key =
      config.find("block_ff_dim") ? "block_ff_dim" : "intermediate_size";
  int64_t width = config.integer(key, 1, kMostFeatures);
  if (config.flag("block_auto_adjust_ff_dim", true)) {
    width = adjusted(config, width);
  }
  if (width < 1 || width > kMostFeatures) {
    bad_file(
        config.path(),
        "the feed-forward's adjusted width must be from 1 to ",
        kMostFeatures,
        ", got ",
        width,
        ".");
  }
  return static_cast<int>(width);
}

} // namespace

std::unique_ptr<Network>
build_lfm2(const Config& config, Weights& weights, ModelInfo& info) {
  const Lfm2Shape model = read_lfm2_shape(config);
  const int block_dim =
      config.integer("block_dim", 1, kMostFeatures, model.dim);
  if (block_dim != model.dim) {
    bad_file(
        config.path(),
        "'block_dim' must be 'hidden_size', ",
        model.dim,
        ", got ",
        block_dim,
        ".");
  }
  const int inner = feed_forward_width(config);
  return make_lfm2(
      "Lfm2Model",
      model,
      weights,
      [&](int, const std::string& path) {
        return make_lfm2_mlp(
            model, weights, inner, {path + "w1", path + "w3", path + "w2"});
      },
      info);
}

} // namespace zmlx
