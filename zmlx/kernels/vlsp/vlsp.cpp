// SPDX-License-Identifier: MIT
// For each function: what runs, the reference, the spec.
#include "zmlx/kernels/vlsp/vlsp.h"

#include <cmath>

#include <fmt/format.h>

#include "zmlx/authoring/elementwise.h"
#include "zmlx/authoring/reduce.h"
#include "zmlx/authoring/registry.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/kept_operations.h"
#include "zmlx/kernels/common/reference.h"

namespace zmlx::vlsp {
namespace {

void check_finite(const char* op, const char* what, float value) {
  if (!std::isfinite(value)) {
    invalid(op, what, " must be finite, got ", value, '.');
  }
}

} // namespace

mx::array silu_mul_residual(
    const mx::array& gate,
    const mx::array& up,
    const mx::array& residual) {
  static const Elementwise operation =
      map("silu_mul_residual",
          "silu(gate) * up + residual",
          {"gate", "up", "residual"});
  return operation(gate, up, residual);
}

mx::array depth_gate_sigmoid(const mx::array& x, float k_max) {
  check_finite("depth_gate_sigmoid", "k_max", k_max);
  // As a constant: as an input it would change the type of narrow results.
  static KeptOperations<float, Elementwise> made;
  return made.get(k_max, [&] {
    return unary(
        "depth_gate_sigmoid", fmt::format("sigmoid(x) * {:.9e}f", k_max));
  })(x);
}

mx::array fused_recurrent_step(
    const mx::array& h,
    const mx::array& w_norm,
    const mx::array& gate,
    const mx::array& alpha,
    float eps) {
  check_finite("fused_recurrent_step", "eps", eps);
  static KeptOperations<float, RowOperation> made;
  const auto& operation = made.get(eps, [&] {
    return map_reduce(
        {.pass1 = {"0.0f", "acc1 + h * h", "a + b"},
         .write = fmt::format(
             "h + alpha * silu(h * rsqrt(s1 / D + {:.9e}f) * w) * gate", eps),
         .name = "fused_recurrent_step",
         .inputs = {"h", "w", "gate", "alpha"}});
  });
  return operation(
      {h, w_norm, gate, alpha.ndim() == 0 ? mx::reshape(alpha, {1}) : alpha});
}

mx::array grpo_advantage_norm(const mx::array& rewards, float eps) {
  check_finite("grpo_advantage_norm", "eps", eps);
  static KeptOperations<float, RowOperation> made;
  return made.get(eps, [&] {
    return map_reduce(
        {.pass1 = {"0.0f", "acc1 + x", "a + b"},
         .pass2 = {"0.0f", "acc2 + (x - s1 / D) * (x - s1 / D)", "a + b"},
         .write = fmt::format("(x - s1 / D) * rsqrt(s2 / D + {:.9e}f)", eps),
         .name = "grpo_advantage_norm"});
  })(rewards);
}

} // namespace zmlx::vlsp

