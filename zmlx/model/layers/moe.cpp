// SPDX-License-Identifier: MIT
#include "zmlx/model/layers/moe.h"

#include "zmlx/model/layers/mlp.h"

namespace zmlx {

mx::array SwitchGlu::forward(const mx::array& x, const mx::array& indices)
    const {
  auto run = [&](const mx::array& rows, const mx::array& ids, bool sorted) {
    auto up = up_proj.forward(rows, ids, sorted);
    auto gate = gate_proj.forward(rows, ids, sorted);
    return down_proj.forward(swiglu(gate, up), ids, sorted);
  };
  auto rows = mx::expand_dims(x, {-2, -3});
  // From 64 pairs on mlx_lm sorts them, so that each expert is read once.
  if (indices.size() < 64) {
    return mx::squeeze(run(rows, indices, false), -2);
  }
  auto flat = mx::flatten(indices);
  auto order = mx::argsort(flat);
  auto inverse = mx::argsort(order);
  auto token =
      mx::floor_divide(order, mx::array(indices.shape(-1), order.dtype()));
  auto y =
      run(mx::take(mx::flatten(rows, 0, -3), token, 0),
          mx::take(flat, order, 0),
          true);
  y = mx::unflatten(mx::take(y, inverse, 0), 0, indices.shape());
  return mx::squeeze(y, -2);
}

SparseMoe::SparseMoe(
    std::string kind,
    moe::RouterSpec router,
    LayerSlot gate,
    std::optional<mx::array> expert_bias,
    std::unique_ptr<SwitchGlu> switch_mlp)
    : router(router),
      gate(std::move(gate)),
      expert_bias(std::move(expert_bias)),
      switch_mlp(std::move(switch_mlp)),
      kind_(std::move(kind)) {}

std::pair<mx::array, mx::array> SparseMoe::route(const mx::array& x) const {
  auto logits = gate->forward(x);
  const bool softmax = router.score == moe::RouterSpec::Score::Softmax;
  auto scores = softmax ? mx::softmax(mx::astype(logits, mx::float32), -1)
                        : mx::sigmoid(logits);
  auto chosen_by = scores;
  if (expert_bias) {
    chosen_by = mx::add(mx::astype(scores, mx::float32), *expert_bias);
  }
  const int k = router.top_k;
  const int experts = scores.shape(-1);
  auto ids = mx::argpartition(chosen_by, -k, -1);
  mx::Shape start(ids.ndim(), 0), stop = ids.shape();
  start.back() = experts - k;
  ids = mx::slice(ids, start, stop);
  auto weights = mx::take_along_axis(
      router.weight_from_biased ? chosen_by : scores, ids, -1);
  if (router.renormalise) {
    auto sum = mx::sum(weights, -1, /* keepdims */ true);
    weights = mx::divide(
        weights, mx::add(sum, mx::array(router.epsilon, sum.dtype())));
  }
  weights = mx::multiply(weights, mx::array(router.scale, weights.dtype()));
  return {ids, mx::astype(weights, x.dtype())};
}

mx::array SparseMoe::forward(const mx::array& x) const {
  auto [ids, weights] = route(x);
  auto y = switch_mlp->forward(x, ids);
  return mx::sum(mx::multiply(y, mx::expand_dims(weights, -1)), -2);
}

} // namespace zmlx
