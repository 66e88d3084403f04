// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/composed_transforms.h"

#include "zmlx/base/error.h"

namespace zmlx {
namespace {

using Arrays = std::vector<mx::array>;

Arrays picked(const Arrays& all, const std::vector<int>& places) {
  Arrays some;
  for (const int place : places) {
    some.push_back(all[place]);
  }
  return some;
}

/// composed as a function of the differentiable inputs.
std::function<Arrays(const Arrays&)> function_of(
    const RowOp& op,
    const Arrays& inputs) {
  return [op, inputs](const Arrays& some) {
    Arrays all = inputs;
    for (size_t i = 0; i < some.size(); ++i) {
      all[op.differentiable[i]] = some[i];
    }
    return op.composed(all);
  };
}

OpTransforms transforms_of(const RowOp& op) {
  OpTransforms transforms;
  transforms.vjp =
      [op](const Arrays& primals, const Arrays& cotangents, const Arrays&) {
        Arrays all;
        for (const auto& primal : primals) {
          all.push_back(mx::zeros_like(primal));
        }
        // MLX's gathers of nothing have no gradient.
        if (primals[0].size() == 0) {
          return all;
        }
        const auto found = mx::vjp(
            function_of(op, primals),
            picked(primals, op.differentiable),
            cotangents);
        for (size_t i = 0; i < op.differentiable.size(); ++i) {
          all[op.differentiable[i]] = found.second[i];
        }
        return all;
      };
  transforms.jvp = [op](
                       const Arrays& primals,
                       const Arrays& tangents,
                       const std::vector<int>& argnums) {
    Arrays all;
    for (const auto& primal : primals) {
      all.push_back(mx::zeros_like(primal));
    }
    for (size_t i = 0; i < argnums.size(); ++i) {
      all[argnums[i]] = tangents[i];
    }
    return mx::jvp(
               function_of(op, primals),
               picked(primals, op.differentiable),
               picked(all, op.differentiable))
        .second;
  };
  transforms.vmap = [op](const Arrays& inputs, const std::vector<int>& axes)
      -> std::pair<Arrays, std::vector<int>> {
    for (size_t i = 1; i < axes.size(); ++i) {
      if (axes[i] != -1) {
        invalid(op.name, "weights cannot be mapped over by vmap.");
      }
    }
    Arrays moved = inputs;
    moved[0] = mx::moveaxis(inputs[0], axes[0], 0);
    Arrays outputs = differentiable_op(op, moved);
    return {outputs, std::vector<int>(outputs.size(), 0)};
  };
  return transforms;
}

} // namespace

std::vector<mx::array> differentiable_op(
    const RowOp& op,
    const std::vector<mx::array>& inputs) {
  return transformed_op(op.run(inputs), inputs.size(), transforms_of(op));
}

} // namespace zmlx
