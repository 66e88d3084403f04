// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/program.h"

namespace zmlx::decode {
namespace {

struct Name {
  const char* operator()(const EmbedStage&) const {
    return "embed";
  }
  const char* operator()(const ConvStage&) const {
    return "conv";
  }
  const char* operator()(const QkvStage&) const {
    return "qkv";
  }
  const char* operator()(const AttendStage&) const {
    return "attend";
  }
  const char* operator()(const MixStage&) const {
    return "mix";
  }
  const char* operator()(const ExpertsStage& stage) const {
    return stage.router ? "experts" : "gate_up";
  }
  const char* operator()(const CombineStage&) const {
    return "down";
  }
  const char* operator()(const HeadStage&) const {
    return "head";
  }
};

} // namespace

const char* name_of(const Stage& stage) {
  return std::visit(Name(), stage);
}

} // namespace zmlx::decode
