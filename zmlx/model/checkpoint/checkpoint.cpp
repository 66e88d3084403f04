// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <system_error>

#include "zmlx/base/error.h"
#include "zmlx/base/text.h"
#include "zmlx/model/checkpoint/mapped_array.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndexName = "model.safetensors.index.json";

std::string name_of_file(const std::string& path) {
  return fs::path(path).filename().string();
}

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// What stands in a folder that could be a model in another format.
std::string other_format(const std::vector<std::string>& names) {
  for (const auto& name : names) {
    for (const char* ending : {".gguf", ".bin", ".npz", ".pth", ".pt"}) {
      if (fs::path(name).extension() == ending) {
        return concat(
            " It holds ",
            shown_name(name),
            ", another format. Try: "
            "mlx_lm.convert on the original model.");
      }
    }
  }
  return "";
}

// As mlx_lm does: glob("model*.safetensors"), sorted.
std::vector<std::string> weight_files(const std::string& folder) {
  std::vector<std::string> found, others;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const bool ours = name.rfind("model", 0) == 0 &&
        fs::path(name).extension() == ".safetensors";
    (ours ? found : others).push_back(ours ? entry->path().string() : name);
  }
  if (error) {
    bad_file(folder, "cannot be listed: ", error.message(), ".");
  }
  if (found.empty()) {
    std::sort(others.begin(), others.end());
    bad_file(folder, "holds no model*.safetensors.", other_format(others));
  }
  std::sort(found.begin(), found.end());
  return found;
}

int token_id(const Json& value, const std::string& origin) {
  if (!value.is_number_integer() || value < 0 ||
      value > std::numeric_limits<int>::max()) {
    bad_file(
        origin,
        "eos_token_id must be a token id or a list of them, got ",
        value.dump(),
        ".");
  }
  return value.get<int>();
}

std::vector<int> read_eos_ids(const Json& object, const std::string& origin) {
  std::vector<int> ids;
  const auto found = object.find("eos_token_id");
  if (found == object.end() || found->is_null()) {
    return ids;
  }
  if (!found->is_array()) {
    return {token_id(*found, origin)};
  }
  for (const auto& value : *found) {
    ids.push_back(token_id(value, origin));
  }
  return ids;
}

Json object_of(std::string_view text, const std::string& path) {
  Json json = parse_json(text, path);
  if (!json.is_object()) {
    bad_file(path, "must hold a JSON object, got ", json.type_name(), ".");
  }
  return json;
}

} // namespace

Checkpoint Checkpoint::open(const std::string& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    bad_file(folder, "must be a folder that holds a model.");
  }
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  checkpoint.read_config();
  checkpoint.open_files();
  checkpoint.check_index();
  return checkpoint;
}

void Checkpoint::read_config() {
  const fs::path folder(folder_);
  const std::string path = (folder / "config.json").string();
  if (!is_there(path)) {
    bad_file(folder_, "holds no config.json.");
  }
  config_text_ = read_file(path);
  config_ = object_of(config_text_, path);
  if (config_.contains("model_file") && !config_["model_file"].is_null()) {
    bad_file(
        path,
        "must describe a built-in model family, got 'model_file' ",
        config_["model_file"].dump(),
        ", Python code that is never run.");
  }
  quantization_ = read_quantization(config_, path);
  eos_ids_ = read_eos_ids(config_, path);
  const std::string generation = (folder / "generation_config.json").string();
  if (is_there(generation)) {
    const Json json = object_of(read_file(generation), generation);
    auto ids = read_eos_ids(json, generation);
    if (!ids.empty()) {
      eos_ids_ = std::move(ids);
    }
  }
}

void Checkpoint::open_files() {
  for (const auto& path : weight_files(folder_)) {
    auto map = std::make_shared<const MappedFile>(path);
    auto header = read_safetensors_header(map->text(), path);
    files_.push_back({std::move(map), std::move(header)});
  }
  for (size_t i = 0; i < files_.size(); ++i) {
    const auto& tensors = files_[i].header.tensors;
    for (size_t j = 0; j < tensors.size(); ++j) {
      const auto [entry, added] =
          places_.try_emplace(tensors[j].name, Place{i, j});
      if (!added) {
        bad_file(
            folder_,
            "each tensor must stand in one file, got ",
            shown_name(tensors[j].name),
            " in ",
            name_of_file(files_[entry->second.file].map->path()),
            " and ",
            name_of_file(files_[i].map->path()),
            ".");
      }
      total_bytes_ += tensors[j].end - tensors[j].begin;
    }
  }
}

