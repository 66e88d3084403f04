// SPDX-License-Identifier: MIT
// What the CUDA step asks of the device and of MLX: the kernel, compiled, and
// arrays where it can use them.
#pragma once

#include <vector>

#include "zmlx/model/decode/cuda_table.h"

namespace zmlx::decode {

/// Of the default device; 0 if the driver cannot be asked.
int multiprocessors();
/// The major number; 0 if MLX does not tell.
size_t compute_capability();

/// Device addresses of arrays as one uint64 array; nothing is copied.
mx::array device_addresses(const std::vector<mx::array>& arrays);
/// Moves what arrays hold, wherever it is read, to the device's own memory: MLX
/// reads checkpoints into memory that host and device share.
void move_to_device(std::vector<mx::array>& arrays);
/// An array on the device like `array`, which nobody else has.
mx::array copy_of(const mx::array& array);

// MLX keeps values of up to 8 bytes, and what the host makes, in pages that
// host and device share. The device waits for the host to bring such a page
// when the host has touched it, for long where the host is short of memory,
// while other blocks of the step wait for one that reads it.
constexpr int kLeast = 4; // int32 that are no such value

/// The token (1,) int32 where the device has it by itself.
mx::array on_device(const mx::array& token);

/// The kernel of a table's program, for caches of this type.
mx::fast::CustomKernelFunction kernel_of(
    const CudaTable& table,
    mx::Dtype cache_type);
/// Logits, `count` tokens chosen, what the next step follows, what failed.
std::vector<mx::array> call_step(
    const mx::fast::CustomKernelFunction& kernel,
    const std::vector<mx::array>& inputs,
    int vocab,
    int count,
    int blocks);

} // namespace zmlx::decode
