// SPDX-License-Identifier: MIT
// Memory speed of one-line operations, row operations and raw kernels on 64 M
// elements of the GPU, against a plain copy there; JSON. tools/check_gpu.sh
// runs it.
#include <algorithm>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "zmlx/base/clock.h"
#include "zmlx/base/json.h"
#include "zmlx/base/statistics.h"
#include "zmlx/zmlx.h"

namespace mx = mlx::core;

namespace {

constexpr int kRows = 16384, kColumns = 4096;
// Calls in an evaluation. What a long chain takes beyond a short one is the
// calls' own time: an evaluation costs as much as some of them.
constexpr int kShort = 20, kLong = 100;
constexpr int kRuns = 9;

using Operation = std::function<mx::array(const mx::array&)>;

struct Figure {
  std::string name;
  double microseconds; // a call, median
  double least, most;
  double gb_per_s;
};

double seconds_of(const mx::array& x, const Operation& operation, int calls) {
  const zmlx::Stopwatch clock;
  auto y = x;
  for (int i = 0; i < calls; ++i) {
    y = operation(y);
  }
  mx::eval(y);
  return clock.seconds();
}

Figure
measure(const std::string& name, mx::Dtype dtype, const Operation& operation) {
  const auto x =
      mx::astype(mx::random::uniform({kRows, kColumns}, mx::float32), dtype);
  mx::eval(x);
  std::vector<double> seconds;
  for (int run = -2; run < kRuns; ++run) {
    const double some = seconds_of(x, operation, kShort);
    const double more = seconds_of(x, operation, kLong);
    if (run >= 0) { // the first two compile and warm up
      seconds.push_back((more - some) / (kLong - kShort));
    }
  }
  std::ranges::sort(seconds);
  const double each = zmlx::median(seconds);
  return {
      name,
      each * 1e6,
      seconds.front() * 1e6,
      seconds.back() * 1e6,
      2.0 * x.nbytes() / each / 1e9};
}

bool is_narrow(const Figure& figure) {
  return figure.name.ends_with("bfloat16");
}

// A kernel whose threads take so many bytes each.
zmlx::Kernel raw(const char* name, const char* body, size_t bytes) {
  return zmlx::Kernel(
      {.name = name, .inputs = {"x"}, .body = body},
      {.grid =
           [bytes](const std::vector<mx::array>& in) {
             return zmlx::KernelSize{static_cast<int>(in[0].nbytes() / bytes)};
           },
       .threadgroup = zmlx::KernelSize{256}});
}

} // namespace

int main() {
  if (mx::default_device() == mx::Device::cpu) {
    std::cerr << "gpu_figures: this build of MLX has no GPU here\n";
    return 2;
  }
  const auto copy =
      raw("copy4",
          "uint i = thread_position_in_grid.x;\n"
          "((device float4*)out)[i] = ((const device float4*)x)[i];",
          16);
  const auto scale = raw(
      "scale1", "uint i = thread_position_in_grid.x; out[i] = x[i] * 0.5f;", 4);
  const auto same = zmlx::elementwise("x");
  const auto mish = zmlx::elementwise("x * tanh(log(1 + exp(x)))");
  const auto softmax = zmlx::map_reduce(
      {.pass1 = {.init = "-INFINITY", .update = "max(acc1, x)"},
       .pass2 = {.init = "0", .update = "acc2 + exp(x - s1)"},
       .write = "exp(x - s1) / s2"});
  const auto silu = zmlx::elementwise("x * sigmoid(x)");
  const auto norm = zmlx::map_reduce(
      {.pass1 = {.init = "0", .update = "acc1 + x * x"},
       .write = "x * rsqrt(s1 / 4096.0f + 1e-5f)"});
  std::vector<Figure> figures;
  mx::Dtype dtype = mx::float32;
  const auto add = [&](std::string name, const Operation& operation) {
    name += dtype == mx::float32 ? " float32" : " bfloat16";
    figures.push_back(measure(name, dtype, operation));
  };
  add("raw scale, one element a thread",
      [&](const mx::array& v) { return scale({v})[0]; });
  add("stock mish composed", [](const mx::array& v) {
    return mx::multiply(
        v, mx::tanh(mx::log(mx::add(mx::array(1.0f), mx::exp(v)))));
  });
  for (const auto each : {mx::float32, mx::bfloat16}) {
    dtype = each;
    add("raw copy by 16 bytes",
        [&](const mx::array& v) { return copy({v})[0]; });
    add("elementwise copy", [&](const mx::array& v) { return same(v); });
    add("stock negative", [](const mx::array& v) { return mx::negative(v); });
    add("elementwise mish", [&](const mx::array& v) { return mish(v); });
    add("elementwise silu", [&](const mx::array& v) { return silu(v); });
    add("map_reduce softmax", [&](const mx::array& v) { return softmax(v); });
    add("catalog softmax",
        [&](const mx::array& v) { return zmlx::softmax::softmax(v); });
    add("stock softmax", [](const mx::array& v) { return mx::softmax(v, -1); });
    add("map_reduce rms_norm", [&](const mx::array& v) { return norm(v); });
  }

  // Against the best copy of as many elements of the same size.
  double copied[2] = {};
  for (const auto& figure : figures) {
    if (figure.name.find("negative") != std::string::npos ||
        figure.name.find("copy") != std::string::npos) {
      auto& best = copied[is_narrow(figure)];
      best = std::max(best, figure.gb_per_s);
    }
  }
  zmlx::Json rows = zmlx::Json::array();
  for (const auto& figure : figures) {
    rows.push_back(
        {{"name", figure.name},
         {"elements", int64_t{kRows} * kColumns},
         {"median_us", figure.microseconds},
         {"least_us", figure.least},
         {"most_us", figure.most},
         {"gb_per_s", figure.gb_per_s},
         {"percent_of_copy",
          100 * figure.gb_per_s / copied[is_narrow(figure)]}});
  }
  std::cout << rows.dump(2) << '\n';
}
