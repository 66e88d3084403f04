// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/cuda_table.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <set>

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

int round_up(int value, int to) {
  return (value + to - 1) / to * to;
}

int scheme_of(const quant::QuantizedArrays& weight) {
  switch (weight.scheme) {
    case cpu::Scheme::MXFP4:
      return cuda::kMxfp4;
    case cpu::Scheme::NVFP4:
      return cuda::kNvfp4;
    case cpu::Scheme::MXFP8:
      return cuda::kMxfp8;
    case cpu::Scheme::Affine:
      break;
  }
  return cuda::kAffine;
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

/// Lays the stages out one after the other.
class Layout {
 public:
  Layout(
      const Program& program,
      const std::vector<uint64_t>& addresses,
      int blocks)
      : program_(program), addresses_(addresses), blocks_(blocks) {
    for (size_t i = 0; i < program.stages.size(); ++i) {
      next_ = i + 1 < program.stages.size() ? &program.stages[i + 1] : nullptr;
      std::visit(*this, program.stages[i]);
    }
    finish();
  }

  CudaTable table;

  void operator()(const EmbedStage& stage) {
    head_.embedding = matrix(stage.table);
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
    s.sums_at = sums_ = room(2 * program_.dim);
    x_terms_ = 0;
    const auto* experts = next_ ? std::get_if<ExpertsStage>(next_) : nullptr;
    if (experts && experts->router) {
      // The arrays of the next stage come next.
      const size_t kept = at_;
      s.router_norm = next();
      s.router = matrix(experts->router->weight);
      at_ = kept;
      s.experts = quant::rows_of(experts->router->weight);
      s.terms = program_.dim / cuda::kRows;
      s.logits_at = logits_ = room(2 * (s.experts + 2));
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
      lane_experts_.insert(s.experts <= 32 ? 1 : cuda::kMaxExperts / 32);
      s.top_k = spec.top_k;
      s.terms = program_.dim / cuda::kRows;
      s.logits_at = logits_;
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
    const int pieces = s.inner_pieces * chosen_;
    s.shares = shares_of_hidden(hidden_, routed_ ? chosen_ : 0);
    s.pieces = pieces / s.shares;
    s.sharers = blocks_ / s.shares;
    s.x_len = hidden_ * chosen_;
    s.x_at = m_;
    s.arrivals = cuda::kChunk / 8; // a unit of experts has 8 rows
    s.a = matrix(stage.down);
    s.top_k = routed_ ? chosen_ : 0;
    x_ = s.out_at = sums_;
    x_terms_ = s.shares + 1;
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
    m.scheme = scheme_of(w);
    table.half_scales |= w.scales.dtype() == mx::float16;
    small_rows_ |= m.scheme != cuda::kAffine;
    return m;
  }
  cuda::Stage begin(int kind, int units, int tiles, int cols) const {
    cuda::Stage s = {};
    s.kind = kind;
    s.units = units;
    s.tiles = tiles;
    s.inner_pieces = s.pieces = pieces_of_row(cols);
    s.piece_cols = cols / s.pieces;
    s.x_len = cols;
    s.x_at = x_;
    s.dim = s.norm_len = program_.dim;
    s.shares = 1;
    s.sharers = blocks_;
    s.arrivals = cuda::kChunk / cuda::kRows;
    return s;
  }
  void normalise(cuda::Stage& s, const Norm& norm) {
    s.norm = next();
    s.eps = norm.eps;
    s.sum_terms = x_terms_;
    s.arrivals *= std::max(x_terms_ - 1, 1); // one a share
    s.embeds = stages_.empty();
  }
  void push(cuda::Stage s) {
    if (s.kind != cuda::kAttend && s.kind != cuda::kMerge) {
      s.units_each = s.units / s.sharers;
      s.blocks_more = s.units % s.sharers;
      s.row_bytes = s.piece_cols * s.a.bits / 8;
      const bool biased = s.a.scheme == cuda::kAffine;
      s.scale_bytes = (s.piece_cols >> s.a.group_shift) * (biased ? 2 : 1);
      s.words_step = 8 * s.row_bytes + 64;
      s.scales_at = 2 * s.words_step;
      s.scales_step = biased ? cuda::kScalesStep : 8 * s.scale_bytes + 32;
      head_.slot_bytes = std::max(
          head_.slot_bytes,
          round_up(s.scales_at + (biased ? 4 : 2) * s.scales_step, 128));
      max_x_ = std::max(max_x_, s.x_len / s.shares);
      const bool first = table.bits == 0;
      mixed_bits_ |= !first && table.bits != s.a.bits;
      mixed_schemes_ |= !first && table.scheme != s.a.scheme;
      table.bits = s.a.bits;
      table.scheme = s.a.scheme;
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
    const int digits = max_x_ * 4, scales = max_x_ / 128 * 4,
              sums = max_x_ / 64 * 4;
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
    if (mixed_bits_) {
      table.bits = 0;
    }
    if (lane_experts_.size() == 1) {
      table.lane_experts = *lane_experts_.begin();
    }
    // Code for affine matrices alone takes rows of no others.
    if (mixed_schemes_ || (small_rows_ && table.scheme == cuda::kAffine)) {
      table.scheme = -1;
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
  int x_ = 0, m_ = 0, logits_ = 0, sums_ = 0; // where vectors are handed on
  int x_terms_ = 0; // of the residual stream, if it is sums
  int caches_ = 0, hidden_ = 0, chosen_ = 0;
  int max_x_ = 0, attended_ = 0;
  bool routed_ = false, mixed_bits_ = false, mixed_schemes_ = false;
  bool small_rows_ = false; // some matrix is of small floats
  std::set<int> lane_experts_; // of the routers
};

} // namespace

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
