// SPDX-License-Identifier: MIT
#include "zmlx/authoring/rows.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "mlx/primitives.h"
#include "zmlx/authoring/program.h"
#include "zmlx/authoring/unrolled_rows.h"
#include "zmlx/runtime/cpu_dispatch.h"

namespace zmlx {
namespace {

mx::Shape row_shape(mx::Shape shape, int axis) {
  shape[axis] = 1;
  return shape;
}

class RowsPrimitive : public mx::Primitive {
 public:
  RowsPrimitive(
      mx::Stream stream,
      std::shared_ptr<const Rows> rows,
      int axis,
      std::vector<mx::Dtype> dtypes)
      : Primitive(stream),
        rows_(std::move(rows)),
        axis_(axis),
        dtypes_(std::move(dtypes)) {}

  const char* name() const override {
    return rows_->name().c_str();
  }

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    for (int i = 0; num_written() > 0 && i < num_elements(); ++i) {
      if (take_over(inputs[i], outputs[0])) {
        break;
      }
    }
    allocate(outputs);
    if (has_elements(outputs)) {
      dispatch_cpu(
          stream(),
          inputs,
          outputs,
          [rows = rows_, shape = inputs[0].shape(), axis = axis_](
              const std::vector<mx::array>& in, std::vector<mx::array>& out) {
            rows->cpu().run(shape, axis, in, out);
          });
    }
  }

  void eval_gpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    if (has_elements(outputs)) {
      rows_->gpu().run(rows_->program(), axis_, inputs, outputs, stream());
      return;
    }
    for (auto& output : outputs) {
      output.set_data(mx::allocator::malloc(0));
    }
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>& argnums,
      const std::vector<mx::array>&) override {
    check_differentiable(rows_->name(), primals, argnums);
    if (!rows_->has_row_derivatives()) {
      return mx::vjp(
                 unrolled(primals, argnums), pick(primals, argnums), cotangents)
          .second;
    }
    // Elements, their cotangents, row values, theirs.
    std::vector<mx::array> inputs(
        primals.begin(), primals.begin() + num_elements());
    inputs.insert(
        inputs.end(), cotangents.begin(), cotangents.begin() + num_written());
    inputs.insert(
        inputs.end(), primals.begin() + num_elements(), primals.end());
    inputs.insert(
        inputs.end(), cotangents.begin() + num_written(), cotangents.end());
    // Gradients come in the order elements, row values.
    std::vector<int> sorted = argnums;
    std::ranges::sort(sorted);
    std::vector<mx::Dtype> dtypes;
    for (const int i : sorted) {
      dtypes.push_back(primals[i].dtype());
    }
    const auto made = run_rows(
        rows_->vjp(sorted),
        primals[0].shape(),
        axis_,
        inputs,
        dtypes,
        stream());
    std::vector<mx::array> gradients;
    for (const int i : argnums) {
      const auto place = std::ranges::find(sorted, i) - sorted.begin();
      gradients.push_back(made[place]);
    }
    return gradients;
  }

