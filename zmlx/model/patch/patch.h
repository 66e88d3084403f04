// SPDX-License-Identifier: MIT
// patch() puts fused modules in place of stock ones, each only after a probe
// has shown on the model's own weights that the output is the same.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "zmlx/model/model.h"

namespace zmlx {

/// What patch() may do.
struct PatchOptions {
  /// Pattern names; empty means all that are safe for the family and device.
  std::vector<std::string> patterns = {};
  /// Names left out.
  std::vector<std::string> exclude = {};
};

/// One module that patch() looked at.
struct PatchedModule {
  std::string path; // "model.layers.3.feed_forward"
  std::string pattern; // "moe_mlp"
  /// Largest difference from stock in the probe, relative to stock's largest
  /// value.
  double probe_error = 0;
};

/// A module that matched and was left stock, and why.
struct SkippedModule {
  std::string path, pattern, reason;
};

/// What patch() did.
struct PatchResult {
  std::vector<PatchedModule> installed;
  std::vector<SkippedModule> skipped;

  /// Installed modules a pattern.
  std::map<std::string, int> counts() const;
  /// The reference's text: "Patched N modules:", a line a pattern, skips.
  std::string summary() const;
};

/// Throws std::invalid_argument for a pattern name that is not known; patch()
/// does so too, but only after a model is loaded.
void check_patterns(const PatchOptions& options);

/// Replaces what matches the patterns, in place. Patching twice is the same as
/// once. Throws std::invalid_argument for an unknown pattern name.
PatchResult patch(Model& model, const PatchOptions& options = {});

/// The same without probes, for who compares the whole network with another
/// implementation of it before using it.
PatchResult patch_unprobed(Model& model, const PatchOptions& options = {});

/// Puts every stock module back.
void unpatch(Model& model);

/// Every pattern's name, sorted.
std::vector<std::string> list_patterns();

} // namespace zmlx
