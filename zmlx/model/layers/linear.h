// SPDX-License-Identifier: MIT
// Linear layers and embeddings, dense or in MLX's packing.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "zmlx/model/layers/kept_blocks.h"
#include "zmlx/model/layers/parameter.h"
#include "zmlx/model/module.h"

namespace zmlx {

/// y = x W^T + b. weight: (out, in), or (experts, out, in) in a switch layer.
struct DenseWeight {
  Parameter weight;

  void release() {
    weight.release();
  }
};

/// W in MLX's packing, mlx.core.quantize. packed: (..., out, in * bits / 32)
/// uint32; scales and biases: (..., out, in / group_size); the floating-point
/// modes have no biases and uint8 scales.
struct PackedWeight {
  mx::array packed;
  Parameter scales;
  std::optional<Parameter> biases;
  int bits = 4;
  int group_size = 64;
  std::string mode = "affine";
  /// Null where fused modules read the arrays as they are.
  std::shared_ptr<KeptBlocks> blocks = nullptr;

  /// Columns of the matrix.
  int cols() const {
    return static_cast<int>(int64_t{packed.shape(-1)} * 32 / bits);
  }
  /// Lets fused modules read blocks, made of the arrays as they are now.
  void keep_blocks(const FindPlace& place_of);
  /// Forgets casts, and what is in memory of arrays that blocks stand for.
  void release();
  /// The blocks that fused modules read now, or null.
  std::shared_ptr<const cpu::RowBlocks> held_blocks() const;

 private:
  void take_rows();
};

/// mlx.nn.Linear without quantisation.
class Linear : public Layer {
 public:
  explicit Linear(DenseWeight weight, std::optional<Parameter> bias = {})
      : weight(std::move(weight)), bias(std::move(bias)) {}
  std::string_view kind() const override {
    return "Linear";
  }
  mx::array forward(const mx::array& x) const override;
  void release() override {
    weight.release();
  }

  DenseWeight weight;
  std::optional<Parameter> bias;
};

/// mlx.nn.QuantizedLinear.
class QuantizedLinear : public Layer {
 public:
  explicit QuantizedLinear(
      PackedWeight weight,
      std::optional<Parameter> bias = {})
      : weight(std::move(weight)), bias(std::move(bias)) {}
  std::string_view kind() const override {
    return "QuantizedLinear";
  }
  mx::array forward(const mx::array& x) const override;
  void release() override {
    weight.release();
  }

  PackedWeight weight;
  std::optional<Parameter> bias;
};

/// mlx.nn.Embedding and QuantizedEmbedding: a row of weight for each id.
class Embedding : public Module {
 public:
  Embedding(std::variant<DenseWeight, PackedWeight> weight, mx::Dtype dtype)
      : weight(std::move(weight)), dtype_(dtype) {}
  std::string_view kind() const override {
    return std::holds_alternative<PackedWeight>(weight) ? "QuantizedEmbedding"
                                                        : "Embedding";
  }
  /// ids (...) of any integer type to (..., dim).
  mx::array lookup(const mx::array& ids) const;

  /// The output head that shares this weight.
  LayerSlot as_linear() const;
  void release() override {
    std::visit([](auto& w) { w.release(); }, weight);
  }

  std::variant<DenseWeight, PackedWeight> weight;

 private:
  mx::Dtype dtype_;
};

/// mlx_lm's SwitchLinear and QuantizedSwitchLinear: one matrix an expert.
class SwitchLinear : public Module {
 public:
  explicit SwitchLinear(std::variant<DenseWeight, PackedWeight> weight)
      : weight(std::move(weight)) {}
  std::string_view kind() const override {
    return std::holds_alternative<PackedWeight>(weight)
        ? "QuantizedSwitchLinear"
        : "SwitchLinear";
  }
  /// x (..., 1, in) by the expert of indices (...): (..., 1, out).
  mx::array forward(const mx::array& x, const mx::array& indices, bool sorted)
      const;
  void release() override {
    std::visit([](auto& w) { w.release(); }, weight);
  }

  std::variant<DenseWeight, PackedWeight> weight;
};

} // namespace zmlx
