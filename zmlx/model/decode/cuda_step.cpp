// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/cuda_step.h"

#include <algorithm>
#include <mutex>

#include "zmlx/base/error.h"
#include "zmlx/model/decode/cuda/table.h"
#include "zmlx/model/decode/cuda_launch.h"
#include "zmlx/runtime/kept_compiled.h"

namespace zmlx::decode {
namespace {

constexpr const char* kOp = "decode_step";

constexpr int kStepsAChecked = 16;
constexpr size_t kDrawsKept = 16;
// More would make text come in bursts: a launch takes 0.6 ms a token and more.
constexpr int kDrawnAtOnce = 8;

/// The last step of any program and thread: two kernels at once, each with half
/// of the multiprocessors, would wait for one another. Never freed, for MLX may
/// end first.
struct LastStep {
  std::mutex mutex;
  std::optional<mx::array> failed;
};

LastStep& last_step() {
  static auto* last = new LastStep;
  return *last;
}

mx::Shape with_batch(int batch, const mx::Shape& shape) {
  mx::Shape whole = {batch};
  whole.insert(whole.end(), shape.begin(), shape.end());
  return whole;
}

/// Whether a kernel may write to the array: nobody else sees it.
bool is_ours(const mx::array& array) {
  // Not status(): an array stays "evaluated" until somebody asks for it.
  return array.status() != mx::array::Status::unscheduled &&
      array.is_available() && array.flags().row_contiguous &&
      array.is_donatable();
}

} // namespace

std::string why_no_cuda_step(const Program& program) {
  if (!mx::cu::is_available()) {
    return "the GPU must be a CUDA device";
  }
  if (compute_capability() < 9) {
    return concat(
        "the device's compute capability must be 9 or more, got ",
        compute_capability());
  }
  if (multiprocessors() == 0) {
    return "the CUDA driver must tell the number of multiprocessors";
  }
  return why_not_on_cuda(program, multiprocessors());
}

std::future<void> compile_cuda_step(
    const Program& program,
    mx::Dtype cache_type) {
  if (!why_no_cuda_step(program).empty()) {
    return {};
  }
  return compile_ahead([&] {
    // Texts go by types alone.
    const auto some = [](mx::Dtype type) { return mx::zeros({kLeast}, type); };
    device_addresses({some(mx::uint8)});
    const std::vector<uint64_t> nowhere(arrays_of(program).size());
    const auto table = make_cuda_table(program, nowhere, multiprocessors());
    call_step(
        kernel_of(table, cache_type),
        {some(mx::uint32),
         some(mx::uint64),
         some(mx::int32),
         some(mx::uint32),
         some(mx::int32),
         some(mx::float32),
         some(mx::int32)},
        program.vocab,
        kLeast,
        multiprocessors());
  });
}

CudaStep::CudaStep(std::shared_ptr<const Program> program)
    : program_(std::move(program)),
      blocks_(multiprocessors()),
      words_(0),
      workspace_(0) {
  for (const auto& stage : program_->stages) {
    if (const auto* conv = std::get_if<ConvStage>(&stage)) {
      layers_.push_back(
          {static_cast<size_t>(conv->layer),
           {conv->taps.shape(0) - 1, conv->taps.shape(1)},
           false});
    } else if (const auto* attend = std::get_if<AttendStage>(&stage)) {
      layers_.push_back(
          {static_cast<size_t>(attend->layer),
           {attend->spec.kv_heads, 0, attend->spec.head_dim},
           true});
    }
  }
  auto arrays = arrays_of(*program_);
  mx::eval(arrays);
  move_to_device(arrays);
  auto addresses = device_addresses(arrays);
  mx::eval(addresses);
  const auto* first = addresses.data<uint64_t>();
  table_ =
      make_cuda_table(*program_, {first, first + addresses.size()}, blocks_);
  const auto size = static_cast<int>(table_.words.size());
  words_ = copy_of(mx::array(table_.words.begin(), {size}, mx::uint32));
  workspace_ = new_workspace();
  mx::eval(words_, workspace_);
}

// What blocks hand on, absent, and counts.
mx::array CudaStep::new_workspace() const {
  const auto absent =
      mx::full({2 * table_.exchange_len}, mx::array(~0u, mx::uint32));
  const auto counts = mx::zeros({zmlx_decode::kCountsLen}, mx::uint32);
  return mx::view(copy_of(mx::concatenate({absent, counts})), mx::float32);
}

// Makes the caches ready for `count` tokens more; returns the position.
int CudaStep::take_caches(Cache& cache, int batch, int count) {
  int position = 0;
  auto type = cache_type_;
  for (const auto& layer : layers_) {
    const auto& state = cache[layer.index]->state();
    if (!state.empty()) {
      type = state.front().dtype();
    }
  }
  if (!type) {
    type = mx::float32;
  }
  std::vector<mx::array*> arrays;
  for (const auto& layer : layers_) {
    const auto shape = with_batch(batch, layer.state);
    if (layer.attends) {
      auto& kv = static_cast<KVCache&>(*cache[layer.index]);
      position = kv.offset;
      kv.reserve(count, shape, *type);
      capacity_ = kv.keys->shape(2);
      arrays.push_back(&*kv.keys);
      arrays.push_back(&*kv.values);
    } else {
      auto& conv = static_cast<ConvCache&>(*cache[layer.index]);
      if (!conv.inputs) {
        conv.inputs = mx::zeros(shape, *type);
      }
      arrays.push_back(&*conv.inputs);
    }
  }
  bool same = arrays.size() == held_.size() &&
      addresses_.size() == static_cast<size_t>(batch);
  for (size_t i = 0; i < arrays.size(); ++i) {
    if (arrays[i]->dtype() != *type) {
      invalid(kOp, "caches must have one type, got ", arrays[i]->dtype());
    }
    same = same && is_ours(*arrays[i]) &&
        arrays[i]->data_shared_ptr() == held_[i].data.lock() &&
        arrays[i]->offset() == held_[i].offset;
  }
  if (cache_type_ != *type) {
    cache_type_ = type;
    kernel_ = kernel_of(table_, *type);
  }
  if (same) {
    return position;
  }
  std::vector<mx::array> taken;
  std::vector<uint64_t> bytes;
  held_.clear();
  for (auto* array : arrays) {
    if (!is_ours(*array)) {
      *array = copy_of(*array);
    }
    taken.push_back(*array);
    bytes.push_back(array->nbytes() / batch);
  }
  const auto first = device_addresses(taken);
  const auto each =
      mx::array(bytes.begin(), {static_cast<int>(bytes.size())}, mx::uint64);
  addresses_.clear();
  for (int i = 0; i < batch; ++i) {
    addresses_.push_back(
        mx::add(first, mx::multiply(each, mx::array(i, mx::uint64))));
  }
  // Evaluated, so that nothing but the cache holds the arrays from here on.
  mx::eval(addresses_);
  mx::synchronize();
  for (const auto& array : taken) {
    held_.push_back({array.data_shared_ptr(), array.offset()});
  }
  return position;
}

// What a launch that follows no other is given. Whether the last one of all
// failed stays on the device: a look costs the host up to a millisecond.
mx::array CudaStep::start_at(int position, int drawn) const {
  if (!last_failed_) {
    return copy_of(mx::array({0, position, capacity_, drawn}));
  }
  return mx::concatenate(
      {mx::slice(*last_failed_, {0}, {1}),
       mx::array({position, capacity_, drawn})});
}

std::pair<mx::array, mx::array> CudaStep::run(
    const mx::array& token,
    const Launch& launch,
    const mx::array& draw) {
  auto& last = last_step();
  const std::lock_guard lock(last.mutex);
  const auto [sequence, position, first, count] = launch;
  // What the step before left on the device saves a copy from the host.
  auto& next = next_[static_cast<size_t>(sequence)];
  const bool follows = next.step && next.position == position &&
      next.capacity == capacity_ && (count == 0 || next.drawn == first);
  auto outputs = call_step(
      kernel_,
      {words_,
       addresses_[sequence],
       token,
       draw,
       follows ? *next.step : start_at(position, first),
       workspace_,
       last.failed ? *last.failed : mx::zeros({kLeast}, mx::int32)},
      program_->vocab,
      count,
      blocks_);
  next = {
      outputs[2],
      position + std::max(count, 1),
      capacity_,
      (follows ? next.drawn : first) + count};
  last.failed = last_failed_ = outputs[3];
  // A look at one costs the host a copy; later steps tell of earlier ones.
  if (++steps_ % kStepsAChecked == 0) {
    unchecked_.push_back(outputs[3]);
  }
  return {outputs[0], outputs[1]};
}

void CudaStep::check_finished() {
  while (!unchecked_.empty() && unchecked_.front().is_available()) {
    const bool failed = unchecked_.front().data<int>()[0] != 0;
    unchecked_.pop_front();
    if (failed) {
      // What the blocks counted is of no use to the next step.
      unchecked_.clear();
      last_failed_.reset();
      next_.clear();
      workspace_ = new_workspace();
      throw BackendError(
          "[decode_step] a block of the CUDA kernel waited a second for the "
          "others.");
    }
  }
}

void CudaStep::advance(Cache& cache, int count) const {
  for (const auto& layer : layers_) {
    if (layer.attends) {
      static_cast<KVCache&>(*cache[layer.index]).offset += count;
    }
  }
}

const mx::array& CudaStep::draw_of(const SamplerOptions& options, int count) {
  const auto words = draw_words(options, count);
  for (const auto& draw : draws_) {
    if (draw.words == words) {
      return draw.array;
    }
  }
  if (draws_.size() == kDrawsKept) {
    draws_.erase(draws_.begin());
  }
  auto array = copy_of(
      mx::array(words.begin(), {static_cast<int>(words.size())}, mx::uint32));
  mx::eval(array);
  draws_.push_back({words, array});
  return draws_.back().array;
}

mx::array CudaStep::forward(const mx::array& tokens, Cache& cache) {
  check_finished();
  const int batch = tokens.shape(0);
  const int position = take_caches(cache, batch, 1);
  next_.resize(static_cast<size_t>(batch));
  const auto ids = mx::reshape(mx::astype(tokens, mx::int32), {batch});
  const bool made_by_host = !tokens.has_primitive();
  const mx::array& none = draw_of({}, 0);
  std::vector<mx::array> logits;
  for (int i = 0; i < batch; ++i) {
    auto token = batch == 1 ? ids : mx::slice(ids, {i}, {i + 1});
    if (made_by_host) {
      token = on_device(token);
    }
    auto row = run(token, {i, position, 0, 0}, none).first;
    logits.push_back(mx::reshape(row, {1, 1, program_->vocab}));
  }
  advance(cache, 1);
  return batch == 1 ? logits.front() : mx::concatenate(logits, 0);
}

int CudaStep::most_drawn(const SamplerOptions& options, const Cache& cache)
    const {
  const bool taken =
      std::all_of(cache.begin(), cache.end(), [](const auto& layer) {
        return !dynamic_cast<const QuantizedKVCache*>(layer.get());
      });
  return taken && can_draw(options, program_->vocab) ? kDrawnAtOnce : 0;
}

mx::array CudaStep::draw(
    const mx::array& token,
    Cache& cache,
    const SamplerOptions& options,
    uint64_t first,
    int count) {
  check_finished();
  const int position = take_caches(cache, 1, count);
  next_.resize(1);
  auto chosen = run(token.has_primitive() ? token : on_device(token),
                    {0, position, static_cast<int>(first), count},
                    draw_of(options, count))
                    .second;
  advance(cache, count);
  return count < kLeast ? mx::slice(chosen, {0}, {count}) : chosen;
}

void CudaStep::settle() {
  if (last_failed_) {
    unchecked_.push_back(*last_failed_);
    last_failed_.reset();
    mx::eval(unchecked_.back());
    check_finished();
  }
}

} // namespace zmlx::decode
