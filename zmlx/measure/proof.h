// SPDX-License-Identifier: MIT
// The fidelity ladder on one model: stock, patched, oracle and repetitions.
#pragma once

#include "zmlx/measure/side_switch.h"
#include "zmlx/measure/validate.h"

namespace zmlx::measure {

/// Runs every prompt of result on both sides and stores what levels L0 to L3
/// and the repetitions found. The logits of at most 1 GiB of prompts (one at
/// least) are kept at a time. Returns stock's decoding rate in tokens a second,
/// infinite when it decoded nothing. The oracle is gone afterwards.
double prove(
    Model& model,
    const ValidateOptions& options,
    const Sides& sides,
    SideSwitch& side,
    ValidateResult& result);

} // namespace zmlx::measure
