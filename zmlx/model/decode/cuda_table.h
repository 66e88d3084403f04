// SPDX-License-Identifier: MIT
// Lays a decode program out as the CUDA kernel reads it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "zmlx/model/decode/program.h"
#include "zmlx/model/sampler.h"

namespace zmlx::decode {

struct CudaTable {
  std::vector<uint32_t> words; // a Program, then its stages (cuda/table.h)
  int exchange_len = 0; // floats that blocks hand on
  int shared_bytes = 0; // of a block
  int bits = 0; // of every matrix but routers, or 0
  int scheme = 0; // likewise (cuda/table.h), or -1
  int lane_experts = 0; // of every router that a lane has of 32, or 0
  bool half_scales = false; // float16, not bfloat16
};

/// Why the kernel cannot run the program on a grid of `blocks`, or "".
std::string why_not_on_cuda(const Program& program, int blocks);

/// How the kernel is told to choose `count` tokens, cuda/exchange.cuh's Draw;
/// the options' filters must be off.
std::array<uint32_t, 4> draw_words(const SamplerOptions& options, int count);

/// Whether it can draw so.
bool can_draw(const SamplerOptions& options, int vocab);

/// Pieces that a row of `cols` columns is cut into; 0: there is no way to.
int pieces_of_row(int cols);

/// Into how many shares, of pieces of rows, the hidden vectors of `chosen`
/// experts are cut, of which a block has one; chosen: 0 in a dense layer.
int shares_of_hidden(int hidden, int chosen);

/// Throws std::invalid_argument for a weight that is not packed.
const quant::QuantizedArrays& packed_of(const Weight& weight);

/// The arrays that the kernel reads, of a program that it can run.
std::vector<mx::array> arrays_of(const Program& program);

/// addresses: of arrays_of(program), in order. blocks: of the grid.
CudaTable make_cuda_table(
    const Program& program,
    const std::vector<uint64_t>& addresses,
    int blocks);

} // namespace zmlx::decode
