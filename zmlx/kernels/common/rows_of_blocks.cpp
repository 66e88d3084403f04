// SPDX-License-Identifier: MIT
#include "zmlx/kernels/common/rows_of_blocks.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>

#include "zmlx/kernels/common/matvec.h"
#include "zmlx/kernels/common/rows.h"
#include "zmlx/runtime/cpu_op.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx::quant {
namespace {

// Two arrays of float32 in 16 bits, where those hold every value.
std::optional<std::array<mx::array, 2>> narrowed(
    const mx::array& scales,
    const mx::array& biases) {
  for (const auto dtype : {mx::bfloat16, mx::float16}) {
    const mx::array s = mx::astype(scales, dtype),
                    b = mx::astype(biases, dtype);
    // By bits, so that NaN and -0 count as what they are.
    const auto kept = [](const mx::array& narrow, const mx::array& wide) {
      return mx::array_equal(
          mx::view(mx::astype(narrow, mx::float32), mx::uint32),
          mx::view(wide, mx::uint32));
    };
    const mx::array both = mx::logical_and(kept(s, scales), kept(b, biases));
    if (mx::array(both).item<bool>()) {
      return std::array{s, b};
    }
  }
  return std::nullopt;
}

/// Calls task(block) for each of `count` blocks, on the library's team.
template <class Task>
void for_each_block(int64_t count, const Task& task) {
  constexpr int64_t kAtOnce = 16;
  std::atomic<int64_t> next{0};
  thread_team()->run([&](int) {
    for (int64_t first; (first = next.fetch_add(kAtOnce)) < count;) {
      for (int64_t b = first; b < std::min(count, first + kAtOnce); ++b) {
        task(b);
      }
    }
  });
}

void unpack_words(const cpu::PackedMatrix& w, int64_t count, uint32_t* out) {
  const int64_t fields = w.words_per_group(), stride = w.word_stride();
  for_each_block(count, [&](int64_t b) {
    for (int64_t r = 0; r < cpu::kBlockRows; ++r) {
      const int64_t row = b * cpu::kBlockRows + r;
      uint32_t* to = out + row * w.words_per_row();
      for (int64_t g = 0; g < w.groups_per_row(); ++g) {
        const uint32_t* from = w.group_words(row, g);
        for (int64_t k = 0; k < fields; ++k) {
          *to++ = from[k * stride];
        }
      }
    }
  });
}

// Scales (shift 0) or biases (shift 16), each through `as`.
template <class To, class As>
void unpack_groups(
    const cpu::PackedMatrix& w,
    int64_t count,
    int shift,
    To* out,
    const As& as) {
  for_each_block(count, [&](int64_t b) {
    for (int64_t r = 0; r < cpu::kBlockRows; ++r) {
      const int64_t row = b * cpu::kBlockRows + r;
      To* to = out + row * w.groups_per_row();
      for (int64_t g = 0; g < w.groups_per_row(); ++g) {
        to[g] = as(static_cast<uint16_t>(*w.unit(row, g) >> shift));
      }
    }
  });
}

template <class Half>
float widened(uint16_t bits) {
  Half half;
  std::memcpy(&half, &bits, sizeof(half));
  return static_cast<float>(half);
}

} // namespace

/// One of the arrays.
class RowsOfBlocks::Unpacking : public ArraySource {
 public:
  Unpacking(std::shared_ptr<const RowsOfBlocks> rows, Part part)
      : rows(std::move(rows)), part_(part) {}

  void fill(mx::array& out) const override {
    rows->unpack(part_, out);
  }

  const std::shared_ptr<const RowsOfBlocks> rows;

 private:
  Part part_;
};

std::shared_ptr<const RowsOfBlocks> RowsOfBlocks::pack(
    const QuantizedArrays& w) {
  if (w.scheme != cpu::Scheme::Affine) {
    return nullptr; // units of several groups are not unpacked here
  }
  QuantizedArrays narrow = w;
  narrow.blocks = nullptr;
  if (w.scales.dtype() == mx::float32) {
    const auto halves = narrowed(w.scales, w.biases);
    if (!halves) {
      return nullptr;
    }
    narrow.scales = (*halves)[0];
    narrow.biases = (*halves)[1];
  }
  for (auto* array : {&narrow.words, &narrow.scales, &narrow.biases}) {
    *array = row_contiguous(*array);
    array->eval();
  }
  const auto matrix = view_of_rows(narrow);
  if (!cpu::RowBlocks::fit(matrix)) {
    return nullptr;
  }
  const auto rows = static_cast<int64_t>(w.words.size()) / w.words.shape(-1);
  std::shared_ptr<RowsOfBlocks> made(new RowsOfBlocks);
  made->blocks_ =
      std::make_shared<const cpu::RowBlocks>(matrix, rows / matrix.rows);
  made->word_shape_ = w.words.shape();
  made->group_shape_ = w.scales.shape();
  made->group_dtype_ = w.scales.dtype();
  return made;
}

mx::array RowsOfBlocks::rows(Part part) const {
  const bool words = part == Part::Words;
  return lazy_array(
      words ? word_shape_ : group_shape_,
      words ? mx::uint32 : group_dtype_,
      std::make_shared<Unpacking>(shared_from_this(), part));
}

void RowsOfBlocks::unpack(Part part, mx::array& out) const {
  const cpu::PackedMatrix& w = blocks_->matrix();
  const auto rows = static_cast<int64_t>(out.size()) / out.shape(-1);
  const int64_t count = rows / cpu::kBlockRows;
  if (part == Part::Words) {
    unpack_words(w, count, out.data<uint32_t>());
    return;
  }
  const int shift = part == Part::Scales ? 0 : 16;
  if (out.dtype() != mx::float32) {
    unpack_groups(w, count, shift, out.data<uint16_t>(), [](uint16_t bits) {
      return bits;
    });
    return;
  }
  unpack_groups(
      w,
      count,
      shift,
      out.data<float>(),
      w.float_type == cpu::FloatType::BF16 ? widened<mx::bfloat16_t>
                                           : widened<mx::float16_t>);
}

std::shared_ptr<const cpu::RowBlocks> blocks_behind(const mx::array& array) {
  const auto* unpacking =
      dynamic_cast<const RowsOfBlocks::Unpacking*>(source_of(array));
  return unpacking ? unpacking->rows->blocks() : nullptr;
}

bool is_unpacking(const mx::array& array) {
  return blocks_behind(array) != nullptr;
}

mx::array values_at(
    const std::shared_ptr<const cpu::RowBlocks>& matrix,
    const mx::array& ids,
    mx::Dtype dtype) {
  mx::Shape shape = ids.shape();
  shape.push_back(static_cast<int>(matrix->matrix().cols));
  const auto run = [matrix](const auto& in, auto& out) {
    const cpu::PackedMatrix& w = matrix->matrix();
    std::vector<float> row(static_cast<size_t>(w.cols));
    const auto* ids = in[0].template data<int64_t>();
    for (int64_t i = 0; i < static_cast<int64_t>(in[0].size()); ++i) {
      const int64_t id = ids[i] + (ids[i] < 0 ? w.rows : 0);
      if (id >= 0 && id < w.rows) {
        cpu::dequantize_row(w, id, row.data());
      } else {
        std::fill(row.begin(), row.end(), NAN);
      }
      store_row(out[0], i, row.data(), w.cols);
    }
  };
  return cpu_op(
      "RowsOfBlocks",
      {mx::contiguous(mx::astype(ids, mx::int64))},
      {{std::move(shape), dtype}},
      run)[0];
}

} // namespace zmlx::quant
