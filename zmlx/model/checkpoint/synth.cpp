// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/synth.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <system_error>

#include "zmlx/base/error.h"
#include "zmlx/base/text.h"
#include "zmlx/model/checkpoint/safetensors_writer.h"
#include "zmlx/model/checkpoint/synth_values.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOp = "synth";

const SynthShape& find_shape(const std::string& name) {
  for (const auto& shape : synth_shape_table()) {
    if (name == shape.name) {
      return shape;
    }
  }
  invalid(
      kOp,
      "shape must be one of ",
      join(synth_shapes(), ", "),
      ", got ",
      shown_name(name),
      ".",
      did_you_mean(name, synth_shapes()));
}

Quantization read_packing(const SynthOptions& options) {
  Quantization packing = default_quantization(options.mode);
  packing.bits = options.bits.value_or(packing.bits);
  packing.group_size = options.group_size.value_or(packing.group_size);
  const std::string error = quantization_error(packing);
  if (!error.empty()) {
    invalid(kOp, error);
  }
  return packing;
}

int read_layers(const SynthShape& shape, const SynthOptions& options) {
  const int layers = options.layers.value_or(shape.layers);
  if (layers < shape.least_layers || layers > shape.layers) {
    invalid(
        kOp,
        "layers of ",
        shape.name,
        " must be ",
        shape.least_layers,
        "..",
        shape.layers,
        ", got ",
        layers,
        ".");
  }
  return layers;
}

// config.json with the "quantization" block, layers that differ named in it.
std::string config_text(const SynthModel& model, const Quantization& packing) {
  Json block = {
      {"group_size", packing.group_size},
      {"bits", packing.bits},
      {"mode", packing.mode}};
  for (const auto& weight : model.weights) {
    if (weight.named) {
      block[weight.name] = {
          {"group_size", weight.packing.group_size},
          {"bits", weight.packing.bits}};
    }
  }
  Json config = model.config;
  config["quantization"] = std::move(block);
  return config.dump(1) + "\n";
}

// A stored tensor and what it is made from.
struct Piece {
  TensorSpec spec;
  const SynthWeight* weight;
  SynthPart part;
};

std::vector<Piece> list_pieces(const SynthModel& model) {
  std::vector<Piece> pieces;
  for (const auto& weight : model.weights) {
    if (!weight.linear) {
      pieces.push_back(
          {{weight.name, weight.dtype, weight.shape},
           &weight,
           SynthPart::kPlain});
      continue;
    }
    const Quantization& packing = weight.packing;
    const bool affine = packing.mode == "affine";
    mx::Shape words = weight.shape, groups = weight.shape;
    words.back() = weight.shape.back() * packing.bits / 32;
    groups.back() = weight.shape.back() / packing.group_size;
    const mx::Dtype scale_type = affine ? mx::bfloat16 : mx::uint8;
    const std::string& name = weight.name;
    pieces.push_back(
        {{name + ".weight", mx::uint32, words}, &weight, SynthPart::kWeight});
    pieces.push_back(
        {{name + ".scales", scale_type, groups}, &weight, SynthPart::kScales});
    if (affine) {
      pieces.push_back(
          {{name + ".biases", mx::bfloat16, groups},
           &weight,
           SynthPart::kBiases});
    }
  }
  return pieces;
}

uint64_t bytes_of(const TensorSpec& spec) {
  uint64_t bytes = spec.dtype.size();
  for (const auto dim : spec.shape) {
    bytes *= static_cast<uint64_t>(dim);
  }
  return bytes;
}

// Splits the tensors into files as mlx_lm's make_shards does.
std::vector<std::vector<TensorSpec>> split_shards(
    const std::vector<Piece>& pieces,
    uint64_t max_bytes) {
  std::vector<std::vector<TensorSpec>> shards(1);
  uint64_t filled = 0;
  for (const auto& piece : pieces) {
    const uint64_t bytes = bytes_of(piece.spec);
    if (filled + bytes > max_bytes && !shards.back().empty()) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(piece.spec);
    filled += bytes;
  }
  return shards;
}

std::string shard_name(size_t index, size_t count) {
  char name[64] = "model.safetensors";
  if (count > 1) {
    std::snprintf(
        name,
        sizeof name,
        "model-%05zu-of-%05zu.safetensors",
        index + 1,
        count);
  }
  return name;
}

