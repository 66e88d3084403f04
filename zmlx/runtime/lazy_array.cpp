// SPDX-License-Identifier: MIT
#include "zmlx/runtime/lazy_array.h"

#include "mlx/primitives.h"
#include "zmlx/base/error.h"
#include "zmlx/runtime/output_buffer.h"

namespace zmlx {
namespace {

// A stream of its own, since arrays may be evaluated by a thread that did not
// build them.
mx::Stream filling_stream() {
  static const mx::Stream stream =
      mx::new_thread_unsafe_stream(mx::Device::cpu);
  return stream;
}

/// Allocates and fills its output at once: it waits for nothing, and MLX's
/// encoders are not for several threads.
class FillArray : public mx::Primitive {
 public:
  explicit FillArray(std::shared_ptr<const ArraySource> source)
      : Primitive(filling_stream()), source(std::move(source)) {}

  const char* name() const override {
    return "FillArray";
  }
  void eval_cpu(const std::vector<mx::array>&, std::vector<mx::array>& outputs)
      override {
    outputs[0].set_data(output_buffer(outputs[0].nbytes()));
    source->fill(outputs[0]);
  }
  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&)
      override {
    throw BackendError("[FillArray] runs on the CPU only.");
  }

  const std::shared_ptr<const ArraySource> source;
};

const FillArray* filling(const mx::array& array) {
  return array.has_primitive()
      ? dynamic_cast<const FillArray*>(&array.primitive())
      : nullptr;
}

} // namespace

mx::array lazy_array(
    mx::Shape shape,
    mx::Dtype dtype,
    std::shared_ptr<const ArraySource> source) {
  return mx::array(
      std::move(shape),
      dtype,
      std::make_shared<FillArray>(std::move(source)),
      {});
}

const ArraySource* source_of(const mx::array& array) {
  const auto* fill = filling(array);
  return fill ? fill->source.get() : nullptr;
}

mx::array unevaluated(const mx::array& array) {
  const auto* fill = filling(array);
  return fill ? lazy_array(array.shape(), array.dtype(), fill->source) : array;
}

} // namespace zmlx
