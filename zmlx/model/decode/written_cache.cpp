// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/written_cache.h"

#include <memory>

#include "mlx/primitives.h"

namespace zmlx::decode {
namespace {

using Arrays = std::vector<mx::array>;

class OnceWritten : public mx::Primitive {
 public:
  using Primitive::Primitive;

  const char* name() const override {
    return "OnceWritten";
  }
  void eval_cpu(const Arrays& inputs, Arrays& outputs) override {
    share(inputs, outputs);
  }
  // The step is before this on the stream, or the stream waits for it; but what
  // reads the cache may be put into one graph with the step, where only what
  // MLX knows to depend on it would run after it.
  void eval_gpu(const Arrays& inputs, Arrays& outputs) override {
    mx::synchronize(stream());
    share(inputs, outputs);
  }

 private:
  static void share(const Arrays& inputs, Arrays& outputs) {
    outputs[0].copy_shared_buffer(inputs[0]);
  }
};

bool is_ours(const mx::array& array) {
  return array.status() == mx::array::Status::unscheduled &&
      array.has_primitive() &&
      dynamic_cast<const OnceWritten*>(&array.primitive()) != nullptr;
}

} // namespace

mx::array once_written(const mx::array& cache, const mx::array& written) {
  return {
      cache.shape(),
      cache.dtype(),
      std::make_shared<OnceWritten>(mx::default_stream(mx::default_device())),
      {cache, written}};
}

mx::array as_given(const mx::array& array) {
  return is_ours(array) ? array.inputs()[0] : array;
}

} // namespace zmlx::decode
