// SPDX-License-Identifier: MIT
// Timed generation of both sides of a comparison, interleaved.
#pragma once

#include "zmlx/measure/side_switch.h"
#include "zmlx/measure/validate.h"

namespace zmlx::measure {

/// Times options.runs runs a side on the longest prompt of result, in the
/// order stock, patched, patched, stock, ..., and stores the speeds in it. The
/// number of tokens follows from stock's rate; see ValidateOptions. The model
/// is stock afterwards.
void time_sides(
    Model& model,
    const ValidateOptions& options,
    SideSwitch& side,
    double stock_tokens_per_second,
    ValidateResult& result);

} // namespace zmlx::measure
