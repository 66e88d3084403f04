// SPDX-License-Identifier: MIT
// What families build their modules from: a checkpoint's tensors by path, with
// shapes checked, and its configuration with typed reads.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "zmlx/model/checkpoint/checkpoint.h"
#include "zmlx/model/layers/linear.h"
#include "zmlx/model/layers/norm.h"

namespace zmlx {

/// The most that config.json may say of a width or a vocabulary.
constexpr int kMostFeatures = 1 << 24;

/// Typed reads of config.json. Errors name the file and the key.
class Config {
 public:
  Config(const Json& json, std::string path)
      : json_(json), path_(std::move(path)) {}

  /// An integer in [low, high].
  int integer(const std::string& key, int low, int high) const;
  int integer(const std::string& key, int low, int high, int otherwise) const;
  float number(const std::string& key, std::optional<float> otherwise) const;
  bool flag(const std::string& key, std::optional<bool> otherwise) const;
  std::string text(const std::string& key, const std::string& otherwise) const;
  /// A member that may be absent or null.
  const Json* find(const std::string& key) const;
  const std::string& path() const {
    return path_;
  }

 private:
  const Json& at(const std::string& key) const;

  const Json& json_;
  std::string path_;
};

/// Tensors by name, and how the layers at their paths are packed.
struct TensorSource {
  std::string origin; // where they are from, for errors
  std::map<std::string, mx::array> tensors;
  std::function<std::optional<Quantization>(const std::string& path)>
      quantization_of;
  /// Set where fused modules shall read weights in blocks.
  FindPlace place_of = nullptr;

  /// The checkpoint must outlive it.
  static TensorSource of(const Checkpoint& checkpoint);
};

/// Hands out a model's parameters and remembers which were taken.
class Weights {
 public:
  Weights(TensorSource source, mx::Dtype dtype)
      : source_(std::move(source)), dtype_(dtype) {}

  bool has(const std::string& name) const;
  /// A tensor of just this shape.
  mx::array take(const std::string& name, const mx::Shape& shape);
  Parameter parameter(const std::string& name, const mx::Shape& shape);
  /// path.weight in either form; shape is that of the dense weight.
  std::variant<DenseWeight, PackedWeight> matrix(
      const std::string& path,
      const mx::Shape& shape);
  LayerSlot linear(const std::string& path, int out, int in, bool bias);
  LayerSlot rms_norm(const std::string& path, int dim, float eps);
  std::unique_ptr<Embedding>
  embedding(const std::string& path, int rows, int dim);

  /// Changes of layout, as mlx_lm's sanitize makes them.
  std::vector<std::string> names() const;
  const mx::array& tensor(const std::string& name) const;
  void replace(const std::string& name, mx::array tensor);
  void rename(const std::string& from, const std::string& to);
  mx::array remove(const std::string& name);

  /// Throws FileError when there are tensors that nothing took.
  void expect_all_taken() const;

  mx::Dtype dtype() const {
    return dtype_;
  }
  const std::string& origin() const {
    return source_.origin;
  }

 private:
  PackedWeight packed(const std::string& path, const mx::Shape& shape);

  TensorSource source_;
  mx::Dtype dtype_;
  std::set<std::string> taken_;
};

} // namespace zmlx
