// SPDX-License-Identifier: MIT
#include "zmlx/model/patch/patch.h"

#include <algorithm>
#include <functional>
#include <future>

#include "zmlx/base/error.h"
#include "zmlx/base/text.h"
#include "zmlx/model/decode/fused_network.h"
#include "zmlx/model/decode/lower.h"
#include "zmlx/model/patch/fused.h"
#include "zmlx/model/patch/probe.h"
#include "zmlx/runtime/device_name.h"

namespace zmlx {
namespace {

/// Where a pattern helps; kAsked: nowhere for sure, so only where it is named.
enum class On { kCpu, kBoth, kAsked };

/// One kind of replacement. The order of this table is the order of patching:
/// whole blocks first, then projections, so that mixers are probed with
/// projections that are fast already, then what is left.
struct Pattern {
  const char* name;
  Fusion (*layer)(const LayerSlot&);
  Fusion (*mixer)(const MixerSlot&, mx::Dtype);
  On on = On::kCpu;
  bool network = false; // the step of the whole network
};

constexpr Pattern kPatterns[] = {
    {"moe_mlp", fuse_moe_mlp, nullptr, On::kBoth},
    {"swiglu_mlp", fuse_swiglu_mlp, nullptr, On::kBoth},
    {"quantized_linear", fuse_quantized_linear, nullptr},
    {"linear", fuse_linear, nullptr},
    {"attention", nullptr, fuse_attention},
    {"short_conv", nullptr, fuse_short_conv},
    {"norm_qkv", nullptr, fuse_norm_qkv, On::kAsked},
    {"rmsnorm", fuse_rmsnorm, nullptr},
    {"decode_step", nullptr, nullptr, On::kBoth, true},
};

constexpr const char* kWhole = "model";

bool wanted(const PatchOptions& options, const Pattern& pattern) {
  auto holds = [&](const std::vector<std::string>& names) {
    return std::find(names.begin(), names.end(), pattern.name) != names.end();
  };
  if (holds(options.exclude)) {
    return false;
  }
  return (!on_a_gpu() || pattern.on != On::kCpu) &&
      (options.patterns.empty() ? pattern.on != On::kAsked
                                : holds(options.patterns));
}

class Patcher {
 public:
  Patcher(Model& model, PatchResult& result, bool probes)
      : model_(model), result_(result), probes_(probes) {}

  /// Compiles the step's kernels while modules are probed: the step is last,
  /// and takes longest.
  void prepare_step() {
    if (!probes_ || is_patched() || !on_a_gpu()) {
      return;
    }
    try {
      const auto lowered = decode::lower(*model_.network);
      if (lowered.program) {
        // Caches have the type of activations.
        step_ = decode::prepare_executor(*lowered.program, model_.dtype);
      }
    } catch (const std::exception&) { // told when the step's turn comes
    }
  }

  void apply(const Pattern& pattern) {
    if (pattern.network) {
      apply_to_network(pattern);
      return;
    }
    walk(*model_.network, [&](const std::string& path, Child& child) {
      if (auto* layer = std::get_if<LayerSlot*>(&child.slot)) {
        if (pattern.layer) {
          apply(pattern, path, **layer);
        }
      } else if (auto* mixer = std::get_if<MixerSlot*>(&child.slot)) {
        if (pattern.mixer) {
          apply(pattern, path, **mixer);
        }
      }
    });
  }

 private:
  bool is_patched() const {
    return &model_.network->stock_module() != model_.network.get();
  }

  void apply_to_network(const Pattern& pattern) {
    if (is_patched()) {
      return;
    }
    const bool on_cpu = mx::default_device() == mx::Device(mx::Device::cpu);
    if (on_cpu && model_.dtype != mx::float32) {
      skip(
          pattern,
          kWhole,
          concat("activations must be float32, got ", model_.dtype));
      return;
    }
    const auto lowered = decode::lower(*model_.network);
    if (!lowered.program) {
      skip(pattern, kWhole, lowered.reason);
      return;
    }
    auto [executor, reason] = decode::make_executor(lowered.program);
    if (!executor) {
      skip(pattern, kWhole, reason);
      return;
    }
    const bool accepted = accept(pattern, kWhole, [&] {
      return probe(
          *model_.network, *executor, model_.info.vocab_size, model_.dtype);
    });
    release(*model_.network);
    if (accepted) {
      model_.network = std::make_unique<decode::FusedNetwork>(
          std::move(model_.network),
          std::move(executor),
          model_.info.max_positions);
    }
  }

