// SPDX-License-Identifier: MIT
// A model folder in MLX or Hugging Face layout: its configuration and tensors.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "zmlx/base/json.h"
#include "zmlx/base/mapped_file.h"
#include "zmlx/model/checkpoint/quantization.h"
#include "zmlx/model/checkpoint/safetensors.h"

namespace zmlx {

/// A folder whose files have been checked. Weights are mapped, not read: a
/// tensor costs its memory when its values are first used. Const use from many
/// threads is safe.
class Checkpoint {
 public:
  /// Opens a folder that holds config.json and model*.safetensors (one or many;
  /// model.safetensors.index.json, where present, must agree with them) and
  /// maybe generation_config.json. Throws FileError naming the file, what must
  /// hold and what came.
  static Checkpoint open(const std::string& folder);

  const std::string& folder() const {
    return folder_;
  }
  /// config.json, an object.
  const Json& config() const {
    return config_;
  }
  /// The end-of-text tokens: generation_config.json's, else config.json's.
  const std::vector<int>& eos_ids() const {
    return eos_ids_;
  }
  /// Paths of the safetensors files, sorted.
  std::vector<std::string> files() const;

  bool has(const std::string& name) const {
    return places_.count(name) != 0;
  }
  /// Every tensor's name, sorted.
  std::vector<std::string> names() const;
  /// Shape, dtype and place. Throws FileError when there is no such tensor.
  const TensorInfo& info(const std::string& name) const;
  /// The tensor as stored, on CPU a view of the file where alignment allows, or
  /// read when it is evaluated; see mapped_array().
  /// Throws FileError when there is no such tensor.
  mx::array tensor(const std::string& name) const;
  /// Bytes of all tensors as stored.
  uint64_t total_bytes() const {
    return total_bytes_;
  }

  /// Reads files of 64 MB and more into memory of huge pages where the system
  /// has them, instead of looking into their maps; arrays taken before stay
  /// with the maps. Throws FileError when reading fails.
  void read_into_memory();

  /// The mapped file in which an array's values lie, and where; none when they
  /// are in memory of their own.
  std::optional<FilePlace> place_of(const mx::array& array) const;

  /// What holds for layers that the configuration does not name.
  const std::optional<Quantization>& quantization() const {
    return quantization_.standard;
  }
  /// How the layer at a path such as "model.layers.0.conv.in_proj" is
  /// quantised; none when it has no "<path>.scales" or is set to false. Throws
  /// FileError when scales, biases and weight do not fit what is configured.
  std::optional<Quantization> quantization_of(const std::string& path) const;

  /// 32 hex digits that name this model: XXH3-128 over config.json as written,
  /// and for each file its name, size, header, and 64 evenly spaced blocks of
  /// 4 KiB of its data, first and last included. Not a checksum of every byte.
  std::string hash() const;

 private:
  struct File {
    std::shared_ptr<const MappedFile> map;
    SafetensorsHeader header;
  };
  struct Place {
    size_t file, tensor;
  };

  void read_config();
  void open_files();
  void check_index() const;
  void check_packing(const std::string& path, const Quantization& layer) const;

  std::string folder_;
  std::string config_text_;
  Json config_;
  std::vector<int> eos_ids_;
  QuantizationTable quantization_;
  std::vector<File> files_;
  std::unordered_map<std::string, Place> places_;
  uint64_t total_bytes_ = 0;
};

} // namespace zmlx
