// SPDX-License-Identifier: MIT
#include "zmlx/measure/report.h"

#include <cmath>

#include <fmt/format.h>

#include "zmlx/base/text.h"

namespace zmlx::measure {
namespace {

constexpr double kNeutralDecode = 0.02, kNeutralPrefill = 0.03;

const std::string& rule() {
  static const std::string line(62, '=');
  return line;
}

std::string line_if(const char* label, const std::string& text) {
  return text.empty() ? "" : fmt::format("{:<9}{}\n", label, text);
}

std::string header(const CapsuleMeta& meta) {
  std::string device = meta.device;
  if (!device.empty() && meta.memory_gb > 0) {
    device += fmt::format(" ({:.4g} GB)", meta.memory_gb);
  }
  std::string text = rule() + '\n';
  text += line_if("Date:", meta.date) + line_if("Device:", device);
  if (meta.cores > 0) {
    text += fmt::format(
        "{:<9}{} cores, {} threads, {}\n",
        "CPU:",
        meta.cores,
        meta.threads,
        meta.simd);
  }
  text += line_if("OS:", meta.os) + line_if("MLX:", meta.mlx_version);
  text += line_if("ZMLX:", meta.zmlx_version);
  text += line_if("Python:", meta.python);
  text += line_if("Commit:", meta.git_commit.substr(0, 7));
  for (const auto& [name, value] : meta.environment) {
    text += fmt::format("{:<9}{}={}\n", "Env:", name, value);
  }
  text += line_if("Note:", meta.note) + rule() + '\n';
  for (const auto& command : split(meta.command, '\n')) {
    text += fmt::format("$ {}\n", command);
  }
  return text;
}

std::string change_of(double change, double neutral) {
  const std::string percent = fmt::format("{:+.1f}%", 100 * change);
  // A NaN is no gain: neutral too.
  return std::abs(change) >= neutral ? "**" + percent + "**"
                                     : percent + " (neutral)";
}

std::string row(
    const char* metric,
    const std::string& baseline,
    const std::string& patched,
    const std::string& change) {
  std::string line = fmt::format(
      "{:<14}{:>12} {:>12} {:>18}", metric, baseline, patched, change);
  line.erase(line.find_last_not_of(' ') + 1);
  return line + '\n';
}

std::string rate(double tokens_per_second) {
  return fmt::format("{:.1f} tok/s", tokens_per_second);
}

std::string gigabytes(double number) {
  return fmt::format("{:.2f} GB", number);
}

double change(double before, double after) {
  return after / before - 1;
}

// "affine 4 bit, group 64, float32", as far as it is known.
std::string kind_of(const CapsuleModel& model) {
  const bool both = !model.quantization.empty() && !model.dtype.empty();
  return model.quantization + (both ? ", " : "") + model.dtype;
}

std::string model_text(const CapsuleModel& model) {
  std::string text = fmt::format("\n{}", model.model);
  const std::string kind = kind_of(model);
  text += kind.empty() ? "" : fmt::format(" ({})", kind);
  text += fmt::format(
      "\n{} new tokens, {} runs; patched: {} ({} modules)\n",
      model.gen_tokens,
      model.runs,
      join(model.patched.patterns, ", "),
      model.patched.modules_patched);
  const std::string dashes(58, '-');
  text += row("Metric", "Baseline", "Patched", "Change") + dashes + '\n';
  text +=
      row("Decode",
          rate(model.baseline.median_decode),
          rate(model.patched.median_decode),
          change_of(
              change(model.baseline.median_decode, model.patched.median_decode),
              kNeutralDecode));
  text += row(
      "Prefill",
      rate(model.baseline.median_prefill),
      rate(model.patched.median_prefill),
      change_of(
          change(model.baseline.median_prefill, model.patched.median_prefill),
          kNeutralPrefill));
  text +=
      row("Fidelity",
          "",
          fmt::format("{}/{}", model.matched, model.total),
          model.verdict);
  text +=
      row("Peak memory",
          gigabytes(model.baseline.peak_mem_gb),
          gigabytes(model.patched.peak_mem_gb),
          "");
  return text;
}

} // namespace

std::string report_text(const Capsule& capsule) {
  std::string text = header(capsule.meta);
  for (const auto& model : capsule.models) {
    text += model_text(model);
  }
  return text;
}

} // namespace zmlx::measure
