// SPDX-License-Identifier: MIT
// What the CUDA kernel can do.
#include <algorithm>
#include <bit>

#include "zmlx/base/error.h"
#include "zmlx/model/decode/cuda/table.h"
#include "zmlx/model/decode/cuda_table.h"

namespace zmlx::decode {
namespace {

namespace cuda = zmlx_decode;

/// What the kernel asks of a program; throws std::invalid_argument.
class Check {
 public:
  Check(const Program& program, int blocks)
      : program_(program), blocks_(blocks) {
    need(
        blocks <= cuda::kMaxBlocks,
        "the device must have at most 256 multiprocessors, got ",
        blocks);
    need(
        program.dim % cuda::kChunk == 0 && program.dim <= cuda::kMaxDim,
        "the width must be a multiple of 128 up to 2048, got ",
        program.dim);
    // What a block keeps of the residual stream.
    const int least = program.dim / (cuda::kRows * cuda::kMaxOwn);
    need(
        blocks >= least,
        "the device must have at least ",
        least,
        " multiprocessors for this width, got ",
        blocks);
    need(
        program.vocab % cuda::kRows == 0,
        "the vocabulary must be a multiple of 16, got ",
        program.vocab);
    for (const auto& stage : program.stages) {
      std::visit(*this, stage);
    }
  }

  void operator()(const EmbedStage& stage) {
    scales(stage.table);
  }
  void operator()(const ConvStage& stage) {
    matrix(stage.in, program_.dim);
    need(
        stage.taps.shape(0) <= cuda::kMaxTaps,
        "a convolution must have at most 8 taps, got ",
        stage.taps.shape(0));
  }
  void operator()(const QkvStage& stage) {
    for (const auto* part : {&stage.q, &stage.k, &stage.v}) {
      matrix(*part, program_.dim);
      need(
          part->rows() % cuda::kRows == 0,
          "queries, keys and values must be multiples of 16, got ",
          part->rows());
    }
    need(
        packed_alike(stage.q.weight, stage.k.weight) &&
            packed_alike(stage.q.weight, stage.v.weight),
        "queries, keys and values must be packed alike");
  }
  void operator()(const AttendStage& stage) {
    const auto& spec = stage.spec;
    need(
        spec.head_dim == 64 || spec.head_dim == 128,
        "head_dim must be 64 or 128, got ",
        spec.head_dim);
    need(
        spec.kv_heads <= blocks_,
        "the device must have a multiprocessor for each of ",
        spec.kv_heads,
        " key heads, got ",
        blocks_);
    need(
        spec.heads / spec.kv_heads * spec.head_dim <= cuda::kMaxAttended,
        "a key head must serve at most 1024 values of queries, got ",
        spec.heads / spec.kv_heads * spec.head_dim);
    need(
        !rotation_ ||
            (rotation_->head_dim == spec.head_dim &&
             rotation_->rope == spec.rope),
        "all layers must rotate alike");
    need(
        spec.rope.scale == 1 && !spec.rope.periods,
        "rotary positions must not be scaled");
    rotation_ = spec;
  }
  void operator()(const MixStage& stage) {
    matrix(stage.out, stage.out.cols());
  }
  void operator()(const ExpertsStage& stage) {
    packed(stage.gate, program_.dim);
    packed(stage.up, program_.dim);
    need(
        packed_alike(stage.gate, stage.up), "gate and up must be packed alike");
    const int hidden = quant::rows_of(stage.gate);
    const int chosen = stage.router ? stage.router->spec.top_k : 0;
    const int shares =
        pieces_of_row(hidden) ? shares_of_hidden(hidden, chosen) : 0;
    need(
        shares <= std::min(cuda::kMaxShares, blocks_),
        "the device must have a multiprocessor for each of ",
        shares,
        " shares of a hidden vector, at most ",
        cuda::kMaxShares,
        ", got ",
        blocks_);
    if (!stage.router) {
      return;
    }
    const int experts = quant::rows_of(stage.router->weight);
    need(
        experts >= 4 && experts <= cuda::kMaxExperts &&
            std::has_single_bit(static_cast<unsigned>(experts)),
        "experts must be a power of two from 4 to 128, got ",
        experts);
    const auto& spec = stage.router->spec;
    need(
        spec.top_k <= cuda::kMaxTopK,
        "at most 16 experts may be chosen, got ",
        spec.top_k);
    using Score = moe::RouterSpec::Score;
    need(
        (spec.score == Score::Softmax || spec.score == Score::Sigmoid) &&
            !spec.select_on_logits && spec.groups == 1 &&
            !spec.epsilon_is_floor && !spec.weight_on_input,
        "routers must choose by softmax or sigmoid, without groups");
    scales(stage.router->weight);
    bits_of_rows(stage.router->weight);
  }
  void operator()(const CombineStage& stage) {
    packed(stage.down, quant::cols_of(stage.down));
  }
  void operator()(const HeadStage& stage) {
    matrix(stage.out, program_.dim);
  }