  void apply(const Pattern& pattern, const std::string& path, LayerSlot& slot) {
    Fusion fusion = pattern.layer(slot);
    if (!fusion.layer) {
      skip(pattern, path, fusion.reason);
      return;
    }
    const bool accepted = accept(pattern, path, [&] {
      return probe(*slot, *fusion.layer, fusion.width, model_.dtype);
    });
    release(*slot);
    if (accepted) {
      slot = std::move(fusion.layer);
    }
  }

  void apply(const Pattern& pattern, const std::string& path, MixerSlot& slot) {
    Fusion fusion = pattern.mixer(slot, model_.dtype);
    if (!fusion.mixer) {
      skip(pattern, path, fusion.reason);
      return;
    }
    const bool attends = dynamic_cast<const Attention*>(slot.get()) != nullptr;
    const bool accepted = accept(pattern, path, [&] {
      return probe(
          *slot, *fusion.mixer, model_.info.width, attends, model_.dtype);
    });
    release(*slot);
    if (accepted) {
      slot = std::move(fusion.mixer);
    }
  }

  template <class Probe>
  bool
  accept(const Pattern& pattern, const std::string& path, const Probe& probe) {
    const ProbeResult probed = probes_ ? probe() : ProbeResult();
    if (probed.passed()) {
      result_.installed.push_back({path, pattern.name, probed.error});
      return true;
    }
    skip(
        pattern,
        path,
        concat(
            "the probe must differ from stock by at most ",
            probed.allowed,
            ", got ",
            probed.error));
    return false;
  }

  void skip(
      const Pattern& pattern,
      const std::string& path,
      const std::string& reason) {
    if (!reason.empty()) {
      result_.skipped.push_back({path, pattern.name, reason});
    }
  }

  // The probe made the stock module cast its parameters; a patched model must
  // not go on holding them.
  static void release(Module& module) {
    module.release();
    walk(module, [](const std::string&, Child& child) {
      child.module->release();
    });
  }

  Model& model_;
  PatchResult& result_;
  const bool probes_;
  std::future<void> step_; // ends before patch() does
};

} // namespace

std::map<std::string, int> PatchResult::counts() const {
  std::map<std::string, int> counts;
  for (const auto& module : installed) {
    ++counts[module.pattern];
  }
  return counts;
}

std::string PatchResult::summary() const {
  std::string text = concat("Patched ", installed.size(), " modules:");
  for (const auto& [pattern, count] : counts()) {
    text += concat("\n  ", pattern, ": ", count);
  }
  if (!skipped.empty()) {
    text += concat("\n  Skipped: ", skipped.size());
  }
  for (const auto& module : skipped) {
    text += concat(
        "\n    ", module.path, " (", module.pattern, "): ", module.reason);
  }
  return text;
}

void check_patterns(const PatchOptions& options) {
  const auto known = list_patterns();
  for (const auto* names : {&options.patterns, &options.exclude}) {
    for (const auto& name : *names) {
      if (std::find(known.begin(), known.end(), name) == known.end()) {
        invalid(
            "patch",
            "no pattern '",
            name,
            "'.",
            did_you_mean(name, known),
            " Patterns are ",
            join(known, ", "),
            '.');
      }
    }
  }
}

namespace {

PatchResult patch_all(Model& model, const PatchOptions& options, bool probes) {
  check_patterns(options);
  PatchResult result;
  Patcher patcher(model, result, probes);
  for (const auto& pattern : kPatterns) {
    if (pattern.network && wanted(options, pattern)) {
      patcher.prepare_step();
    }
  }
  for (const auto& pattern : kPatterns) {
    if (wanted(options, pattern)) {
      patcher.apply(pattern);
    }
  }
  return result;
}

} // namespace

PatchResult patch(Model& model, const PatchOptions& options) {
  return patch_all(model, options, true);
}

PatchResult patch_unprobed(Model& model, const PatchOptions& options) {
  return patch_all(model, options, false);
}

void unpatch(Model& model) {
  if (auto* fused = dynamic_cast<decode::FusedNetwork*>(model.network.get())) {
    model.network = std::unique_ptr<Network>(std::move(fused->stock));
  }
  walk(*model.network, [](const std::string&, Child& child) {
    if (auto* layer = std::get_if<LayerSlot*>(&child.slot)) {
      if (auto* fused = dynamic_cast<FusedLayer*>((*layer)->get())) {
        **layer = LayerSlot(fused->stock);
      }
    } else if (auto* mixer = std::get_if<MixerSlot*>(&child.slot)) {
      if (auto* fused = dynamic_cast<FusedMixer*>((*mixer)->get())) {
        **mixer = MixerSlot(fused->stock);
      }
    }
  });
}

std::vector<std::string> list_patterns() {
  std::vector<std::string> names;
  for (const auto& pattern : kPatterns) {
    names.emplace_back(pattern.name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

} // namespace zmlx
