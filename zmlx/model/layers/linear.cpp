// SPDX-License-Identifier: MIT
#include "zmlx/model/layers/linear.h"

#include "zmlx/kernels/common/rows_of_blocks.h"

namespace zmlx {
namespace {

std::optional<mx::array> biases_of(const PackedWeight& weight) {
  return weight.biases ? std::optional(weight.biases->value()) : std::nullopt;
}

mx::array plus(mx::array y, const std::optional<Parameter>& bias) {
  return bias ? mx::add(y, bias->value()) : y;
}

} // namespace

void PackedWeight::keep_blocks(const FindPlace& place_of) {
  const auto scheme = quant::scheme_named(mode);
  if (!scheme) {
    return;
  }
  blocks = std::make_shared<KeptBlocks>(
      quant::QuantizedArrays{
          packed,
          scales.stored(),
          (biases ? *biases : scales).stored(),
          bits,
          group_size,
          *scheme},
      place_of);
  take_rows();
}

void PackedWeight::take_rows() {
  auto rows = blocks->rows();
  packed = std::move(rows.words);
  scales = Parameter(std::move(rows.scales), scales.value().dtype());
  if (biases) {
    biases = Parameter(std::move(rows.biases), biases->value().dtype());
  }
}

void PackedWeight::release() {
  if (blocks && blocks->held()) {
    take_rows();
    blocks->let_go();
    return;
  }
  scales.release();
  if (biases) {
    biases->release();
  }
}

std::shared_ptr<const cpu::RowBlocks> PackedWeight::held_blocks() const {
  return blocks ? blocks->held() : quant::blocks_behind(packed);
}

mx::array Linear::forward(const mx::array& x) const {
  return plus(mx::matmul(x, mx::transpose(weight.weight.value())), bias);
}

mx::array QuantizedLinear::forward(const mx::array& x) const {
  return plus(
      mx::quantized_matmul(
          x,
          weight.packed,
          weight.scales.value(),
          biases_of(weight),
          /* transpose */ true,
          weight.group_size,
          weight.bits,
          weight.mode),
      bias);
}

mx::array Embedding::lookup(const mx::array& ids) const {
  if (const auto* dense = std::get_if<DenseWeight>(&weight)) {
    return mx::astype(mx::take(dense->weight.stored(), ids, 0), dtype_);
  }
  // Rows are gathered as stored and only they are cast: the same values as a
  // cast of the whole table, without holding it.
  const auto& packed = std::get<PackedWeight>(weight);
  if (const auto blocks = packed.held_blocks()) {
    return quant::values_at(blocks, ids, dtype_);
  }
  auto rows = [&](const Parameter& table) {
    auto taken = mx::take(table.stored(), ids, 0);
    return packed.mode == "affine" ? mx::astype(taken, dtype_) : taken;
  };
  std::optional<mx::array> biases;
  if (packed.biases) {
    biases = rows(*packed.biases);
  }
  return mx::dequantize(
      mx::take(packed.packed, ids, 0),
      rows(packed.scales),
      biases,
      packed.group_size,
      packed.bits,
      packed.mode,
      std::nullopt,
      dtype_);
}

LayerSlot Embedding::as_linear() const {
  if (const auto* dense = std::get_if<DenseWeight>(&weight)) {
    return std::make_shared<Linear>(*dense);
  }
  return std::make_shared<QuantizedLinear>(std::get<PackedWeight>(weight));
}

mx::array SwitchLinear::forward(
    const mx::array& x,
    const mx::array& indices,
    bool sorted) const {
  if (const auto* dense = std::get_if<DenseWeight>(&weight)) {
    return mx::gather_mm(
        x,
        mx::swapaxes(dense->weight.value(), -1, -2),
        std::nullopt,
        indices,
        sorted);
  }
  const auto& packed = std::get<PackedWeight>(weight);
  return mx::gather_qmm(
      x,
      packed.packed,
      packed.scales.value(),
      biases_of(packed),
      std::nullopt,
      indices,
      /* transpose */ true,
      packed.group_size,
      packed.bits,
      packed.mode,
      std::nullopt,
      sorted);
}

} // namespace zmlx
