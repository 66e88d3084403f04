// SPDX-License-Identifier: MIT
// Runs of values to and from lanes, and sums over lanes, for every instruction
// set.
#pragma once

#include <cstdint>

#include "zmlx/dialect/row_program.h"

namespace zmlx::cpu {

/// float16 (as its bits) to float32 and back, rounding to nearest even.
void from_half(const uint16_t* from, int64_t count, float* to);
void to_half(const float* from, int64_t count, uint16_t* to);

/// The same for bfloat16.
void from_bfloat(const uint16_t* from, int64_t count, float* to);
void to_bfloat(const float* from, int64_t count, uint16_t* to);

/// totals (kGroup lanes) = totals combined with every group in order; combine
/// is not Serial, stride as in Lanes.
void accumulate_lanes(
    dialect::Combine combine,
    float* totals,
    const float* lanes,
    int64_t stride,
    int64_t groups);

/// kGroup lanes combined into one value, always in the same pairs.
float fold_lanes(dialect::Combine combine, const float* totals);

} // namespace zmlx::cpu
