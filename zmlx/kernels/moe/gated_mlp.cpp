// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/composed_transforms.h"
#include "zmlx/kernels/common/rows.h"
#include "zmlx/kernels/common/unit_product.h"
#include "zmlx/kernels/moe/checked.h"
#include "zmlx/kernels/moe/experts_kernel.h"
#include "zmlx/kernels/moe/places.h"
#include "zmlx/runtime/cpu_op.h"
#include "zmlx/runtime/device_name.h"

namespace zmlx::moe {
namespace {

mx::array mlp_on_gpu(
    const Arrays& in,
    const ExpertArrays& layer,
    const ExpertPlaces& places) {
  const mx::array& x = in[0];
  const int64_t rows = static_cast<int64_t>(x.size()) / x.shape(-1);
  if (rows == 0) {
    return x; // MLX cannot launch nothing there
  }
  if (rows >= quant::kFewRows || traced(in) || !fits_kernels(layer)) {
    return places.composed(x, in, std::nullopt);
  }
  const auto flat = mx::reshape(x, {static_cast<int>(rows), x.shape(-1)});
  return mx::reshape(experts_by_kernels(flat, layer, std::nullopt), x.shape());
}

} // namespace

mx::array gated_mlp(const mx::array& x, const ExpertArrays& weights) {
  constexpr const char* kOp = "gated_mlp";
  Arrays inputs = {x};
  const auto layer = checked(kOp, x, weights, false);
  const ExpertPlaces places(layer, inputs);
  std::vector<int> differentiable = {0};
  places.add_differentiable(differentiable);
  if (on_a_gpu()) {
    return mlp_on_gpu(inputs, layer, places);
  }
  return differentiable_op(
      {kOp,
       [places](const Arrays& in) {
         return cpu_op(
             "GatedMlpCpu",
             in,
             {{in[0].shape(), in[0].dtype()}},
             [places](const Arrays& given, Arrays& out) {
               RowsInOut rows(given[0], out[0]);
               const std::vector<int> ids(rows.x.size(), 0);
               const std::vector<float> ones(rows.x.size(), 1.0f);
               cpu::run_experts(
                   *thread_team(),
                   places.view(given),
                   {ids.data(), ones.data(), 1, 1},
                   rows.x,
                   rows.y);
               rows.store();
             });
       },
       [places](const Arrays& in) {
         return Arrays{places.composed(in[0], in, std::nullopt)};
       },
       differentiable},
      inputs)[0];
}

} // namespace zmlx::moe