// Bytes done so far, told at most ten times a second and at the end.
class Progress {
 public:
  Progress(uint64_t total, const SynthOptions& options)
      : total_(total), tell_(options.progress) {}
  void add(uint64_t bytes) {
    done_ += bytes;
    const auto now = Clock::now();
    if (tell_ && (done_ == total_ || now - last_ >= kInterval)) {
      last_ = now;
      tell_(done_, total_);
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kInterval{100};
  uint64_t done_ = 0, total_;
  Clock::time_point last_{};
  const std::function<void(uint64_t, uint64_t)>& tell_;
};

// The folder that is filled; gone again unless it got its name.
class PartialFolder {
 public:
  explicit PartialFolder(const std::string& out)
      : out_(fs::absolute(out).lexically_normal()) {
    if (!out_.has_filename()) { // "out/" names the folder before the slash
      out_ = out_.parent_path();
    }
    path_ = out_;
    path_ += ".partial";
    std::error_code error;
    if (fs::exists(out_, error) && !fs::is_empty(out_, error)) {
      bad_file(out, "must not exist or be an empty folder.");
    }
    if (fs::exists(path_, error)) {
      bad_file(
          path_.string(),
          "must not exist, perhaps left by a run that was killed. Try: remove "
          "it.");
    }
    if (!fs::create_directories(path_, error)) {
      bad_file(path_.string(), "cannot be made: ", error.message(), ".");
    }
  }
  ~PartialFolder() {
    std::error_code ignored;
    if (!named_) {
      fs::remove_all(path_, ignored);
    }
  }
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  std::string file(const std::string& name) const {
    return (path_ / name).string();
  }
  void check_room(uint64_t needed) const {
    check_disk_space(path_.string(), needed, out_.string());
  }
  void give_name() {
    std::error_code error;
    fs::rename(path_, out_, error); // replaces an empty folder
    if (error) {
      bad_file(out_.string(), "cannot be made: ", error.message(), ".");
    }
    named_ = true;
  }

 private:
  fs::path out_, path_;
  bool named_ = false;
};

void write_shard(
    const std::string& path,
    const SafetensorsPlan& plan,
    const std::map<std::string, const Piece*>& by_name,
    uint64_t seed,
    Progress& progress) {
  SafetensorsWriter writer(path, plan);
  progress.add(plan.front.size());
  for (const auto& tensor : writer.tensors()) {
    const Piece& piece = *by_name.at(tensor.name);
    make_values(
        *piece.weight, piece.part, seed, [&](const void* data, size_t bytes) {
          writer.append(data, bytes);
          progress.add(bytes);
        });
  }
  writer.finish();
}

std::string index_text(const std::vector<SafetensorsPlan>& plans) {
  std::map<std::string, std::string> places;
  uint64_t bytes = 0;
  for (size_t i = 0; i < plans.size(); ++i) {
    bytes += plans[i].file_bytes - plans[i].front.size();
    for (const auto& tensor : plans[i].tensors) {
      places[tensor.name] = shard_name(i, plans.size());
    }
  }
  return nlohmann::json{
             {"metadata", {{"total_size", bytes}}}, {"weight_map", places}}
             .dump(1) +
      "\n";
}

} // namespace

void check_disk_space(
    const std::string& folder,
    uint64_t needed,
    const std::string& out) {
  std::error_code error;
  const auto space = fs::space(folder, error);
  if (!error && space.available < needed) {
    bad_file(
        out,
        "must have ",
        human_bytes(needed),
        " of free disk space, got ",
        human_bytes(space.available),
        ".");
  }
}

std::vector<std::string> synth_shapes() {
  std::vector<std::string> names;
  for (const auto& shape : synth_shape_table()) {
    names.push_back(shape.name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

uint64_t synth(
    const std::string& shape_name,
    const std::string& out_folder,
    const SynthOptions& options) {
  const SynthShape& shape = find_shape(shape_name);
  const Quantization packing = read_packing(options);
  const SynthModel model = shape.make(read_layers(shape, options), packing);
  const std::string config = config_text(model, packing);
  const std::vector<Piece> pieces = list_pieces(model);
  std::map<std::string, const Piece*> by_name;
  for (const auto& piece : pieces) {
    by_name[piece.spec.name] = &piece;
  }
  std::vector<SafetensorsPlan> plans;
  uint64_t total = 0;
  for (const auto& shard : split_shards(pieces, options.max_shard_bytes)) {
    plans.push_back(plan_safetensors(shard, {{"format", "mlx"}}));
    total += plans.back().file_bytes;
  }
  const std::string index = plans.size() > 1 ? index_text(plans) : "";

  PartialFolder folder(out_folder);
  folder.check_room(total + config.size() + index.size());
  Progress progress(total, options);
  for (size_t i = 0; i < plans.size(); ++i) {
    const std::string path = folder.file(shard_name(i, plans.size()));
    write_shard(path, plans[i], by_name, options.seed, progress);
  }
  write_file(folder.file("config.json"), config);
  if (!index.empty()) {
    write_file(folder.file("model.safetensors.index.json"), index);
  }
  folder.give_name();
  return total + config.size() + index.size();
}

} // namespace zmlx
