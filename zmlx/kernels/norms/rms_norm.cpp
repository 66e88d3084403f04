// SPDX-License-Identifier: MIT
#include "zmlx/kernels/norms/rms_norm.h"

#include <functional>

#include "zmlx/kernels/common/norm_rows.h"
#include "zmlx/kernels/common/quantized_arrays.h"
#include "zmlx/kernels/common/rows.h"
#include "zmlx/kernels/common/vector_math.h"
#include "zmlx/runtime/cpu_op.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::norms {
namespace {

void normalize_rows(
    const RowReader& x,
    const float* weight,
    float eps,
    int64_t begin,
    int64_t end,
    mx::array& out) {
  const int64_t dim = x.width();
  std::vector<float> scratch, result(static_cast<size_t>(dim));
  for (int64_t r = begin; r < end; ++r) {
    const float* row = x.row(r, scratch);
    const float scale = cpu::rms_scale(row, dim, eps);
    float* to = out.dtype() == mx::float32 ? out.data<float>() + r * dim
                                           : result.data();
    cpu::scale_mul(row, scale, weight, to, dim);
    store_row(out, r, to, dim);
  }
}

std::vector<mx::array> rms_norm_on_cpu(
    const std::vector<mx::array>& given,
    float eps) {
  return cpu_op(
      "RmsNormCpu",
      given,
      {{given[0].shape(), given[0].dtype()}},
      [eps](const auto& in, auto& out) {
        const RowReader rows(in[0]);
        std::vector<float> scratch;
        const float* weight = RowReader(in[1]).row(0, scratch);
        // A team costs 0.5 us, about 4096 values.
        if (in[0].size() <= 8192) {
          normalize_rows(rows, weight, eps, 0, rows.rows(), out[0]);
          return;
        }
        const auto team = thread_team();
        team->run([&](int thread) {
          const auto part = share(rows.rows(), 1, thread, team->size());
          normalize_rows(rows, weight, eps, part.begin, part.end, out[0]);
        });
      });
}

} // namespace

mx::array rms_norm(const mx::array& x, const mx::array& weight, float eps) {
  const bool by_hand = mx::default_device() == mx::Device::cpu &&
      quant::is_float(x.dtype()) && quant::is_float(weight.dtype());
  const auto run = [eps](const std::vector<mx::array>& given) {
    return rms_norm_on_cpu(given, eps);
  };
  using Run = std::function<std::vector<mx::array>(
      const std::vector<mx::array>& given)>;
  return norm::normalise(
      "rms_norm",
      {.eps = eps},
      x,
      std::nullopt,
      weight,
      std::nullopt,
      by_hand ? Run(run) : Run())[0];
}

} // namespace zmlx::norms
