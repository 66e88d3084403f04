// SPDX-License-Identifier: MIT
// The random values of synthetic checkpoints, made piece by piece.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "zmlx/model/checkpoint/synth_shapes.h"

namespace zmlx {

/// One stored tensor of a weight.
enum class SynthPart { kWeight, kScales, kBiases, kPlain };

/// Hands each piece of a tensor's bytes, a few MB at most, to `sink` in order.
/// seed and the weight's name alone decide the bytes, through integer and
/// correctly rounded arithmetic only, so they are the same on every machine.
void make_values(
    const SynthWeight& weight,
    SynthPart part,
    uint64_t seed,
    const std::function<void(const void*, size_t)>& sink);

} // namespace zmlx
