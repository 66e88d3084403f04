// SPDX-License-Identifier: MIT
// The report table of a repro capsule, as the reference prints it.
#pragma once

#include <string>

#include "zmlx/measure/capsule.h"

namespace zmlx::measure {

/// A header (date, device, versions, command) and for each model a table
/// Metric | Baseline | Patched | Change. A change below 2 % of decode or 3 % of
/// prefill is marked "(neutral)".
std::string report_text(const Capsule& capsule);

} // namespace zmlx::measure
