// SPDX-License-Identifier: MIT
// What validate() found, as text to read and as a capsule to keep.
#pragma once

#include <string>

#include "zmlx/measure/capsule.h"
#include "zmlx/measure/validate.h"

namespace zmlx::measure {

/// The report: runs a side, what was proven, and the table of speeds.
std::string to_text(const ValidateResult& result);

/// The capsule of one validation; command: how it was run.
Capsule to_capsule(const ValidateResult& result, const std::string& command);

} // namespace zmlx::measure
