// SPDX-License-Identifier: MIT
#include "zmlx/model/layers/kept_blocks.h"

#include <algorithm>

namespace zmlx {
namespace {

using Advice = MappedFile::Advice;

/// Rows of words, scales or biases in a file.
struct FileRows {
  FilePlace place;
  size_t row_bytes;
};

/// Rows of a matrix like w from the files of its three arrays; see
/// cpu::ReadRows.
cpu::PackedMatrix read_rows(
    const cpu::PackedMatrix& w,
    const std::vector<FileRows>& arrays,
    int64_t first,
    int64_t count,
    std::vector<char>& buffer) {
  const auto rows = static_cast<size_t>(count);
  size_t total = 0;
  for (const auto& array : arrays) {
    total += rows * array.row_bytes;
  }
  buffer.resize(std::max(buffer.size(), total));
  std::vector<const char*> starts;
  char* to = buffer.data();
  for (const auto& [place, row_bytes] : arrays) {
    const size_t begin = static_cast<size_t>(first) * row_bytes;
    place.file->read(place.offset + begin, rows * row_bytes, to);
    starts.push_back(to);
    to += rows * row_bytes;
  }
  cpu::PackedMatrix part = w;
  part.words = reinterpret_cast<const uint32_t*>(starts[0]);
  part.scales = starts[1];
  part.biases = starts.back(); // the scales again where there are none
  return part;
}

} // namespace

std::shared_ptr<const cpu::RowBlocks> KeptBlocks::get(
    const quant::QuantizedArrays& rows) {
  if (auto kept = blocks_.lock()) {
    return kept;
  }
  const auto count = rows.words.size() / rows.words.shape(-1);
  std::vector<FileRows> arrays;
  std::vector<mx::array> stored = {rows.words, rows.scales};
  if (rows.scheme == cpu::Scheme::Affine) {
    stored.push_back(rows.biases);
  }
  for (const auto& array : stored) {
    const auto place = array.is_available() ? place_of_(array) : std::nullopt;
    if (!place) {
      return nullptr;
    }
    arrays.push_back({*place, array.nbytes() / count});
  }
  const auto matrix = quant::view_of_rows(rows);
  if (!cpu::RowBlocks::fit(matrix)) {
    return nullptr;
  }
  for (const auto& [place, row_bytes] : arrays) {
    place.file->advise(Advice::kWillNeed, place.offset, count * row_bytes);
  }
  auto made = std::make_shared<const cpu::RowBlocks>(
      matrix,
      static_cast<int64_t>(count) / matrix.rows,
      [&](int64_t first, int64_t some, std::vector<char>& buffer) {
        return read_rows(matrix, arrays, first, some, buffer);
      });
  blocks_ = made;
  return made;
}

void KeptBlocks::let_go(const std::vector<mx::array>& rows) const {
  if (blocks_.expired()) {
    return;
  }
  for (const auto& array : rows) {
    if (const auto place = place_of_(array)) {
      place->file->advise(Advice::kDontNeed, place->offset, array.nbytes());
    }
  }
}

} // namespace zmlx
