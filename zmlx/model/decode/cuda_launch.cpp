// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/cuda_launch.h"

#include <dlfcn.h>

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/model/decode/cuda/table.h"
#include "zmlx/model/decode/cuda_text.h"
#include "zmlx/runtime/kept_compiled.h"

namespace zmlx::decode {
namespace {

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

/// What the driver keeps of a block's shared memory; the block's own follows.
int reserved_shared_memory() {
  // CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK
  return attribute(111);
}

constexpr int kAtOnce = 32; // arrays whose addresses one kernel notes

mx::Dtype unsigned_of(size_t bytes) {
  return bytes == 1 ? mx::uint8
      : bytes == 2  ? mx::uint16
      : bytes == 4  ? mx::uint32
                    : mx::uint64;
}

} // namespace

int multiprocessors() {
  return attribute(16); // CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
}

size_t compute_capability() {
  const auto& info = mx::device_info(mx::Device(mx::Device::gpu));
  const auto found = info.find("compute_capability_major");
  return found == info.end() ? 0 : std::get<size_t>(found->second);
}

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

mx::array copy_of(const mx::array& array) {
  return mx::contiguous(mx::add(array, mx::zeros({1}, array.dtype())));
}

mx::array on_device(const mx::array& token) {
  return mx::add(token, mx::zeros({kLeast}, mx::int32));
}

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
        cuda_inputs,
        cuda_outputs,
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

} // namespace zmlx::decode