void Checkpoint::check_index() const {
  const std::string path = (fs::path(folder_) / kIndexName).string();
  if (!is_there(path)) {
    return;
  }
  const Json index = object_of(read_file(path), path);
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) {
    bad_file(path, "must hold an object 'weight_map'.");
  }
  for (const auto& [name, value] : map->items()) {
    if (!value.is_string()) {
      bad_file(
          path,
          "weight_map must give a file name for ",
          shown_name(name),
          ", got ",
          value.type_name(),
          ".");
    }
    const auto& file = value.get_ref<const std::string&>();
    if (file.empty() || file == "." || file == ".." ||
        file.find_first_of(std::string_view("/\\\0", 3)) != file.npos) {
      bad_file(
          path,
          "weight_map must name files of this folder only, got ",
          shown_name(file),
          " for ",
          shown_name(name),
          ".");
    }
    const auto found = places_.find(name);
    if (found != places_.end() &&
        name_of_file(files_[found->second.file].map->path()) == file) {
      continue;
    }
    if (!is_there(fs::path(folder_) / file)) {
      bad_file(
          path,
          "every file of weight_map must exist, got ",
          shown_name(file),
          ", which is missing. Try: download the model again.");
    }
    bad_file(
        path,
        "weight_map must agree with the files, got ",
        shown_name(file),
        " for ",
        shown_name(name),
        ", which is in ",
        found == places_.end()
            ? "no model*.safetensors"
            : name_of_file(files_[found->second.file].map->path()),
        ".");
  }
  if (map->size() != places_.size()) {
    std::unordered_map<std::string_view, bool> listed;
    for (const auto& [name, value] : map->items()) {
      listed[name] = true;
    }
    for (const auto& name : names()) {
      if (listed.count(name) == 0) {
        bad_file(
            path,
            "weight_map must name every tensor, but ",
            shown_name(name),
            " of ",
            name_of_file(files_[places_.at(name).file].map->path()),
            " is missing.");
      }
    }
  }
}

std::vector<std::string> Checkpoint::files() const {
  std::vector<std::string> paths;
  for (const auto& file : files_) {
    paths.push_back(file.map->path());
  }
  return paths;
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  names.reserve(places_.size());
  for (const auto& [name, place] : places_) {
    names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

const TensorInfo& Checkpoint::info(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) {
    bad_file(
        folder_,
        "must hold a tensor ",
        shown_name(name),
        ", but has none of ",
        places_.size(),
        " by that name.",
        did_you_mean(name, names()));
  }
  return files_[found->second.file].header.tensors[found->second.tensor];
}

void Checkpoint::read_into_memory() {
  constexpr size_t kWorthIt = size_t{64} << 20; // the TLBs reach about as far
  for (auto& file : files_) {
    const auto& tensors = file.header.tensors;
    if (file.map->size() < kWorthIt || tensors.empty()) {
      continue;
    }
    const auto first = std::min_element(
        tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
          return a.begin < b.begin;
        });
    auto map = std::make_shared<MappedFile>(file.map->path());
    if (map->read_into_huge_pages(first->begin)) {
      file.map = std::move(map);
    }
  }
}

std::optional<FilePlace> Checkpoint::place_of(const mx::array& array) const {
  if (!array.is_available()) {
    return unread_bytes(array);
  }
  const char* begin = array.data<char>();
  for (const auto& file : files_) {
    const char* data = file.map->data();
    if (file.map->is_mapped() && begin >= data &&
        begin + array.nbytes() <= data + file.map->size()) {
      return FilePlace{file.map, static_cast<size_t>(begin - data)};
    }
  }
  return std::nullopt;
}

mx::array Checkpoint::tensor(const std::string& name) const {
  const TensorInfo& tensor = info(name);
  return mapped_array(
      files_[places_.at(name).file].map,
      tensor.begin,
      tensor.shape,
      tensor.dtype);
}

std::optional<Quantization> Checkpoint::quantization_of(
    const std::string& path) const {
  if (!has(path + ".scales")) {
    return std::nullopt;
  }
  const auto found = quantization_.layers.find(path);
  const auto& layer = found != quantization_.layers.end()
      ? found->second
      : quantization_.standard;
  if (found == quantization_.layers.end() && !layer) {
    bad_file(
        folder_,
        "config.json must have a 'quantization' block, since ",
        shown_name(path + ".scales"),
        " is there.");
  }
  if (layer) {
    check_packing(path, *layer);
  }
  return layer;
}

// Weights, scales and biases must describe the same number of inputs, or the
// values would be read wrongly without a word.
void Checkpoint::check_packing(
    const std::string& path,
    const Quantization& layer) const {
  const TensorInfo& weight = info(path + ".weight");
  const TensorInfo& scales = info(path + ".scales");
  const bool affine = layer.mode == "affine";
  const bool integral = scales.dtype == mx::uint8;
  if (integral == affine || weight.dtype != mx::uint32) {
    bad_file(
        folder_,
        shown_name(path),
        " of mode ",
        layer.mode,
        " must have uint32 weights and ",
        affine ? "float" : "uint8",
        " scales, got another type. Try: check 'quantization' in config.json.");
  }
  if (affine && info(path + ".biases").shape != scales.shape) {
    bad_file(
        folder_,
        shown_name(path),
        " must have biases shaped as its scales ",
        scales.shape,
        ", got ",
        info(path + ".biases").shape,
        ".");
  }
  const auto same_rows = [&] {
    return weight.shape.size() == scales.shape.size() &&
        weight.shape.size() >= 2 &&
        std::equal(
               weight.shape.begin(),
               weight.shape.end() - 1,
               scales.shape.begin());
  };
  if (!same_rows() ||
      int64_t(weight.shape.back()) * 32 !=
          int64_t(scales.shape.back()) * layer.group_size * layer.bits) {
    bad_file(
        folder_,
        shown_name(path),
        " of ",
        layer.bits,
        " bits in groups of ",
        layer.group_size,
        " must have weight and scales for the same inputs, "
        "got ",
        weight.shape,
        " and ",
        scales.shape,
        ".");
  }
}

} // namespace zmlx
