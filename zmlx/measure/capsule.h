// SPDX-License-Identifier: MIT
// The repro capsule: what was measured, on what, and how to run it again.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "zmlx/base/json.h"

namespace zmlx::measure {

/// The version of the capsule's own keys, meta.schema_version. Capsules of the
/// reference have none and are read as well.
inline constexpr int kCapsuleSchema = 1;

/// Where and when; strings are "" and numbers 0 where a capsule has no such
/// key.
struct CapsuleMeta {
  int schema_version = kCapsuleSchema;
  std::string date; // "2025-01-31T23:59:59Z"
  std::string device;
  double memory_gb = 0;
  std::string os; // key "macos" in the reference's capsules
  std::string mlx_version, zmlx_version, git_commit, python;
  std::string command;
  std::string note;
  std::string cpu, simd, gpu, backend;
  int cores = 0, threads = 0;
  std::map<std::string, std::string> environment;
};

/// One side's runs, in order; medians over them.
struct CapsuleSide {
  std::vector<double> prefill_tok_s, decode_tok_s;
  double median_prefill = 0, median_decode = 0;
  double peak_mem_gb = 0;
  // Of the patched side only.
  std::vector<std::string> patterns;
  int modules_patched = 0;
};

/// One model's record.
struct CapsuleModel {
  std::string key; // its name in the file: "lfm2_moe_4bit"
  std::string model;
  int max_tokens = 0, gen_tokens = 0, runs = 0;
  int matched = 0, total = 0;
  std::string verdict; // "PASS" or "FAIL"
  CapsuleSide baseline, patched;
  double decode_speedup = 0; // patched / baseline
  double prefill_change = 0; // patched / baseline - 1

  // Not in the reference's capsules.
  std::string dtype, quantization, model_hash, tokenizer_hash;
  Json ladder; // levels, rules and failures; null: none
  Json prompts; // one object a prompt; null: none
};

struct Capsule {
  CapsuleMeta meta;
  std::vector<CapsuleModel> models;
};

/// meta of a measurement on this machine, now.
CapsuleMeta meta_of_this_machine(const std::string& command, int threads);

Json to_json(const Capsule& capsule);

/// Reads a capsule back. `origin` names it in errors. Throws FileError that
/// names the key, what must hold and what came; unknown keys are left alone.
Capsule capsule_from_json(const Json& json, const std::string& origin);

/// The same for a file.
Capsule read_capsule(const std::string& path);

/// Writes the file in one step. Throws FileError.
void write_capsule(const std::string& path, const Capsule& capsule);

} // namespace zmlx::measure
