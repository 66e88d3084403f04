// SPDX-License-Identifier: MIT
#include "zmlx/model/layers/kept_blocks.h"

namespace zmlx {

std::shared_ptr<const cpu::RowBlocks> KeptBlocks::get(
    const quant::QuantizedArrays& rows) {
  if (auto kept = blocks_.lock()) {
    return kept;
  }
  const std::vector<mx::array> arrays = {rows.words, rows.scales, rows.biases};
  for (const auto& array : arrays) {
    if (!array.is_available() || !advise_(array, true)) {
      return nullptr;
    }
  }
  const auto matrix = quant::view_of_rows(rows);
  if (!cpu::RowBlocks::fit(matrix)) {
    return nullptr;
  }
  const auto count =
      static_cast<int64_t>(rows.words.size()) / rows.words.shape(-1);
  auto made =
      std::make_shared<const cpu::RowBlocks>(matrix, count / matrix.rows);
  blocks_ = made;
  let_go(arrays);
  return made;
}

void KeptBlocks::let_go(const std::vector<mx::array>& rows) const {
  if (blocks_.expired()) {
    return;
  }
  for (const auto& array : rows) {
    advise_(array, false);
  }
}

} // namespace zmlx
