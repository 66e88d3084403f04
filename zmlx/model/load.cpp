// SPDX-License-Identifier: MIT
#include <filesystem>

#include "zmlx/base/env.h"
#include "zmlx/base/error.h"
#include "zmlx/base/text.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/model/assemble.h"
#include "zmlx/model/checkpoint/checkpoint.h"
#include "zmlx/model/checkpoint/hub.h"
#include "zmlx/model/checkpoint/mapped_array.h"
#include "zmlx/model/checkpoint/memory.h"
#include "zmlx/model/families/lfm2.h"
#include "zmlx/model/families/lfm2_moe.h"
#include "zmlx/model/families/llama.h"
#include "zmlx/model/families/qwen3.h"
#include "zmlx/model/families/weights.h"
#include "zmlx/model/model.h"
#include "zmlx/model/tokenizer/chat_template.h"
#include "zmlx/model/tokenizer/tokenizer.h"

namespace zmlx {
namespace {

struct Family {
  const char* model_type;
  std::unique_ptr<Network> (*build)(const Config&, Weights&, ModelInfo&);
};

constexpr Family kFamilies[] = {
    {"lfm2", build_lfm2},
    {"lfm2_moe", build_lfm2_moe},
    {"llama", build_llama},
    {"mistral", build_llama},
    {"qwen2", build_qwen2},
    {"qwen3", build_qwen3},
    {"qwen3_moe", build_qwen3_moe}};

const Family& family_of(const Config& config) {
  std::vector<std::string> known;
  const std::string type = config.text("model_type", "");
  for (const auto& family : kFamilies) {
    if (type == family.model_type) {
      return family;
    }
    known.emplace_back(family.model_type);
  }
  invalid(
      "load",
      "model_type must be one of ",
      join(known, ", "),
      "; ",
      config.path(),
      " has '",
      type,
      "'.",
      did_you_mean(type, known));
}

// On a GPU, the type that the checkpoint's own norms have.
mx::Dtype natural_dtype(const Checkpoint& checkpoint) {
  if (mx::default_device() == mx::Device(mx::Device::cpu)) {
    return mx::float32;
  }
  for (const auto& name : checkpoint.names()) {
    const auto dtype = checkpoint.info(name).dtype;
    if (name.ends_with("norm.weight") &&
        (dtype == mx::float16 || dtype == mx::bfloat16)) {
      return dtype;
    }
  }
  return mx::float32;
}

mx::Dtype checked(mx::Dtype dtype) {
  if (dtype != mx::float32 && dtype != mx::float16 && dtype != mx::bfloat16) {
    invalid(
        "load", "dtype must be float32, float16 or bfloat16, got ", dtype, '.');
  }
  return dtype;
}

// Whether most layers can lie in blocks; see cpu::RowBlocks::fit().
bool takes_blocks(const std::optional<Quantization>& standard) {
  return standard &&
      (standard->mode == "affine" ? standard->bits == 4 || standard->bits == 8
                                  : standard->mode != "mxfp8");
}

void count_weights(
    const Checkpoint& checkpoint,
    const Weights& weights,
    ModelInfo& info) {
  info.weight_bytes = checkpoint.total_bytes();
  double active = 0;
  for (const auto& name : weights.names()) {
    const auto& tensor = weights.tensor(name);
    const bool expert = name.find(".switch_mlp.") != std::string::npos;
    active += static_cast<double>(tensor.nbytes()) *
        (expert ? info.active_expert_fraction : 1.0);
    if (name.ends_with(".scales") || name.ends_with(".biases")) {
      continue; // part of how a weight is stored
    }
    uint64_t count = tensor.size();
    if (tensor.dtype() == mx::uint32 && name.ends_with(".weight")) {
      const auto layer = checkpoint.quantization_of(
          name.substr(0, name.size() - std::string(".weight").size()));
      count = count * 32 / (layer ? layer->bits : 32);
    }
    info.num_parameters += count;
  }
  info.active_bytes = static_cast<uint64_t>(active);
  const auto& standard = checkpoint.quantization();
  info.quantization = standard ? concat(
                                     standard->mode,
                                     ' ',
                                     standard->bits,
                                     " bit, group ",
                                     standard->group_size)
                               : "none";
}

void load_tokenizer(Model& model, bool needed) {
  if (!needed && !std::filesystem::exists(model.folder + "/tokenizer.json")) {
    return;
  }
  model.tokenizer = Tokenizer::load(model.folder);
  try {
    if (auto found = ChatTemplate::detect(model.folder)) {
      model.chat_template =
          std::make_shared<const ChatTemplate>(std::move(*found));
    }
  } catch (const FileError& error) {
    model.chat_template_error = error.what();
  }
  if (model.info.eos_ids.empty()) {
    model.info.eos_ids = model.tokenizer->eos_ids();
  }
}

} // namespace

std::unique_ptr<Model> load(
    const std::string& name,
    const LoadOptions& options) {
  auto model = std::make_unique<Model>();
  model->folder = resolve_model(name);
  auto checkpoint =
      std::make_shared<Checkpoint>(Checkpoint::open(model->folder));
  const Config config(
      checkpoint->config(), concat(model->folder, "/config.json"));
  const Family& family = family_of(config);
  check_memory(*checkpoint);
  const bool huge_pages = options.huge_pages &&
      env("ZMLX_HUGE_PAGES").value_or("1") != "0" && buffer_header_bytes();
  const bool in_blocks = huge_pages && cpu::prefers_blocks() &&
      takes_blocks(checkpoint->quantization());
  if (huge_pages && !in_blocks) {
    checkpoint->read_into_memory();
  }
  model->dtype =
      checked(options.dtype ? *options.dtype : natural_dtype(*checkpoint));
  model->info.family = family.model_type;
  model->info.eos_ids = checkpoint->eos_ids();
  auto source = TensorSource::of(*checkpoint);
  if (in_blocks) {
    source.place_of = [checkpoint](const mx::array& array) {
      return checkpoint->place_of(array);
    };
  }
  Weights weights(std::move(source), model->dtype);
  model->network = family.build(config, weights, model->info);
  weights.expect_all_taken();
  count_weights(*checkpoint, weights, model->info);
  model->checkpoint = std::move(checkpoint);
  if (!options.skip_tokenizer) {
    load_tokenizer(*model, options.need_tokenizer);
  }
  return model;
}

std::unique_ptr<Model> assemble(ModelParts parts, mx::Dtype dtype) {
  auto model = std::make_unique<Model>();
  const Json json = parse_json(parts.config, parts.origin);
  const Config config(json, parts.origin);
  const Family& family = family_of(config);
  model->dtype = checked(dtype);
  model->info.family = family.model_type;
  TensorSource source;
  source.origin = std::move(parts.origin);
  source.tensors = std::move(parts.tensors);
  source.quantization_of = [packing = std::move(parts.packing)](
                               const std::string& path) {
    const auto found = packing.find(path);
    return found == packing.end() ? std::nullopt : std::optional(found->second);
  };
  Weights weights(std::move(source), model->dtype);
  model->network = family.build(config, weights, model->info);
  weights.expect_all_taken();
  return model;
}

mx::Dtype dtype_from_name(const std::string& name) {
  if (name == "float32") {
    return mx::float32;
  }
  if (name == "float16") {
    return mx::float16;
  }
  if (name == "bfloat16") {
    return mx::bfloat16;
  }
  const std::vector<std::string> known = {"float32", "float16", "bfloat16"};
  invalid(
      "dtype",
      "must be one of ",
      join(known, ", "),
      "; got '",
      name,
      "'.",
      did_you_mean(name, known));
}

std::string name_of(mx::Dtype dtype) {
  return dtype == mx::float32 ? "float32"
      : dtype == mx::float16  ? "float16"
      : dtype == mx::bfloat16 ? "bfloat16"
                              : concat(dtype);
}

} // namespace zmlx
