// SPDX-License-Identifier: MIT
#include "zmlx/model/layers/kept_blocks.h"

#include <algorithm>

#include "zmlx/runtime/lazy_array.h"

namespace zmlx {

using Advice = MappedFile::Advice;

KeptBlocks::KeptBlocks(quant::QuantizedArrays rows, const FindPlace& place_of)
    : rows_(std::move(rows)),
      count_(rows_.words.size() / static_cast<size_t>(rows_.words.shape(-1))) {
  std::vector<mx::array> stored = {rows_.words, rows_.scales};
  if (rows_.scheme == cpu::Scheme::Affine) {
    stored.push_back(rows_.biases);
  }
  for (const auto& array : stored) {
    auto place = place_of(array);
    if (!place) {
      in_file_.clear();
      return;
    }
    in_file_.push_back({*std::move(place), array.nbytes()});
  }
}

// Rows [first, first + count) of a matrix of this shape; see cpu::ReadRows.
cpu::PackedMatrix KeptBlocks::read(
    const cpu::PackedMatrix& shape,
    int64_t first,
    int64_t count,
    std::vector<char>& buffer) const {
  const auto rows = static_cast<size_t>(count);
  size_t total = 0;
  for (const auto& array : in_file_) {
    total += rows * (array.bytes / count_);
  }
  buffer.resize(std::max(buffer.size(), total));
  std::vector<const char*> starts;
  char* to = buffer.data();
  for (const auto& [place, bytes] : in_file_) {
    const size_t a_row = bytes / count_;
    const size_t begin = static_cast<size_t>(first) * a_row;
    place.file->read(place.offset + begin, rows * a_row, to);
    starts.push_back(to);
    to += rows * a_row;
  }
  cpu::PackedMatrix part = shape;
  part.words = reinterpret_cast<const uint32_t*>(starts[0]);
  part.scales = starts[1];
  part.biases = starts.back(); // the scales again where there are none
  return part;
}

std::shared_ptr<const cpu::RowBlocks> KeptBlocks::get() {
  if (auto made = held()) {
    return made;
  }
  const auto shape = quant::shape_of(rows_);
  if (in_file_.empty() || !cpu::RowBlocks::fit(shape)) {
    return nullptr;
  }
  for (const auto& [place, bytes] : in_file_) {
    place.file->advise(Advice::kWillNeed, place.offset, bytes);
  }
  auto made = std::make_shared<const cpu::RowBlocks>(
      shape,
      static_cast<int64_t>(count_) / shape.rows,
      [&](int64_t first, int64_t some, std::vector<char>& buffer) {
        return read(shape, first, some, buffer);
      });
  blocks_ = made;
  return made;
}

quant::QuantizedArrays KeptBlocks::rows() const {
  auto rows = rows_;
  for (auto* array : {&rows.words, &rows.scales, &rows.biases}) {
    *array = unevaluated(*array);
  }
  return rows;
}

void KeptBlocks::let_go() const {
  for (const auto& [place, bytes] : in_file_) {
    place.file->advise(Advice::kDontNeed, place.offset, bytes);
  }
}

} // namespace zmlx