 private:
  template <class... Parts>
  void need(bool holds, const Parts&... parts) {
    if (!holds) {
      throw std::invalid_argument(concat(parts...));
    }
  }
  static bool packed_alike(const Weight& a, const Weight& b) {
    const auto &one = packed_of(a), &other = packed_of(b);
    return one.bits == other.bits && one.group_size == other.group_size &&
        one.scheme == other.scheme;
  }
  void scales(const Weight& weight) {
    if (packed_of(weight).scheme != cpu::Scheme::Affine) {
      return; // bytes
    }
    const auto dtype = packed_of(weight).scales.dtype();
    need(
        dtype == mx::bfloat16 || dtype == mx::float16,
        "scales must be float16 or bfloat16, got ",
        dtype);
    need(
        !scales_ || *scales_ == dtype,
        "scales must have one type, got ",
        dtype,
        " too");
    scales_ = dtype;
  }
  void bits_of_rows(const Weight& weight) {
    const int bits = packed_of(weight).bits;
    need(bits == 4 || bits == 8, "weights must have 4 or 8 bits, got ", bits);
  }
  void packed(const Weight& w, int cols) {
    scales(w);
    bits_of_rows(w);
    const int group = packed_of(w).group_size;
    need(
        group == 64 || group == 128 ||
            packed_of(w).scheme != cpu::Scheme::Affine,
        "the group size must be 64 or 128, got ",
        group);
    need(
        quant::cols_of(w) == cols && cols % cuda::kChunk == 0 &&
            pieces_of_row(cols) > 0,
        "rows must have a multiple of 128 columns, got ",
        quant::cols_of(w));
  }
  void matrix(const Projection& projection, int cols) {
    packed(projection.weight, cols);
    need(!projection.bias, "projections must have no bias");
  }

  const Program& program_;
  const int blocks_;
  std::optional<mx::Dtype> scales_;
  std::optional<attention::Spec> rotation_;
};

} // namespace

int pieces_of_row(int cols) {
  constexpr int kMost = cuda::kChunk * cuda::kMaxChunks;
  if (cols <= kMost) {
    return 1;
  }
  // Cut rows are copied group by group, 16 bytes or more at a time.
  for (int pieces = 2; pieces <= cols / 512; ++pieces) {
    if (cols % (512 * pieces) == 0 && cols / pieces <= kMost) {
      return pieces;
    }
  }
  return 0;
}

int shares_of_hidden(int hidden, int chosen) {
  if (chosen == 0) {
    return 1; // rows that lie together are copied sooner: 3 us a token
  }
  const int inner = pieces_of_row(hidden), pieces = inner * chosen;
  const int chunks = hidden / inner / cuda::kChunk;
  int together = 1; // pieces of a share: of cut rows one
  for (int i = 2; inner == 1 && i <= pieces && i * chunks <= cuda::kWarps;
       ++i) {
    together = pieces % i == 0 ? i : together;
  }
  return pieces / together;
}

const quant::QuantizedArrays& packed_of(const Weight& weight) {
  const auto* packed = std::get_if<quant::QuantizedArrays>(&weight);
  if (!packed) {
    throw std::invalid_argument("weights must be quantised");
  }
  return *packed;
}

std::string why_not_on_cuda(const Program& program, int blocks) {
  try {
    Check check(program, blocks);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

bool can_draw(const SamplerOptions& options, int vocab) {
  const bool filtered = (options.top_p > 0 && options.top_p < 1) ||
      options.min_p > 0 || (options.top_k > 0 && options.top_k < vocab);
  return options.temperature == 0 || !filtered;
}

std::array<uint32_t, 4> draw_words(const SamplerOptions& options, int count) {
  const float scale = options.temperature == 0
      ? -1.0f
      : static_cast<float>(1.0 / options.temperature);
  return {
      static_cast<uint32_t>(options.seed),
      static_cast<uint32_t>(options.seed >> 32),
      std::bit_cast<uint32_t>(scale),
      static_cast<uint32_t>(count)};
}

} // namespace zmlx::decode