  std::vector<mx::array> jvp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& tangents,
      const std::vector<int>& argnums) override {
    check_differentiable(rows_->name(), primals, argnums);
    if (!rows_->has_row_derivatives()) {
      return mx::jvp(
                 unrolled(primals, argnums), pick(primals, argnums), tangents)
          .second;
    }
    std::vector<mx::array> inputs(
        primals.begin(), primals.begin() + num_elements());
    for (size_t i = 0; i < argnums.size(); ++i) {
      if (argnums[i] < num_elements()) {
        inputs.push_back(tangents[i]);
      }
    }
    inputs.insert(
        inputs.end(), primals.begin() + num_elements(), primals.end());
    for (size_t i = 0; i < argnums.size(); ++i) {
      if (argnums[i] >= num_elements()) {
        inputs.push_back(tangents[i]);
      }
    }
    return run_rows(
        rows_->jvp(argnums),
        primals[0].shape(),
        axis_,
        inputs,
        dtypes_,
        stream());
  }

  std::pair<std::vector<mx::array>, std::vector<int>> vmap(
      const std::vector<mx::array>& inputs,
      const std::vector<int>& axes) override {
    std::vector<mx::array> batched;
    mx::Shape shape;
    for (size_t i = 0; i < inputs.size(); ++i) {
      batched.push_back(
          axes[i] < 0 ? mx::expand_dims(inputs[i], 0, stream())
                      : mx::moveaxis(inputs[i], axes[i], 0, stream()));
      if (static_cast<int>(i) < num_elements()) {
        shape = shape.empty() ? batched[i].shape()
                              : mx::broadcast_shapes(shape, batched[i].shape());
      } else {
        shape[0] = std::max(shape[0], batched[i].shape(0));
      }
    }
    return {
        run_rows(rows_, shape, axis_ + 1, batched, dtypes_, stream()),
        std::vector<int>(dtypes_.size(), 0)};
  }

  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& that = static_cast<const RowsPrimitive&>(other);
    return axis_ == that.axis_ && dtypes_ == that.dtypes_ &&
        *rows_ == *that.rows_;
  }

  std::vector<mx::Shape> output_shapes(
      const std::vector<mx::array>& inputs) override {
    std::vector<mx::Shape> shapes(
        dtypes_.size(), row_shape(inputs[0].shape(), axis_));
    std::fill_n(shapes.begin(), num_written(), inputs[0].shape());
    return shapes;
  }

 private:
  int num_elements() const {
    return rows_->program().num_elements;
  }
  int num_written() const {
    return static_cast<int>(rows_->program().write.outputs.size());
  }

  static std::vector<mx::array> pick(
      const std::vector<mx::array>& arrays,
      const std::vector<int>& argnums) {
    std::vector<mx::array> picked;
    for (const int i : argnums) {
      picked.push_back(arrays[i]);
    }
    return picked;
  }

  // The outputs as a function of the inputs in argnums.
  std::function<std::vector<mx::array>(const std::vector<mx::array>&)> unrolled(
      const std::vector<mx::array>& primals,
      const std::vector<int>& argnums) {
    return [this, primals, argnums](const std::vector<mx::array>& some) {
      auto all = primals;
      for (size_t i = 0; i < argnums.size(); ++i) {
        all[argnums[i]] = some[i];
      }
      return run_unrolled(*rows_, axis_, all, dtypes_, stream());
    };
  }

  // Rows without elements still have totals.
  static bool has_elements(const std::vector<mx::array>& outputs) {
    return std::ranges::any_of(
        outputs, [](const mx::array& output) { return output.size() > 0; });
  }

  std::shared_ptr<const Rows> rows_;
  int axis_;
  std::vector<mx::Dtype> dtypes_;
};

} // namespace

Rows::Rows(std::string name, dialect::RowProgram program)
    : name_(std::move(name)), program_(std::move(program)) {}

const CpuRowProgram& Rows::cpu() const {
  const std::lock_guard lock(mutex_);
  if (!cpu_) {
    cpu_ = std::make_unique<const CpuRowProgram>(program_);
  }
  return *cpu_;
}

std::shared_ptr<const Rows> Rows::vjp(const std::vector<int>& inputs) const {
  const std::lock_guard lock(mutex_);
  auto& known = vjps_[inputs];
  if (!known) {
    known =
        std::make_shared<const Rows>(name_, dialect::vjp_of(program_, inputs));
  }
  return known;
}

std::shared_ptr<const Rows> Rows::jvp(const std::vector<int>& inputs) const {
  const std::lock_guard lock(mutex_);
  auto& known = jvps_[inputs];
  if (!known) {
    known =
        std::make_shared<const Rows>(name_, dialect::jvp_of(program_, inputs));
  }
  return known;
}

std::vector<mx::array> run_rows(
    std::shared_ptr<const Rows> rows,
    const mx::Shape& shape,
    int axis,
    const std::vector<mx::array>& inputs,
    const std::vector<mx::Dtype>& dtypes,
    mx::StreamOrDevice s) {
  const auto stream = mx::to_stream(s);
  const auto& program = rows->program();
  const auto short_shape = row_shape(shape, axis);
  std::vector<mx::array> whole;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool element = static_cast<int>(i) < program.num_elements;
    whole.push_back(
        mx::broadcast_to(inputs[i], element ? shape : short_shape, stream));
  }
  std::vector<mx::Shape> shapes(dtypes.size(), short_shape);
  std::fill_n(shapes.begin(), program.write.outputs.size(), shape);
  auto primitive =
      std::make_shared<RowsPrimitive>(stream, std::move(rows), axis, dtypes);
  return mx::array::make_arrays(
      std::move(shapes), dtypes, std::move(primitive), std::move(whole));
}

} // namespace zmlx
