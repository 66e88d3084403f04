// SPDX-License-Identifier: MIT
// The probe: a fused module against the stock one on the model's own weights.
#pragma once

#include <string>

#include "zmlx/model/decode/fused_network.h"
#include "zmlx/model/patch/fused.h"

namespace zmlx {

/// The largest difference over the stock output's largest value.
struct ProbeResult {
  double error = 0;
  double allowed = 0;
  bool passed() const {
    return error <= allowed; // false for NaN
  }
};

/// How far the middle one of seven rows is among 512 from the same row among
/// the seven, relative to its largest value: GPUs take many tokens another way.
/// Not the farthest, for a near tie in a router may fall otherwise there,
/// rightly.
double apart_among_many(const Layer& fused, int width, mx::Dtype dtype);

/// One row of stock against fused, then nine rows of fused (the path of many
/// tokens) against fused one by one; on a GPU rows among many too.
ProbeResult
probe(const Layer& stock, const Layer& fused, int width, mx::Dtype dtype);

/// A prompt of five tokens and one step after it, both with a cache, behind a
/// norm of random weights.
ProbeResult probe(
    const Mixer& stock,
    const Mixer& fused,
    int width,
    bool attends,
    mx::Dtype dtype);

/// Two steps after a prompt of five tokens: the network's own against the
/// executor's. A near tie in a router may send a token to another expert on one
/// side, rightly; so one of five prompts must agree. Below float32 a step may
/// be as far from the network's own as that is from the same tokens in one
/// prompt, up to twice what is allowed otherwise.
ProbeResult probe(
    Network& network,
    decode::StepExecutor& executor,
    int vocab_size,
    mx::Dtype dtype);

} // namespace zmlx
