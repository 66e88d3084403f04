// SPDX-License-Identifier: MIT
#include "zmlx/kernels/conv/short_conv.h"

#include <cstring>

#include "zmlx/base/error.h"
#include "zmlx/kernels/common/rows.h"
#include "zmlx/runtime/cpu_op.h"

namespace zmlx::conv {
namespace {

/// One sequence: window holds (taps - 1 + length, dim) products, of which the
/// first taps - 1 are given.
void convolve(
    const RowReader& projected,
    int64_t first_row,
    int64_t length,
    const mx::array& weight,
    const float* bias,
    std::vector<float>& window,
    float* y) {
  const int64_t dim = projected.width() / 3, taps = weight.shape(1);
  const float* w = weight.data<float>(); // (dim, taps)
  std::vector<float> scratch;
  for (int64_t t = 0; t < length; ++t) {
    const float* row = projected.row(first_row + t, scratch);
    float* newest = window.data() + (t + taps - 1) * dim;
    for (int64_t i = 0; i < dim; ++i) {
      newest[i] = row[i] * row[2 * dim + i];
    }
    const float* oldest = window.data() + t * dim;
    float* out = y + t * dim;
    for (int64_t i = 0; i < dim; ++i) {
      float sum = 0;
      for (int64_t k = 0; k < taps; ++k) {
        sum += oldest[k * dim + i] * w[i * taps + k];
      }
      out[i] = row[dim + i] * (bias ? sum + bias[i] : sum);
    }
  }
}

} // namespace

std::pair<mx::array, mx::array> gated_short_conv(
    const mx::array& projected,
    const mx::array& before,
    const mx::array& weight,
    const std::optional<mx::array>& bias) {
  const int batch = projected.shape(0), length = projected.shape(1);
  const int dim = projected.shape(2) / 3, keep = weight.shape(1) - 1;
  const mx::Shape state = {batch, keep, dim};
  if (before.shape() != state || weight.shape(0) != dim ||
      projected.dtype() != mx::float32 || before.dtype() != mx::float32) {
    invalid(
        "short_conv",
        "for an input ",
        projected.shape(),
        " and a weight ",
        weight.shape(),
        ", what came before must be float32 ",
        state,
        ", got ",
        before.dtype(),
        ' ',
        before.shape(),
        '.');
  }
  std::vector<mx::array> inputs = {
      projected, before, mx::contiguous(mx::astype(weight, mx::float32))};
  if (bias) {
    inputs.push_back(mx::contiguous(mx::astype(*bias, mx::float32)));
  }
  auto outputs = cpu_op(
      "ShortConvCpu",
      std::move(inputs),
      {{{batch, length, dim}, mx::float32}, {state, mx::float32}},
      [](const auto& in, auto& out) {
        const RowReader rows(in[0]), before(in[1]);
        const int64_t batch = out[1].shape(0), keep = out[1].shape(1);
        const int64_t dim = out[1].shape(2), length = in[0].shape(1);
        std::vector<float> window(static_cast<size_t>((keep + length) * dim));
        for (int64_t b = 0; b < batch; ++b) {
          for (int64_t k = 0; k < keep; ++k) {
            before.copy(b * keep + k, window.data() + k * dim);
          }
          convolve(
              rows,
              b * length,
              length,
              in[2],
              in.size() > 3 ? in[3].template data<float>() : nullptr,
              window,
              out[0].template data<float>() + b * length * dim);
          std::memcpy(
              out[1].template data<float>() + b * keep * dim,
              window.data() + length * dim,
              sizeof(float) * static_cast<size_t>(keep * dim));
        }
      });
  return {outputs[0], outputs[1]};
}

} // namespace zmlx::conv
