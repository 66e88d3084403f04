// SPDX-License-Identifier: MIT
#include "zmlx/runtime/expression_cpu.h"

#include <limits>

#include "zmlx/runtime/expression_oracle.h"

namespace zmlx {
namespace {

using dialect::Combine;
using dialect::FlatExpression;

template <class F>
auto with_dtype(mx::Dtype dtype, const F& f) {
  switch (dtype) {
    case mx::bool_:
      return f(bool{});
    case mx::uint8:
      return f(uint8_t{});
    case mx::uint16:
      return f(uint16_t{});
    case mx::uint32:
      return f(uint32_t{});
    case mx::uint64:
      return f(uint64_t{});
    case mx::int8:
      return f(int8_t{});
    case mx::int16:
      return f(int16_t{});
    case mx::int32:
      return f(int32_t{});
    case mx::int64:
      return f(int64_t{});
    case mx::float16:
      return f(mx::float16_t{});
    case mx::bfloat16:
      return f(mx::bfloat16_t{});
    case mx::float64:
      return f(double{});
    default:
      return f(float{});
  }
}

// Element of `array` at a row-major position of `shape`, to which it
// broadcasts.
float element(const mx::array& array, const mx::Shape& shape, int64_t at) {
  int64_t offset = 0;
  for (int axis = static_cast<int>(shape.size()) - 1; axis >= 0; --axis) {
    const int own =
        axis - static_cast<int>(shape.size()) + static_cast<int>(array.ndim());
    if (own >= 0 && array.shape(own) != 1) {
      offset += at % shape[axis] * array.strides()[own];
    }
    at /= shape[axis];
  }
  return with_dtype(array.dtype(), [&](auto type) {
    return static_cast<float>(array.data<decltype(type)>()[offset]);
  });
}

void store(mx::array& array, int64_t at, uint32_t bits) {
  with_dtype(array.dtype(), [&](auto type) {
    using T = decltype(type);
    array.data<T>()[at] = static_cast<T>(std::bit_cast<float>(bits));
  });
}

} // namespace

struct CpuExpression::Plan {
  FlatExpression expression;
};

CpuExpression::CpuExpression(const FlatExpression& expression)
    : plan_(std::make_shared<Plan>(Plan{expression})) {}

void CpuExpression::run(
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) const {
  const auto& e = plan_->expression;
  std::vector<float> values(inputs.size());
  const auto size = static_cast<int64_t>(outputs[0].size());
  for (int64_t at = 0; at < size; ++at) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      values[i] = element(inputs[i], outputs[0].shape(), at);
    }
    const auto lanes = oracle::run(e, values.data());
    for (size_t i = 0; i < outputs.size(); ++i) {
      store(outputs[i], at, lanes[e.outputs[i]]);
    }
  }
}

struct CpuRowProgram::Plan {
  dialect::RowProgram program;
};

CpuRowProgram::CpuRowProgram(const dialect::RowProgram& program)
    : plan_(std::make_shared<Plan>(Plan{program})) {}

void CpuRowProgram::run(
    const mx::Shape& shape,
    int axis,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) const {
  const auto& p = plan_->program;
  const int64_t length = shape[axis];
  int64_t inner = 1, outer = 1;
  for (int i = 0; i < static_cast<int>(shape.size()); ++i) {
    (i < axis ? outer : inner) *= i == axis ? 1 : shape[i];
  }
  mx::Shape row_shape = shape;
  row_shape[axis] = 1;
  for (int64_t row = 0; row < outer * inner; ++row) {
    const auto at = [&](int64_t i) {
      return (row / inner * length + i) * inner + row % inner;
    };
    std::vector<float> rows, totals;
    for (int i = 0; i < p.num_row_values; ++i) {
      rows.push_back(element(inputs[p.num_elements + i], row_shape, row));
    }
    const auto values_at = [&](int64_t i) {
      std::vector<float> values;
      for (int k = 0; k < p.num_elements; ++k) {
        values.push_back(element(inputs[k], shape, at(i)));
      }
      values.insert(values.end(), rows.begin(), rows.end());
      values.insert(values.end(), totals.begin(), totals.end());
      return values;
    };
    for (const auto& pass : p.passes) {
      std::vector<float> running;
      for (const auto& r : pass.reductions) {
        running.push_back(r.init);
      }
      for (int64_t i = 0; i < length; ++i) {
        auto values = values_at(i);
        values.insert(values.end(), running.begin(), running.end());
        const auto lanes = oracle::run(pass.values, values.data());
        for (size_t k = 0; k < running.size(); ++k) {
          const auto v = std::bit_cast<float>(lanes[pass.values.outputs[k]]);
          switch (pass.reductions[k].combine) {
            case Combine::Sum:
              running[k] += v;
              break;
            case Combine::Product:
              running[k] *= v;
              break;
            case Combine::Min:
              running[k] = std::fmin(running[k], v);
              break;
            case Combine::Max:
              running[k] = std::fmax(running[k], v);
              break;
            case Combine::Serial:
              running[k] = v;
              break;
          }
        }
      }
      totals.insert(totals.end(), running.begin(), running.end());
    }
    for (int64_t i = 0; i < length && !p.write.outputs.empty(); ++i) {
      const auto lanes = oracle::run(p.write, values_at(i).data());
      for (size_t k = 0; k < p.write.outputs.size(); ++k) {
        store(outputs[k], at(i), lanes[p.write.outputs[k]]);
      }
    }
    rows.insert(rows.end(), totals.begin(), totals.end());
    const auto lanes = oracle::run(p.finish, rows.data());
    for (size_t k = 0; k < p.finish.outputs.size(); ++k) {
      store(
          outputs[p.write.outputs.size() + k], row, lanes[p.finish.outputs[k]]);
    }
  }
}

} // namespace zmlx
