// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/quantization.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/base/text.h"

namespace zmlx {
namespace {

const std::map<std::string, Quantization> kModes = {
    {"affine", {4, 64, "affine"}},
    {"mxfp4", {4, 32, "mxfp4"}},
    {"mxfp8", {8, 32, "mxfp8"}},
    {"nvfp4", {4, 16, "nvfp4"}},
};

std::string mode_error(const std::string& mode) {
  return concat(
      "quantization mode must be affine, mxfp4, mxfp8 or nvfp4, got '",
      mode,
      "'.");
}

// Null counts as absent, as it does in Python.
int integer_or(
    const Json& block,
    const char* key,
    int otherwise,
    const std::string& label) {
  const auto found = block.find(key);
  if (found == block.end() || found->is_null()) {
    return otherwise;
  }
  if (!found->is_number_integer() || *found < 0 || *found > 1024) {
    bad_file(
        label, "'", key, "' must be a small integer, got ", found->dump(), ".");
  }
  return found->get<int>();
}

Quantization read_entry(const Json& block, const std::string& label) {
  std::string mode = "affine";
  if (const auto found = block.find("mode");
      found != block.end() && !found->is_null()) {
    if (!found->is_string()) {
      bad_file(label, "'mode' must be a string, got ", found->dump(), ".");
    }
    mode = found->get<std::string>();
  }
  if (kModes.count(mode) == 0) {
    bad_file(label, mode_error(mode));
  }
  Quantization entry = kModes.at(mode);
  entry.bits = integer_or(block, "bits", entry.bits, label);
  entry.group_size = integer_or(block, "group_size", entry.group_size, label);
  const std::string error = quantization_error(entry);
  if (!error.empty()) {
    bad_file(label, error);
  }
  return entry;
}

// The block that rules, or null.
const Json* find_block(const Json& config, const std::string& origin) {
  const auto present = [&](const char* key) -> const Json* {
    const auto found = config.find(key);
    return found == config.end() || found->is_null() ? nullptr : &*found;
  };
  if (const Json* own = present("quantization")) {
    if (!own->is_object()) {
      bad_file(
          origin, "'quantization' must be an object, got ", own->dump(), ".");
    }
    return own;
  }
  const Json* other = present("quantization_config");
  if (other == nullptr) {
    return nullptr;
  }
  if (!other->is_object() || other->contains("quant_method") ||
      !(other->contains("bits") || other->contains("mode"))) {
    const std::string method =
        other->is_object() && other->contains("quant_method")
        ? (*other)["quant_method"].dump()
        : "none named";
    bad_file(
        origin,
        "weights must be quantised by MLX or not at all, got a "
        "quantization_config of another tool (quant_method ",
        method,
        "). Try: mlx_lm.convert -q on the unquantised model.");
  }
  return other;
}

} // namespace

Quantization default_quantization(const std::string& mode) {
  const auto found = kModes.find(mode);
  if (found == kModes.end()) {
    invalid("quantization", mode_error(mode));
  }
  return found->second;
}

std::string quantization_error(const Quantization& value) {
  const auto found = kModes.find(value.mode);
  if (found == kModes.end()) {
    return mode_error(value.mode);
  }
  if (value.mode != "affine") {
    return value == found->second ? ""
                                  : concat(
                                        value.mode,
                                        " must have bits ",
                                        found->second.bits,
                                        " and group_size ",
                                        found->second.group_size,
                                        ", got ",
                                        value.bits,
                                        " and ",
                                        value.group_size,
                                        ".");
  }
  const auto bits = {2, 3, 4, 5, 6, 8};
  if (std::find(bits.begin(), bits.end(), value.bits) == bits.end()) {
    return concat(
        "affine bits must be 2, 3, 4, 5, 6 or 8, got ", value.bits, ".");
  }
  const auto groups = {32, 64, 128};
  if (std::find(groups.begin(), groups.end(), value.group_size) ==
      groups.end()) {
    return concat(
        "affine group_size must be 32, 64 or 128, got ", value.group_size, ".");
  }
  return "";
}

QuantizationTable read_quantization(
    const Json& config,
    const std::string& origin) {
  QuantizationTable table;
  const Json* block = find_block(config, origin);
  if (block == nullptr) {
    return table;
  }
  table.standard = read_entry(*block, origin + ": quantization");
  for (const auto& [path, value] : block->items()) {
    // Other plain members (a tool's notes) mean nothing to a layer.
    if (value.is_object()) {
      table.layers[path] =
          read_entry(value, concat(origin, ": quantization of '", path, "'"));
    } else if (value.is_boolean()) {
      table.layers[path] =
          value.get<bool>() ? table.standard : std::optional<Quantization>();
    }
  }
  return table;
}

} // namespace zmlx
