// SPDX-License-Identifier: MIT
#include "zmlx/authoring/rows.h"

#include <algorithm>
#include <utility>

#include "zmlx/authoring/program.h"
#include "zmlx/base/error.h"
#include "zmlx/dialect/row_derivative.h"
#include "zmlx/runtime/mlx_internals.h"

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
    if (num_written() > 0) {
      take_over(inputs, outputs[0]);
    }
    size_t size = 0;
    for (auto& output : outputs) {
      size += output.size();
      if (!output.data_shared_ptr()) {
        output.set_data(mx::allocator::malloc(output.nbytes()));
      }
    }
    if (size == 0) {
      return;
    }
    auto& encoder = mx::cpu::get_command_encoder(stream());
    std::vector<mx::array> in, out;
    for (const auto& array : inputs) {
      encoder.set_input_array(array);
      in.push_back(mx::array::unsafe_weak_copy(array));
    }
    for (auto& array : outputs) {
      encoder.set_output_array(array);
      out.push_back(mx::array::unsafe_weak_copy(array));
    }
    encoder.dispatch([rows = rows_,
                      shape = inputs[0].shape(),
                      axis = axis_,
                      in = std::move(in),
                      out = std::move(out)]() mutable {
      rows->cpu().run(shape, axis, in, out);
    });
  }

  void eval_gpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    // Rows without elements still have totals.
    if (std::ranges::any_of(
            outputs, [](const mx::array& made) { return made.size() > 0; })) {
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

  // Writes over an element input that nobody else needs.
  void take_over(const std::vector<mx::array>& inputs, mx::array& output)
      const {
    for (int i = 0; i < num_elements(); ++i) {
      const auto& input = inputs[i];
      if (input.is_donatable() && input.flags().row_contiguous &&
          input.dtype() == output.dtype() && input.size() == output.size()) {
        output.copy_shared_buffer(input);
        return;
      }
    }
  }

  std::shared_ptr<const Rows> rows_;
  int axis_;
  std::vector<mx::Dtype> dtypes_;
};

} // namespace

Rows::Rows(
    std::string name,
    dialect::RowProgram program,
    std::string serial_text)
    : name_(std::move(name)),
      program_(std::move(program)),
      serial_text_(std::move(serial_text)) {}

const CpuRowProgram& Rows::cpu() const {
  const std::lock_guard lock(mutex_);
  if (!cpu_) {
    cpu_ = std::make_unique<const CpuRowProgram>(program_);
  }
  return *cpu_;
}

void Rows::check_differentiable() const {
  if (!dialect::is_differentiable(program_)) {
    invalid(
        name_,
        "a gradient needs updates of the form acc + v, acc * v, max(acc, v) or "
        "min(acc, v) with v any expression without acc, got '",
        serial_text_,
        "'.");
  }
}

std::shared_ptr<const Rows> Rows::vjp(const std::vector<int>& inputs) const {
  check_differentiable();
  const std::lock_guard lock(mutex_);
  auto& known = vjps_[inputs];
  if (!known) {
    known =
        std::make_shared<const Rows>(name_, dialect::vjp_of(program_, inputs));
  }
  return known;
}

std::shared_ptr<const Rows> Rows::jvp(const std::vector<int>& inputs) const {
  check_differentiable();
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