namespace zmlx::kernels {
namespace {

float number_of(const Params& params, const char* name) {
  return static_cast<float>(params.at(name));
}

KernelSpec gated_residual_spec() {
  const auto shapes = [](const mx::Shape& shape) {
    return std::vector<mx::Shape>{shape, shape, shape};
  };
  return {
      .family = "vlsp",
      .name = "silu_mul_residual",
      .summary = "silu(gate) up + residual",
      .call = "zmlx::vlsp::silu_mul_residual(gate, up, residual)",
      .inputs =
          {{"gate", "any shape, float"},
           {"up", "broadcasts with gate, float"},
           {"residual", "broadcasts with gate, float"}},
      .outputs = {{"out", "the type that all promote to; float32 inside"}},
      .run =
          [](const Arrays& in, const Params&) {
            return Arrays{vlsp::silu_mul_residual(in[0], in[1], in[2])};
          },
      .reference =
          [](const Arrays& in, const Params&) {
            return Arrays{reference::silu(in[0]) * in[1] + in[2]};
          },
      .gradient = {0, 1, 2},
      .cases = cases_of({shapes({0, 4}), shapes({3, 257}), shapes({2, 3, 64})}),
      .bench =
          {{mx::float32, shapes({1024, 8192})},
           {mx::bfloat16, shapes({1024, 8192})}},
      // The sum cancels.
      .terms = [](const KernelCase&) { return int64_t{2}; },
      .ulps = 16,
  };
}

KernelSpec depth_gate_spec() {
  const Params params = {{"k_max", 8}};
  return {
      .family = "vlsp",
      .name = "depth_gate_sigmoid",
      .summary = "sigmoid(x) k_max",
      .call = "zmlx::vlsp::depth_gate_sigmoid(x, k_max)",
      .inputs = {{"x", "any shape, float"}},
      .outputs = {{"out", "x's shape and type; float32 inside"}},
      .params = {{"k_max", "the most steps", 8.0}},
      .run =
          [](const Arrays& in, const Params& params) {
            return Arrays{
                vlsp::depth_gate_sigmoid(in[0], number_of(params, "k_max"))};
          },
      .reference =
          [](const Arrays& in, const Params& params) {
            return Arrays{
                reference::sigmoid(in[0]) *
                reference::number(params.at("k_max"), in[0])};
          },
      .gradient = {0},
      .cases = cases_of({{{0, 4}}, {{1}}, {{3, 257}}}, params),
      .bench = {{mx::float32, {{1024, 8192}}, params}},
      .ulps = 16,
  };
}

KernelSpec recurrent_step_spec() {
  const Params params = {{"eps", 1e-6}};
  const auto shapes = [](const mx::Shape& h) {
    return std::vector<mx::Shape>{h, {h.back()}, h, {1}};
  };
  return {
      .family = "vlsp",
      .name = "fused_recurrent_step",
      .summary = "h + alpha silu(rms_norm(h) w_norm) gate",
      .call = "zmlx::vlsp::fused_recurrent_step(h, w_norm, gate, alpha, eps)",
      .inputs =
          {{"h", "(..., dim) float"},
           {"w_norm", "(dim) float"},
           {"gate", "(..., dim) float"},
           {"alpha", "a scalar, or what broadcasts with h, float"}},
      .outputs = {{"out", "the type that all promote to; float32 inside"}},
      .params = {{"eps", "added to the mean square", 1e-6}},
      .run =
          [](const Arrays& in, const Params& params) {
            return Arrays{vlsp::fused_recurrent_step(
                in[0], in[1], in[2], in[3], number_of(params, "eps"))};
          },
      .reference =
          [](const Arrays& in, const Params& params) {
            const mx::array normed =
                reference::rms_norm(in[0], in[1], params.at("eps"));
            return Arrays{in[0] + in[3] * reference::silu(normed) * in[2]};
          },
      .gradient = {0, 1, 2, 3},
      .cases = cases_of(
          {shapes({3, 193}), shapes({2, 3, 256}), shapes({1, 64})}, params),
      .bench = {{mx::float32, shapes({1024, 4096}), params}},
      .terms =
          [](const KernelCase& one) { return int64_t{one.shapes[0].back()}; },
      .ulps = 16,
  };
}

KernelSpec advantage_spec() {
  const Params params = {{"eps", 1e-6}};
  return {
      .family = "vlsp",
      .name = "grpo_advantage_norm",
      .summary = "(r - mean) / sqrt(variance + eps) of each row",
      .call = "zmlx::vlsp::grpo_advantage_norm(rewards, eps)",
      .inputs = {{"rewards", "(..., samples) float"}},
      .outputs = {{"out", "as rewards; float32 inside"}},
      .params = {{"eps", "added to the variance", 1e-6}},
      .run =
          [](const Arrays& in, const Params& params) {
            return Arrays{
                vlsp::grpo_advantage_norm(in[0], number_of(params, "eps"))};
          },
      .reference =
          [](const Arrays& in, const Params& params) {
            const mx::array centred = in[0] - mx::mean(in[0], -1, true);
            const mx::array variance = mx::mean(centred * centred, -1, true);
            return Arrays{
                centred *
                mx::rsqrt(
                    variance + reference::number(params.at("eps"), in[0]))};
          },
      .gradient = {0},
      .cases = cases_of({{{3, 16}}, {{7, 193}}, {{1, 64}}}, params),
      .bench = {{mx::float32, {{1024, 64}}, params}},
      .terms =
          [](const KernelCase& one) { return int64_t{one.shapes[0].back()}; },
      .ulps = 16,
  };
}

} // namespace

void register_vlsp(Registry& registry) {
  registry.add(recurrent_step_spec());
  registry.add(depth_gate_spec());
  registry.add(advantage_spec());
  registry.add(gated_residual_spec());
}

} // namespace zmlx::kernels
