// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/cuda_step.h"

#include <dlfcn.h>

#include <algorithm>
#include <mutex>

#include "zmlx/base/error.h"
#include "zmlx/model/decode/cuda/table.h"
#include "zmlx/model/decode/cuda_text.h"
#include "zmlx/runtime/kept_compiled.h"

namespace zmlx::decode {
namespace {

constexpr const char* kOp = "decode_step";

/// An attribute of the device, which MLX does not tell; 0 if the driver cannot
/// be asked.
int attribute(int which) {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW);
  if (!driver) {
    return 0;
  }
  using Get = int (*)(int*, int, int);
  const auto get = reinterpret_cast<Get>(dlsym(driver, "cuDeviceGetAttribute"));
  int value = 0;
  return get && get(&value, which, 0) == 0 ? value : 0;
}

int multiprocessors() {
  return attribute(16); // CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
}

/// What the driver keeps of a block's shared memory; the block's own follows.
int reserved_shared_memory() {
  // CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK
  return attribute(111);
}

size_t compute_capability() {
  const auto& info = mx::device_info(mx::Device(mx::Device::gpu));
  const auto found = info.find("compute_capability_major");
  return found == info.end() ? 0 : std::get<size_t>(found->second);
}

constexpr int kStepsAChecked = 16;
constexpr size_t kDrawsKept = 16;
// More would make text come in bursts: a launch takes 0.6 ms a token and more.
constexpr int kDrawnAtOnce = 8;

constexpr int kAtOnce = 32; // arrays whose addresses one kernel notes

/// Device addresses of arrays as one uint64 array; nothing is copied.
mx::array device_addresses(const std::vector<mx::array>& arrays) {
  static const auto note = [] {
    std::vector<std::string> names;
    std::string source = "if (threadIdx.x == 0) {\n";
    for (int i = 0; i < kAtOnce; ++i) {
      names.push_back(concat("in", i));
      source += concat(
          "out[", i, "] = reinterpret_cast<unsigned long long>(in", i, ");\n");
    }
    return kept_compiled(
        mx::fast::cuda_kernel(
            "zmlx_addresses", names, {"out"}, source + "}\n", "", false));
  }();
  std::vector<mx::array> parts;
  for (size_t first = 0; first < arrays.size(); first += kAtOnce) {
    std::vector<mx::array> inputs;
    for (size_t i = first; i < first + kAtOnce; ++i) {
      // Arrays of one type need one kernel; the last fill up its arguments.
      inputs.push_back(
          mx::view(
              mx::reshape(arrays[std::min(i, arrays.size() - 1)], {-1}),
              mx::uint8));
    }
    parts.push_back(note(
        inputs,
        {{kAtOnce}},
        {mx::uint64},
        {32, 1, 1},
        {32, 1, 1},
        {},
        std::nullopt,
        false,
        mx::Device(mx::Device::gpu))[0]);
  }
  return mx::slice(
      mx::concatenate(parts), {0}, {static_cast<int>(arrays.size())});
}

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

mx::Dtype unsigned_of(size_t bytes) {
  return bytes == 1 ? mx::uint8
      : bytes == 2  ? mx::uint16
      : bytes == 4  ? mx::uint32
                    : mx::uint64;
}

/// Moves what arrays hold, wherever it is read, to the device's own memory: MLX
/// reads checkpoints into memory that host and device share.
void move_to_device(std::vector<mx::array>& arrays) {
  for (auto& array : arrays) {
    if (!array.flags().row_contiguous) {
      continue;
    }
    const auto bits = mx::view(array, unsigned_of(array.itemsize()));
    auto moved = mx::view(
        mx::bitwise_or(bits, mx::array(0, bits.dtype())), array.dtype());
    mx::eval(moved);
    array.copy_shared_buffer(moved); // for everybody who has the array
  }
  mx::synchronize();
}

/// An array on the device like `array`, which nobody else has.
mx::array copy_of(const mx::array& array) {
  return mx::contiguous(mx::add(array, mx::zeros({1}, array.dtype())));
}

// MLX keeps values of up to 8 bytes, and what the host makes, in pages that
// host and device share. The device waits for the host to bring such a page
// when the host has touched it, for long where the host is short of memory,
// while other blocks of the step wait for one that reads it.
constexpr int kLeast = 4; // int32 that are no such value

/// The token where the device has it by itself.
mx::array on_device(const mx::array& token) {
  return mx::add(token, mx::zeros({kLeast}, mx::int32));
}

/// The kernel of a table's program, for caches of this type.
mx::fast::CustomKernelFunction kernel_of(
    const CudaTable& table,
    mx::Dtype cache_type) {
  const int type = cache_type == mx::float32 ? 0
      : cache_type == mx::float16            ? 1
                                             : 2;
  // MLX declares the kernel; its registers must fit the threads of a block.
  std::string header = concat(
      "#define ZMLX_BITS ",
      table.bits,
      "\n#define ZMLX_SCHEME ",
      table.scheme,
      "\n#define ZMLX_HALF_SCALES ",
      table.half_scales ? 1 : 0,
      "\n#define ZMLX_LANE_EXPERTS ",
      table.lane_experts,
      "\n#define ZMLX_CACHE_TYPE ",
      type,
      "\n#define ZMLX_SHARED_AT ",
      reserved_shared_memory(),
      '\n');
  for (const auto part :
       {cuda_table,
        cuda_words,
        cuda_machine,
        cuda_exchange,
        cuda_multiply,
        cuda_small,
        cuda_produce,
        cuda_draw,
        cuda_stages,
        cuda_attend,
        cuda_kernel}) {
    header += part;
  }
  header += concat(
      "\n#undef __global__\n#define __global__ "
      "__attribute__((global)) __launch_bounds__(",
      zmlx_decode::kThreads,
      ", 1)\n");
  // MLX knows what it has compiled by its name.
  return kept_compiled(
      mx::fast::cuda_kernel(
          concat(
              "zmlx_decode_step_",
              table.bits,
              "_",
              table.scheme + 1,
              table.half_scales ? "h" : "b",
              type,
              "_",
              table.lane_experts),
          {"program", "caches", "token", "draw", "step", "workspace", "before"},
          {"logits", "chosen", "next", "failed"},
          "zmlx_decode::run(program, reinterpret_cast<const unsigned long long*>("
          "caches), token, draw, step, const_cast<float*>(workspace), logits, "
          "chosen, next, failed);\n",
          header,
          false,
          table.shared_bytes));
}

/// Logits, `count` tokens chosen, what the next step follows, what failed.
std::vector<mx::array> call_step(
    const mx::fast::CustomKernelFunction& kernel,
    const std::vector<mx::array>& inputs,
    int vocab,
    int count,
    int blocks) {
  return kernel(
      inputs,
      {{vocab}, {std::max(count, kLeast)}, {4}, {kLeast}},
      {mx::float32, mx::int32, mx::int32, mx::int32},
      {blocks * zmlx_decode::kThreads, 1, 1},
      {zmlx_decode::kThreads, 1, 1},
      {},
      std::nullopt,
      false,
      mx::Device(mx::Device::gpu));
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
