// SPDX-License-Identifier: MIT
#include "zmlx/runtime/cpu_op.h"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "mlx/primitives.h"
#include "zmlx/base/error.h"
#include "zmlx/runtime/cpu_dispatch.h"

namespace zmlx {
namespace {

// Copies an array of any strides to a row-contiguous one of its shape.
void copy_rows(const mx::array& from, mx::array& to) {
  char* out = to.data<char>();
  if (from.flags().row_contiguous) {
    std::memcpy(out, from.data<char>(), to.nbytes());
    return;
  }
  const size_t itemsize = from.itemsize();
  for (size_t i = 0; i < from.size(); ++i) {
    int64_t offset = 0, rest = static_cast<int64_t>(i);
    for (int axis = static_cast<int>(from.ndim()) - 1; axis >= 0; --axis) {
      offset += rest % from.shape(axis) * from.strides()[axis];
      rest /= from.shape(axis);
    }
    std::memcpy(
        out + i * itemsize,
        from.data<char>() + offset * static_cast<int64_t>(itemsize),
        itemsize);
  }
}

// MLX holds what an operation returns until it has run (cpu::eval), so that a
// step that is built while the one before it runs could never take over a
// buffer. Copying a long cache takes longer than waiting for that moment.
class TakeOvers {
 public:
  static TakeOvers& instance() {
    static TakeOvers* all = new TakeOvers; // tasks may outlive statics
    return *all;
  }

  /// Counts as running until it is gone. A task owns it: it may throw, and one
  /// that cannot be put on its stream, which has failed before, never runs.
  class Running {
   public:
    Running() {
      instance().started();
    }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
    ~Running() {
      instance().ended();
    }
  };

  /// Waits until nothing but `input` holds its buffer, or it cannot be a
  /// running operation that does. Sleeps meanwhile: whoever wakes now and then
  /// takes a processor from a thread for which all others wait.
  void wait_for(const mx::array& input) {
    using std::chrono::steady_clock;
    // Behind another stream's work no end may come before this call returns.
    const auto deadline = steady_clock::now() + std::chrono::milliseconds(250);
    for (bool last = false;
         !last && !free(input) && steady_clock::now() < deadline;) {
      {
        std::unique_lock lock(mutex_);
        last = running_ == 0;
        ended_.wait_until(lock, deadline, [&, seen = ends_] {
          return running_ == 0 || ends_ != seen;
        });
      }
      // An ended task's hold goes with the next one of its stream, which a busy
      // machine or a sanitizer may keep waiting.
      const auto soon = steady_clock::now() + std::chrono::microseconds(300);
      while (!free(input) && steady_clock::now() < soon) {
        std::this_thread::yield();
      }
    }
  }

 private:
  void started() {
    std::lock_guard lock(mutex_);
    ++running_;
  }
  void ended() {
    {
      std::lock_guard lock(mutex_);
      --running_;
      ++ends_;
    }
    ended_.notify_all();
  }

  static bool free(const mx::array& input) {
    return input.data_shared_ptr().use_count() == 1;
  }

  std::mutex mutex_;
  std::condition_variable ended_;
  int running_ = 0;
  uint64_t ends_ = 0;
};

// Bytes that are copied sooner than waited for.
constexpr size_t kSmall = 1 << 20;

class CpuPrimitive : public mx::Primitive {
 public:
  CpuPrimitive(
      mx::Stream stream,
      const char* name,
      std::vector<std::optional<int>> updates,
      CpuTask task)
      : Primitive(stream),
        name_(name),
        updates_(std::move(updates)),
        task_(std::make_shared<CpuTask>(std::move(task))) {}

  const char* name() const override {
    return name_;
  }

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&)
      override {
    throw BackendError(concat("[", name_, "] runs on the CPU only."));
  }

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    release_siblings(inputs, outputs);
    // (output, input) to copy in the task, since the input may not be
    // evaluated yet.
    std::vector<std::pair<size_t, size_t>> copies;
    const bool waits = bytes_updated(inputs) > kSmall;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!updates_[i]) {
        continue;
      }
      const auto& input = inputs[*updates_[i]];
      if (waits) {
        TakeOvers::instance().wait_for(input);
      }
      if (!take_over(input, outputs[i])) {
        copies.emplace_back(i, *updates_[i]);
      }
    }
    allocate(outputs);
    dispatch_cpu(
        stream(),
        inputs,
        outputs,
        [task = task_,
         copies = std::move(copies),
         running = waits ? std::make_shared<TakeOvers::Running>() : nullptr](
            const std::vector<mx::array>& in, std::vector<mx::array>& out) {
          for (auto [to, from] : copies) {
            copy_rows(in[from], out[to]);
          }
          (*task)(in, out);
        });
  }

 private:
  size_t bytes_updated(const std::vector<mx::array>& inputs) const {
    size_t bytes = 0;
    for (const auto& update : updates_) {
      bytes += update ? inputs[*update].nbytes() : 0;
    }
    return bytes;
  }

  // Each output of several holds its own list of the inputs (MLX 0.32.4,
  // array::make_arrays), so that none could be taken over. The lists are
  // dropped after this call anyway, unless somebody differentiates.
  static void release_siblings(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) {
    for (auto& output : outputs) {
      if (!output.is_tracer() && &output.inputs() != &inputs) {
        output.inputs().clear();
      }
    }
  }

  const char* name_;
  std::vector<std::optional<int>> updates_;
  std::shared_ptr<CpuTask> task_;
};

} // namespace

std::vector<mx::array> cpu_op(
    const char* name,
    std::vector<mx::array> inputs,
    const std::vector<CpuOutput>& outputs,
    CpuTask task) {
  std::vector<mx::Shape> shapes;
  std::vector<mx::Dtype> dtypes;
  std::vector<std::optional<int>> updates;
  for (const auto& output : outputs) {
    shapes.push_back(output.shape);
    dtypes.push_back(output.dtype);
    updates.push_back(output.updates);
  }
  return mx::array::make_arrays(
      std::move(shapes),
      dtypes,
      std::make_shared<CpuPrimitive>(
          mx::default_stream(mx::Device::cpu),
          name,
          std::move(updates),
          std::move(task)),
      std::move(inputs));
}

} // namespace zmlx
