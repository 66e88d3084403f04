// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/cuda_table.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "zmlx/base/error.h"
#include "zmlx/model/decode/cuda/table.h"

namespace zmlx::decode {
namespace {

namespace cuda = zmlx_decode;

// More let a stage's loads delay the one before, and leave the first-level
// cache less.
constexpr int kSlots = 4;
constexpr int kRingBytes = 108 * 1024;
constexpr int kBlockBytes = 227 * 1024;

/// Pieces that a row of `cols` columns is cut into.
int inner_pieces(int cols) {
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

int round_up(int value, int to) {
  return (value + to - 1) / to * to;
}

/// Throws std::invalid_argument for a weight that the kernel has no code for.
const quant::QuantizedArrays& packed_of(const Weight& weight) {
  const auto* packed = std::get_if<quant::QuantizedArrays>(&weight);
  if (!packed) {
    throw std::invalid_argument("weights must be quantised");
  }
  if (packed->scheme != cpu::Scheme::Affine) {
    throw std::invalid_argument("weights must be of affine mode");
  }
  return *packed;
}

/// Calls visit(array) for every array that the kernel reads, in an order that
/// does not change.
template <class Visit>
class Arrays {
 public:
  explicit Arrays(Visit visit) : visit_(visit) {}

  void operator()(const Weight& weight) {
    const auto& w = packed_of(weight);
    visit_(w.words);
    visit_(w.scales);
    visit_(w.biases);
  }
  void operator()(const std::optional<mx::array>& array) {
    if (array) {
      visit_(*array);
    }
  }
  void operator()(const EmbedStage& stage) {
    (*this)(stage.table);
  }
  void operator()(const ConvStage& stage) {
    visit_(stage.norm.weight);
    (*this)(stage.in.weight);
    visit_(stage.taps);
    (*this)(stage.bias);
  }
  void operator()(const QkvStage& stage) {
    visit_(stage.norm.weight);
    for (const auto* part : {&stage.q, &stage.k, &stage.v}) {
      (*this)(part->weight);
    }
  }
  void operator()(const AttendStage& stage) {
    (*this)(stage.query_norm);
    (*this)(stage.key_norm);
  }
  void operator()(const MixStage& stage) {
    (*this)(stage.out.weight);
  }
  void operator()(const ExpertsStage& stage) {
    visit_(stage.norm.weight);
    if (stage.router) {
      (*this)(stage.router->weight);
      (*this)(stage.router->bias);
    }
    (*this)(stage.gate);
    (*this)(stage.up);
  }
  void operator()(const CombineStage& stage) {
    (*this)(stage.down);
  }
  void operator()(const HeadStage& stage) {
    visit_(stage.norm.weight);
    (*this)(stage.out.weight);
  }

 private:
  Visit visit_;
};

template <class Visit>
void for_each_array(const Program& program, Visit visit) {
  Arrays<Visit> arrays(visit);
  for (const auto& stage : program.stages) {
    std::visit(arrays, stage);
  }
}

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
    return one.bits == other.bits && one.group_size == other.group_size;
  }
  void scales(const Weight& weight) {
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
        group == 64 || group == 128,
        "the group size must be 64 or 128, got ",
        group);
    need(
        quant::cols_of(w) == cols && cols % cuda::kChunk == 0 &&
            inner_pieces(cols) > 0,
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

/// Lays the stages out one after the other.
class Layout {
 public:
  Layout(
      const Program& program,
      const std::vector<uint64_t>& addresses,
      int blocks)
      : program_(program), addresses_(addresses), blocks_(blocks) {
    x_ = room(program.dim);
    head_.embedded_at = x_;
    for (size_t i = 0; i < program.stages.size(); ++i) {
      next_ = i + 1 < program.stages.size() ? &program.stages[i + 1] : nullptr;
      std::visit(*this, program.stages[i]);
    }
    finish();
  }

  CudaTable table;

  void operator()(const EmbedStage& stage) {
    head_.embedding = matrix(stage.table);
    table.half_scales = packed_of(stage.table).scales.dtype() == mx::float16;
  }
  void operator()(const ConvStage& stage) {
    auto s = begin(cuda::kConv, program_.dim / cuda::kRows, 3, program_.dim);
    normalise(s, stage.norm);
    s.a = matrix(stage.in.weight);
    s.taps = next();
    s.conv_bias = stage.bias ? next() : 0;
    s.num_taps = stage.taps.shape(0);
    s.cache = caches_++;
    m_ = s.out_at = room(program_.dim);
    push(s);
  }
  void operator()(const QkvStage& stage) {
    const int q = stage.q.rows(), k = stage.k.rows(), all = q + 2 * k;
    auto s = begin(cuda::kQkv, all / cuda::kRows, 1, program_.dim);
    normalise(s, stage.norm);
    s.a = matrix(stage.q.weight);
    s.b = matrix(stage.k.weight);
    s.c = matrix(stage.v.weight);
    s.rows_a = q;
    s.rows_b = k;
    m_ = s.out_at = room(all);
    push(s);
  }
  void operator()(const AttendStage& stage) {
    const auto& spec = stage.spec;
    auto s = begin(cuda::kAttend, 0, 1, cuda::kChunk);
    s.x_at = m_;
    s.rows_a = spec.heads * spec.head_dim;
    s.rows_b = spec.kv_heads * spec.head_dim;
    s.heads = spec.heads;
    s.kv_heads = spec.kv_heads;
    s.head_dim = spec.head_dim;
    s.eps = spec.norm_eps;
    s.splits = std::clamp(blocks_ / spec.kv_heads, 1, cuda::kMaxSplits);
    s.chunk_rows = spec.head_dim > 64 ? 32 : 64;
    if (stage.query_norm) {
      s.query_norm = next();
      s.key_norm = next();
    }
    s.cache = caches_;
    caches_ += 2;
    s.out_at = room(spec.heads * s.splits * (spec.head_dim + 4));
    head_.half_head = spec.head_dim / 2;
    head_.log_theta =
        std::log(spec.rope.theta) / static_cast<float>(head_.half_head);
    attended_ = std::max(attended_, bytes_attended(s));
    push(s);
    s.kind = cuda::kMerge;
    s.x_at = s.out_at;
    s.units = s.rows_a / cuda::kRows;
    m_ = s.out_at = room(s.rows_a);
    push(s);
  }
  void operator()(const MixStage& stage) {
    auto s = begin(cuda::kMix, program_.dim / cuda::kRows, 1, stage.out.cols());
    s.x_at = m_;
    s.a = matrix(stage.out.weight);
    x_ = s.out_at = room(program_.dim);
    const auto* experts = next_ ? std::get_if<ExpertsStage>(next_) : nullptr;
    if (experts && experts->router) {
      // The arrays of the next stage come next.
      const size_t kept = at_;
      s.router_norm = next();
      s.router = matrix(experts->router->weight);
      at_ = kept;
      s.experts = quant::rows_of(experts->router->weight);
      s.partial_rows = program_.dim / cuda::kRows;
      s.partials_at = partials_ = room(s.partial_rows * s.experts);
    }
    push(s);
  }
  void operator()(const ExpertsStage& stage) {
    hidden_ = quant::rows_of(stage.gate);
    chosen_ = stage.router ? stage.router->spec.top_k : 1;
    auto s = begin(cuda::kExperts, chosen_ * hidden_ / 8, 1, program_.dim);
    normalise(s, stage.norm);
    routed_ = stage.router.has_value();
    if (routed_) {
      const auto& spec = stage.router->spec;
      s.router = matrix(stage.router->weight);
      s.router_bias = stage.router->bias ? next() : 0;
      s.experts = quant::rows_of(stage.router->weight);
      s.top_k = spec.top_k;
      s.partial_rows = program_.dim / cuda::kRows;
      s.partials_at = partials_;
      s.softmax = spec.score == moe::RouterSpec::Score::Softmax;
      s.weight_from_biased = spec.weight_from_biased && stage.router->bias;
      s.renormalise = spec.renormalise;
      s.router_eps = spec.epsilon;
      s.router_scale = spec.scale;
    }
    s.a = matrix(stage.gate);
    s.b = matrix(stage.up);
    s.rows_a = hidden_;
    m_ = s.out_at = room(chosen_ * hidden_);
    push(s);
  }
  void operator()(const CombineStage& stage) {
    auto s = begin(cuda::kCombine, program_.dim / cuda::kRows, 1, hidden_);
    s.pieces = s.inner_pieces * chosen_;
    s.x_len = hidden_ * chosen_;
    s.x_at = m_;
    s.arrivals = cuda::kChunk / 8; // a unit of experts has 8 rows
    s.a = matrix(stage.down);
    s.top_k = routed_ ? chosen_ : 0;
    x_ = s.out_at = room(program_.dim);
    push(s);
  }
  void operator()(const HeadStage& stage) {
    auto s = begin(cuda::kHead, program_.vocab / cuda::kRows, 1, program_.dim);
    normalise(s, stage.norm);
    s.a = matrix(stage.out.weight);
    push(s);
  }

 private:
  uint64_t next() {
    return addresses_.at(at_++);
  }
  int room(int floats) {
    const int at = table.exchange_len;
    table.exchange_len += round_up(floats, 32);
    return at;
  }
  cuda::Matrix matrix(const Weight& weight) {
    const auto& w = packed_of(weight);
    cuda::Matrix m = {};
    m.words = next();
    m.scales = next();
    m.biases = next();
    m.cols = quant::cols_of(weight);
    m.bits = w.bits;
    m.group_shift = std::countr_zero(static_cast<unsigned>(w.group_size));
    return m;
  }
  cuda::Stage begin(int kind, int units, int tiles, int cols) const {
    cuda::Stage s = {};
    s.kind = kind;
    s.units = units;
    s.tiles = tiles;
    s.inner_pieces = s.pieces = inner_pieces(cols);
    s.piece_cols = cols / s.pieces;
    s.x_len = cols;
    s.x_at = x_;
    s.dim = s.norm_len = program_.dim;
    s.arrivals = cuda::kChunk / cuda::kRows;
    return s;
  }
  void normalise(cuda::Stage& s, const Norm& norm) {
    s.norm = next();
    s.eps = norm.eps;
  }
  void push(cuda::Stage s) {
    if (s.kind != cuda::kAttend && s.kind != cuda::kMerge) {
      s.units_each = s.units / blocks_;
      s.blocks_more = s.units % blocks_;
      s.row_bytes = s.piece_cols * s.a.bits / 8;
      s.groups = s.piece_cols >> s.a.group_shift;
      s.words_step = 8 * s.row_bytes + 64;
      s.scales_at = 2 * s.words_step;
      s.scales_step = 16 * s.groups + 32;
      head_.slot_bytes = std::max(
          head_.slot_bytes, round_up(s.scales_at + 4 * s.scales_step, 128));
      max_x_ = std::max(max_x_, s.x_len);
      mixed_ |= table.bits != 0 && table.bits != s.a.bits;
      table.bits = s.a.bits;
    }
    stages_.push_back(s);
  }
  // What attend() keeps in shared memory, where vectors are otherwise.
  static int bytes_attended(const cuda::Stage& s) {
    const int group = s.heads / s.kv_heads;
    return (group * (s.head_dim + 4) + 2 * s.head_dim + group * s.chunk_rows +
            group * 4 + 2 * s.chunk_rows * (s.head_dim + 4)) *
        4;
  }
  void finish() {
    // prepare_plain() converts so many at once.
    const int most = round_up(max_x_, 8 * cuda::kConsumers);
    const int digits = most * 4, scales = most / 128 * 4, sums = most / 64 * 4;
    const int red = 2 * cuda::kRedLen * 4;
    const int fixed = std::max(digits + scales + sums + red, attended_);
    head_.num_stages = static_cast<int>(stages_.size());
    head_.dim = program_.dim;
    head_.vocab = program_.vocab;
    head_.exchange_len = table.exchange_len;
    head_.slots = std::min(
        kSlots,
        std::min(kRingBytes, kBlockBytes - cuda::kHeadBytes - fixed) /
            head_.slot_bytes);
    head_.slots_at = cuda::kHeadBytes;
    head_.digits_at = head_.slots_at + head_.slots * head_.slot_bytes;
    head_.scales_at = head_.digits_at + digits;
    head_.sums_at = head_.scales_at + scales;
    head_.red_at = head_.sums_at + sums;
    head_.memory_len = head_.digits_at + fixed;
    table.shared_bytes = head_.memory_len;
    if (mixed_) {
      table.bits = 0;
    }
    table.words.resize(
        (sizeof(head_) + stages_.size() * sizeof(cuda::Stage)) / 4);
    std::memcpy(table.words.data(), &head_, sizeof(head_));
    std::memcpy(
        table.words.data() + sizeof(head_) / 4,
        stages_.data(),
        stages_.size() * sizeof(cuda::Stage));
  }

  const Program& program_;
  const std::vector<uint64_t>& addresses_;
  const int blocks_;
  const Stage* next_ = nullptr;
  size_t at_ = 0; // of addresses
  std::vector<cuda::Stage> stages_;
  cuda::Program head_ = {};
  int x_ = 0, m_ = 0, partials_ = 0; // where vectors are handed on
  int caches_ = 0, hidden_ = 0, chosen_ = 0;
  int max_x_ = 0, attended_ = 0;
  bool routed_ = false, mixed_ = false;
};

} // namespace

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

std::vector<mx::array> arrays_of(const Program& program) {
  std::vector<mx::array> arrays;
  for_each_array(
      program, [&](const mx::array& array) { arrays.push_back(array); });
  return arrays;
}

CudaTable make_cuda_table(
    const Program& program,
    const std::vector<uint64_t>& addresses,
    int blocks) {
  return std::move(Layout(program, addresses, blocks).table);
}

} // namespace zmlx::decode
