// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/route_kernel.h"

#include "zmlx/authoring/kernel.h"
#include "zmlx/kernels/common/constants.h"

namespace zmlx::moe {
namespace {

// One SIMD-group a token; lane l holds experts l, l + 32, ... in registers.
const char* kHeader = R"(
struct Best {
  float value;
  uint expert;
};

// The largest of all lanes' keys, of equal ones that of the lowest expert.
inline Best best_of(float value, uint expert) {
  Best best;
  best.value = simd_max(value);
  best.expert = simd_min(value == best.value ? expert : 0xffffffffu);
  return best;
}
)";

const char* kBody = R"(
  uint lane = thread_index_in_simdgroup;
  uint row = threadgroup_position_in_grid.x;
  uint experts = EXPERTS;
  float epsilon = constants[0], scale = constants[1], near = constants[2];
  float logit[LANE_EXPERTS], score[LANE_EXPERTS], key[LANE_EXPERTS];
  bool taken[LANE_EXPERTS];

  float most = -INFINITY;
  for (int i = 0; i < LANE_EXPERTS; ++i) {
    uint e = lane + 32 * i;
    taken[i] = e >= experts;
    logit[i] = taken[i] ? -INFINITY : float(logits[row * experts + e]);
    most = max(most, logit[i]);
  }
  most = simd_max(most);
  float sum = 0;
  for (int i = 0; i < LANE_EXPERTS; ++i) {
    score[i] = SCORE == 0 ? exp(logit[i] - most)
        : SCORE == 1      ? 1.0f / (1.0f + exp(-logit[i]))
                          : logit[i];
    sum += taken[i] ? 0.0f : score[i];
  }
  sum = simd_sum(sum);
  for (int i = 0; i < LANE_EXPERTS; ++i) {
    uint e = lane + 32 * i;
    score[i] = SCORE == 0 ? score[i] / sum : score[i];
    key[i] = (ON_LOGITS ? logit[i] : score[i]) +
        (HAS_BIAS && !taken[i] ? bias[e] : 0.0f);
    key[i] = isnan(key[i]) ? -INFINITY : key[i];
  }

  if (GROUPS > 1) {
    uint size = experts / GROUPS;
    float group[GROUPS];
    for (int g = 0; g < GROUPS; ++g) {
      group[g] = 0;
      uint first = 0xffffffffu;
      for (int turn = 0; turn < (LARGEST || size < 2 ? 1 : 2); ++turn) {
        float value = -INFINITY;
        uint expert = 0xffffffffu;
        for (int i = 0; i < LANE_EXPERTS; ++i) {
          uint e = lane + 32 * i;
          if (!taken[i] && e / size == uint(g) && e != first &&
              (expert == 0xffffffffu || key[i] > value)) {
            value = key[i];
            expert = e;
          }
        }
        Best best = best_of(value, expert);
        first = best.expert;
        group[g] += best.value;
      }
    }
    for (int i = 0; i < LANE_EXPERTS; ++i) {
      int own = (lane + 32 * i) / size;
      int before = 0;
      for (int g = 0; g < GROUPS && own < GROUPS; ++g) {
        before += group[g] > group[own] || (group[g] == group[own] && g < own);
      }
      key[i] = before < CHOSEN_GROUPS ? key[i] : 0.0f;
    }
  }

  float weight[TOP_K];
  sum = 0;
  float top = 0;
  for (int j = 0; j < TOP_K; ++j) {
    float value = -INFINITY;
    uint expert = 0xffffffffu;
    for (int i = 0; i < LANE_EXPERTS; ++i) {
      if (!taken[i] && (expert == 0xffffffffu || key[i] > value)) {
        value = key[i];
        expert = lane + 32 * i;
      }
    }
    Best best = best_of(value, expert);
    bool owner = expert == best.expert;
    float chosen = 0, rest = 0;
    for (int i = 0; i < LANE_EXPERTS; ++i) {
      bool here = owner && lane + 32 * i == best.expert;
      chosen += here ? score[i] +
              (HAS_BIAS && FROM_BIASED ? bias[best.expert] : 0.0f) : 0.0f;
      float size = max(abs(logit[i]), best.value);
      if (SCORE == 3 && !taken[i] && !((best.value - logit[i]) / size > near)) {
        rest += exp(logit[i] - best.value);
      }
      taken[i] = taken[i] || here;
    }
    chosen = simd_sum(chosen);
    if (SCORE == 2) { // the first is the largest
      top = j == 0 ? chosen : top;
      chosen = exp(chosen - top);
    }
    if (SCORE == 3) {
      chosen = 1.0f / simd_sum(rest);
    }
    weight[j] = chosen;
    sum += chosen;
    if (lane == 0) {
      ids[row * TOP_K + j] = best.expert;
    }
  }
  if (SCORE == 2) {
    float total = sum;
    sum = 0;
    for (int j = 0; j < TOP_K; ++j) {
      weight[j] = weight[j] / total;
      sum += weight[j];
    }
  }
  float divisor = !RENORMALISE ? 1.0f
      : EPSILON_IS_FLOOR       ? max(sum, epsilon)
                               : sum + epsilon;
  if (lane == 0) {
    for (int j = 0; j < TOP_K; ++j) {
      weights[row * TOP_K + j] = weight[j] / divisor * scale;
    }
  }
)";

const Kernel& kernel() {
  static const Kernel kernel(
      {.name = "moe_route",
       .inputs = {"logits", "bias", "constants"},
       .outputs = {"weights", "ids"},
       .body = kBody,
       .header = kHeader},
      {.threadgroup = KernelSize{32},
       .output_dtypes = std::vector<mx::Dtype>{mx::float32, mx::uint32}});
  return kernel;
}

} // namespace

std::pair<mx::array, mx::array> route_by_kernel(
    const mx::array& logits,
    const RouterSpec& spec,
    const std::optional<mx::array>& bias) {
  const int experts = logits.shape(-1);
  const int rows = static_cast<int>(logits.size()) / experts;
  mx::Shape shape = logits.shape();
  shape.back() = spec.top_k;
  const auto out = kernel()(
      {logits,
       bias ? *bias : constants({0}),
       constants({spec.epsilon, spec.scale, 2 * spec.jitter})},
      {.grid = KernelSize{rows * 32},
       .output_shapes = std::vector<mx::Shape>{shape, shape},
       .templates = std::vector<KernelTemplateArgument>{
           {"EXPERTS", experts},
           {"LANE_EXPERTS", (experts + 31) / 32},
           {"SCORE", static_cast<int>(spec.score)},
           {"TOP_K", spec.top_k},
           {"ON_LOGITS", spec.select_on_logits},
           {"HAS_BIAS", bias.has_value()},
           {"FROM_BIASED", spec.weight_from_biased},
           {"GROUPS", spec.groups},
           {"CHOSEN_GROUPS", spec.chosen_groups},
           {"LARGEST", spec.group_score == RouterSpec::GroupScore::Largest},
           {"RENORMALISE", spec.renormalise},
           {"EPSILON_IS_FLOOR", spec.epsilon_is_floor}}});
  return {out[0], out[1]};
}

} // namespace zmlx::moe
