// SPDX-License-Identifier: MIT
// Decode programs for tests: the demo model's, and changes of them.
#pragma once

#include "zmlx/kernels/common/float_fields_modes.h"
#include "zmlx/model/decode/lower.h"
#include "zmlx/model/model.h"

namespace zmlx::decode {

inline std::shared_ptr<const Program> demo_program() {
  LoadOptions options;
  options.skip_tokenizer = true;
  const auto model = load(ZMLX_SOURCE_DIR "/models/demo", options);
  return lower(*model->network).program;
}

// The demo model's first layers, a dense one, one with experts and one with
// attention, then its head.
inline Program short_program(int layers = 3) {
  auto program = *demo_program();
  std::vector<Stage> stages;
  int combined = 0;
  for (const auto& stage : program.stages) {
    if (combined < layers || std::holds_alternative<HeadStage>(stage)) {
      stages.push_back(stage);
    }
    combined += std::holds_alternative<CombineStage>(stage);
  }
  program.stages = stages;
  return program;
}

// Every matrix at 8 bits.
inline void requantize(Weight& weight) {
  auto& w = std::get<quant::QuantizedArrays>(weight);
  auto parts = mx::quantize(w.mlx_floats(mx::float32), 64, 8);
  w.words = mx::contiguous(parts[0]);
  w.scales = mx::contiguous(mx::astype(parts[1], mx::bfloat16));
  w.biases = mx::contiguous(mx::astype(parts[2], mx::bfloat16));
  w.bits = 8;
  w.group_size = 64;
  w.blocks = nullptr;
}

inline quant::QuantizedArrays random_matrix(
    const mx::Shape& shape,
    uint64_t seed) {
  const auto dense = mx::multiply(
      mx::random::normal(shape, mx::float32, mx::random::key(seed)),
      mx::array(0.05f));
  const auto parts = mx::quantize(dense, 64, 4);
  return {
      parts[0],
      mx::astype(parts[1], mx::bfloat16),
      mx::astype(parts[2], mx::bfloat16),
      4,
      64};
}

// Experts' hidden vectors at `hidden`.
inline Program with_hidden(Program program, int hidden) {
  for (size_t i = 0; i + 1 < program.stages.size(); ++i) {
    auto* experts = std::get_if<ExpertsStage>(&program.stages[i]);
    if (experts && experts->router) {
      const int count = quant::rows_of(experts->router->weight);
      experts->gate = random_matrix({count, hidden, program.dim}, 4);
      experts->up = random_matrix({count, hidden, program.dim}, 5);
      std::get<CombineStage>(program.stages[i + 1]).down =
          random_matrix({count, program.dim, hidden}, 6);
    }
  }
  return program;
}

// The dense layer's hidden vector at 3072, two pieces of 1536.
inline Program with_long_rows(Program program) {
  constexpr int kHidden = 3072;
  for (size_t i = 0; i + 1 < program.stages.size(); ++i) {
    auto* experts = std::get_if<ExpertsStage>(&program.stages[i]);
    if (experts && !experts->router) {
      experts->gate = random_matrix({1, kHidden, program.dim}, 1);
      experts->up = random_matrix({1, kHidden, program.dim}, 2);
      std::get<CombineStage>(program.stages[i + 1]).down =
          random_matrix({1, program.dim, kHidden}, 3);
    }
  }
  return program;
}

inline Program with_softmax_router(Program program) {
  for (auto& stage : program.stages) {
    auto* experts = std::get_if<ExpertsStage>(&stage);
    if (experts && experts->router) {
      auto& spec = experts->router->spec;
      spec.score = moe::RouterSpec::Score::Softmax;
      spec.weight_from_biased = true;
      spec.epsilon = 1e-20f;
      spec.scale = 1.5f;
    }
  }
  return program;
}

// Calls change(weight) for every matrix that products are made with, and with
// `rows` for those too of which the kernel reads rows and columns.
template <class Change>
Program with_weights(Program program, bool rows, Change change) {
  for (auto& stage : program.stages) {
    if (auto* embed = std::get_if<EmbedStage>(&stage)) {
      if (rows) {
        change(embed->table);
      }
    } else if (auto* conv = std::get_if<ConvStage>(&stage)) {
      change(conv->in.weight);
    } else if (auto* qkv = std::get_if<QkvStage>(&stage)) {
      change(qkv->q.weight);
      change(qkv->k.weight);
      change(qkv->v.weight);
    } else if (auto* mix = std::get_if<MixStage>(&stage)) {
      change(mix->out.weight);
    } else if (auto* experts = std::get_if<ExpertsStage>(&stage)) {
      change(experts->gate);
      change(experts->up);
      if (rows && experts->router) {
        change(experts->router->weight);
      }
    } else if (auto* combine = std::get_if<CombineStage>(&stage)) {
      change(combine->down);
    } else if (auto* head = std::get_if<HeadStage>(&stage)) {
      change(head->out.weight);
    }
  }
  return program;
}

inline Program at_8_bits(const Program& program) {
  return with_weights(program, false, requantize);
}

inline Program
in_mode(const Program& program, const cpu::Mode& mode, bool rows) {
  return with_weights(program, rows, [&](Weight& weight) {
    const auto& w = std::get<quant::QuantizedArrays>(weight);
    weight = cpu::packed(mode, w.mlx_floats(mx::float32));
  });
}

// What the matrices stand for, by MLX's own dequantize.
inline Program in_floats(const Program& program) {
  return with_weights(program, true, [](Weight& weight) {
    const auto& w = std::get<quant::QuantizedArrays>(weight);
    auto floats = mx::contiguous(w.mlx_floats(mx::float32));
    mx::eval(floats);
    weight = floats;
  });
}

} // namespace zmlx::decode
