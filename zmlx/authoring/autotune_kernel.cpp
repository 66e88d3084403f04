// SPDX-License-Identifier: MIT
#include "zmlx/authoring/autotune_kernel.h"

#include "zmlx/base/error.h"
#include "zmlx/base/hash.h"

namespace zmlx {
namespace {

int64_t number_of(const mx::fast::TemplateArg& argument) {
  if (const auto* dtype = std::get_if<mx::Dtype>(&argument)) {
    return static_cast<int64_t>(dtype->val());
  }
  const auto* flag = std::get_if<bool>(&argument);
  return flag ? *flag : std::get<int>(argument);
}

void add_size(
    TuneConfig& config,
    const std::string& name,
    const FromInputs<KernelSize>& size,
    const Arrays& inputs) {
  if (size) {
    const KernelSize value = size.of(inputs);
    config[name + "_x"] = value.x;
    config[name + "_y"] = value.y;
    config[name + "_z"] = value.z;
  }
}

// The place tells launches apart that differ in nothing else that is seen.
TuneConfig
config_of(const KernelLaunch& launch, const Arrays& inputs, size_t place) {
  TuneConfig config = {{"candidate", static_cast<int64_t>(place)}};
  add_size(config, "grid", launch.grid, inputs);
  add_size(config, "threadgroup", launch.threadgroup, inputs);
  if (launch.templates) {
    for (const auto& [name, argument] : launch.templates.of(inputs)) {
      config["template_" + name] = number_of(argument);
    }
  }
  return config;
}

std::string name_of(const KernelSource& source) {
  Hash hash;
  for (const auto* names : {&source.inputs, &source.outputs}) {
    for (const auto& name : *names) {
      hash.add(name + ',');
    }
    hash.add(";");
  }
  hash.add(concat(source.ensure_row_contiguous, source.atomic_outputs, ';'));
  hash.add(source.header);
  hash.add(concat(';', source.header.size(), ';', source.body));
  return concat("kernel ", source.name, ' ', hash.hex());
}

} // namespace

TunedKernel autotune_kernel(
    const Kernel& kernel,
    const Arrays& inputs,
    const std::vector<KernelLaunch>& candidates,
    const TuneOptions& options) {
  std::vector<TuneConfig> configs;
  for (size_t i = 0; i < candidates.size(); ++i) {
    configs.push_back(config_of(candidates[i], inputs, i));
  }
  const auto launch_of = [&](const TuneConfig& config) -> const KernelLaunch& {
    return candidates[static_cast<size_t>(config.at("candidate"))];
  };
  TuneResult result = autotune(
      name_of(kernel.source()),
      inputs,
      configs,
      [&](const Arrays& in, const TuneConfig& config) {
        return kernel(in, launch_of(config));
      },
      options);
  KernelLaunch best = launch_of(result.best);
  return {std::move(best), std::move(result)};
}

std::vector<KernelLaunch> launch_candidates(
    const KernelLaunch& launch,
    int64_t most) {
  std::vector<KernelLaunch> candidates;
  for (const auto& config : threadgroup_candidates(most)) {
    candidates.push_back(launch);
    candidates.back().threadgroup =
        KernelSize{static_cast<int>(config.at("threadgroup")), 1, 1};
  }
  return candidates;
}

} // namespace zmlx
