// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/composed_transforms.h"

#include <algorithm>

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

/// The i-th part along an axis, which goes; take() has none of empty arrays.
mx::array element_of(const mx::array& x, int axis, int i) {
  mx::Shape begin(x.ndim(), 0), end = x.shape();
  begin[axis] = i;
  end[axis] = i + 1;
  return mx::squeeze(mx::slice(x, begin, end), axis);
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
  transforms.vmap = [op](const Arrays& inputs, const std::vector<int>& axes) {
    return mapped_rows(
        [op](const Arrays& given) { return differentiable_op(op, given); },
        inputs,
        axes);
  };
  return transforms;
}

} // namespace

std::pair<std::vector<mx::array>, std::vector<int>> mapped_rows(
    const RowOp::Function& run,
    const std::vector<mx::array>& inputs,
    const std::vector<int>& axes) {
  const auto is_mapped = [](int axis) { return axis >= 0; };
  if (std::none_of(axes.begin() + 1, axes.end(), is_mapped)) {
    Arrays moved = inputs;
    moved[0] = mx::moveaxis(inputs[0], axes[0], 0);
    Arrays outputs = run(moved);
    const std::vector<int> out_axes(outputs.size(), 0);
    return {std::move(outputs), out_axes};
  }
  const auto place = static_cast<size_t>(
      std::find_if(axes.begin(), axes.end(), is_mapped) - axes.begin());
  const int size = inputs[place].shape(axes[place]);
  std::vector<Arrays> columns;
  for (int i = 0; i < size; ++i) {
    Arrays given = inputs;
    for (size_t input = 0; input < inputs.size(); ++input) {
      if (is_mapped(axes[input])) {
        given[input] =
            mx::contiguous(element_of(inputs[input], axes[input], i));
      }
    }
    const Arrays outputs = run(given);
    columns.resize(outputs.size());
    for (size_t k = 0; k < outputs.size(); ++k) {
      columns[k].push_back(outputs[k]);
    }
  }
  if (size == 0) {
    invalid("vmap", "weights must be mapped over at least one, got none.");
  }
  Arrays stacked;
  for (const auto& column : columns) {
    stacked.push_back(mx::stack(column));
  }
  return {stacked, std::vector<int>(stacked.size(), 0)};
}

std::vector<mx::array> differentiable_op(
    const RowOp& op,
    const std::vector<mx::array>& inputs) {
  return transformed_op(op.run(inputs), inputs.size(), transforms_of(op));
}

bool traced(const std::vector<mx::array>& arrays) {
  return std::ranges::any_of(
      arrays, [](const mx::array& one) { return one.is_tracer(); });
}

} // namespace zmlx
