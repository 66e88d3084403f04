// SPDX-License-Identifier: MIT
#include "zmlx/runtime/transformed_op.h"

#include <memory>

#include "mlx/primitives.h"

namespace zmlx {
namespace {

using Arrays = std::vector<mx::array>;

class TransformedPrimitive : public mx::Primitive {
 public:
  TransformedPrimitive(
      std::shared_ptr<mx::Primitive> inner,
      size_t num_inputs,
      OpTransforms transforms)
      : Primitive(inner->stream()),
        inner_(std::move(inner)),
        num_inputs_(num_inputs),
        transforms_(std::move(transforms)) {}

  const char* name() const override {
    return inner_->name();
  }
  void eval_cpu(const Arrays& inputs, Arrays& outputs) override {
    inner_->eval_cpu(inputs, outputs);
  }
  void eval_gpu(const Arrays& inputs, Arrays& outputs) override {
    inner_->eval_gpu(inputs, outputs);
  }

  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& argnums,
      const Arrays& outputs) override {
    const auto all = transforms_.vjp(shown(primals), cotangents, outputs);
    Arrays wanted;
    for (const int argument : argnums) {
      wanted.push_back(all.at(argument));
    }
    return wanted;
  }
  Arrays jvp(
      const Arrays& primals,
      const Arrays& tangents,
      const std::vector<int>& argnums) override {
    return transforms_.jvp(shown(primals), tangents, argnums);
  }
  std::pair<Arrays, std::vector<int>> vmap(
      const Arrays& inputs,
      const std::vector<int>& axes) override {
    return transforms_.vmap(
        shown(inputs), {axes.begin(), axes.begin() + num_inputs_});
  }

 private:
  Arrays shown(const Arrays& inputs) const {
    return {inputs.begin(), inputs.begin() + num_inputs_};
  }

  std::shared_ptr<mx::Primitive> inner_;
  size_t num_inputs_;
  OpTransforms transforms_;
};

} // namespace

std::vector<mx::array> transformed_op(
    const Arrays& outputs,
    size_t num_inputs,
    OpTransforms transforms) {
  std::vector<mx::Shape> shapes;
  std::vector<mx::Dtype> dtypes;
  for (const auto& output : outputs) {
    shapes.push_back(output.shape());
    dtypes.push_back(output.dtype());
  }
  return mx::array::make_arrays(
      std::move(shapes),
      dtypes,
      std::make_shared<TransformedPrimitive>(
          outputs[0].primitive_ptr(), num_inputs, std::move(transforms)),
      outputs[0].inputs());
}

} // namespace zmlx
