// SPDX-License-Identifier: MIT
#include "zmlx/authoring/kernel.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <set>

#include "zmlx/authoring/kernel_run.h"
#include "zmlx/base/env.h"
#include "zmlx/base/error.h"
#include "zmlx/runtime/transformed_op.h"

namespace zmlx {
namespace {

using Arrays = std::vector<mx::array>;

constexpr int kMaxThreads = 1024;
constexpr int kMaxThreadsAlongZ = 64; // CUDA's limit

bool is_identifier(const std::string& name) {
  const auto good = [](char c, bool first) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
        (!first && c >= '0' && c <= '9');
  };
  for (size_t i = 0; i < name.size(); ++i) {
    if (!good(name[i], i == 0)) {
      return false;
    }
  }
  return !name.empty() && !name.starts_with("zm_");
}

void check_names(const KernelSource& source) {
  const std::string op = concat("kernel ", source.name);
  if (!is_identifier(source.name)) {
    invalid(
        "kernel",
        "name must be an identifier that does not start with zm_, got '",
        source.name,
        "'.");
  }
  if (source.outputs.empty()) {
    invalid(op, "outputs must name at least one array, got none.");
  }
  std::set<std::string> seen;
  for (const auto* names : {&source.inputs, &source.outputs}) {
    for (const auto& name : *names) {
      if (!is_identifier(name)) {
        invalid(op, "arrays must be named by identifiers, got '", name, "'.");
      }
      if (!seen.insert(name).second) {
        invalid(op, "names of arrays must differ, got '", name, "' twice.");
      }
    }
  }
}

std::atomic<bool>& all_checked() {
  static std::atomic<bool> on = env("ZMLX_CHECK_KERNELS") == "1";
  return on;
}

std::string text_of(KernelSize size) {
  return concat('(', size.x, ", ", size.y, ", ", size.z, ')');
}

template <class T>
const FromInputs<T>& first_set(
    const FromInputs<T>& first,
    const FromInputs<T>& second) {
  return first ? first : second;
}

template <class T>
std::vector<T> of_outputs(
    const std::string& op,
    const FromInputs<std::vector<T>>& given,
    const Arrays& inputs,
    size_t count,
    const char* what,
    T (*of_first)(const mx::array&)) {
  if (!given) {
    if (inputs.empty()) {
      invalid(
          op, what, " must be given for a kernel without inputs, got none.");
    }
    return std::vector<T>(count, of_first(inputs[0]));
  }
  auto values = given.of(inputs);
  if (values.size() != count) {
    invalid(
        op,
        what,
        " must have one entry for each of ",
        count,
        " outputs, got ",
        values.size(),
        '.');
  }
  return values;
}

KernelSize default_threadgroup(KernelSize grid) {
  const unsigned most = std::clamp(grid.x, 1, 512);
  return {static_cast<int>(std::bit_floor(most)), 1, 1};
}

void check_sizes(
    const std::string& op,
    KernelSize grid,
    KernelSize threadgroup) {
  if (grid.x < 1 || grid.y < 1 || grid.z < 1) {
    invalid(
        op,
        "grid must have at least one thread along each axis, got ",
        text_of(grid),
        '.');
  }
  if (threadgroup.x < 1 || threadgroup.y < 1 || threadgroup.z < 1) {
    invalid(
        op,
        "threadgroup must have at least one thread along each axis, got ",
        text_of(threadgroup),
        '.');
  }
  const int64_t threads =
      int64_t{threadgroup.x} * threadgroup.y * threadgroup.z;
  if (threads > kMaxThreads) {
    invalid(
        op,
        "threadgroup must have at most ",
        kMaxThreads,
        " threads, got ",
        text_of(threadgroup),
        " = ",
        threads,
        '.');
  }
  if (threadgroup.z > kMaxThreadsAlongZ) {
    invalid(
        op,
        "threadgroup must have at most ",
        kMaxThreadsAlongZ,
        " threads along z, got ",
        text_of(threadgroup),
        '.');
  }
}

} // namespace

struct Kernel::State {
  KernelSource source;
  KernelLaunch launch;
  Vjp vjp;
  std::optional<bool> checked;
  std::shared_ptr<KernelRunner> runner;

  std::string op() const {
    return "kernel " + source.name;
  }
  KernelCall resolve(const Arrays& inputs, const KernelLaunch& launch) const;
  Arrays run(const Arrays& inputs, const KernelCall& call) const {
    return runner->run(inputs, call, checked.value_or(all_checked()));
  }
  Arrays gradient(
      const Arrays& inputs,
      const Arrays& cotangents,
      const Arrays& outputs) const;
};

KernelCall Kernel::State::resolve(
    const Arrays& inputs,
    const KernelLaunch& given) const {
  if (inputs.size() != source.inputs.size()) {
    invalid(
        op(),
        "inputs must be ",
        source.inputs.size(),
        " arrays, got ",
        inputs.size(),
        '.');
  }
  const size_t count = source.outputs.size();
  KernelCall call;
  call.output_shapes = of_outputs<mx::Shape>(
      op(),
      first_set(given.output_shapes, launch.output_shapes),
      inputs,
      count,
      "output_shapes",
      [](const mx::array& x) { return x.shape(); });
  call.output_dtypes = of_outputs<mx::Dtype>(
      op(),
      first_set(given.output_dtypes, launch.output_dtypes),
      inputs,
      count,
      "output_dtypes",
      [](const mx::array& x) { return x.dtype(); });
  if (const auto& t = first_set(given.templates, launch.templates)) {
    call.templates = t.of(inputs);
  }
  call.init_value = given.init_value ? given.init_value : launch.init_value;
  call.empty = true;
  int64_t elements = 1;
  for (size_t i = 0; i < count; ++i) {
    int64_t size = 1;
    for (const auto length : call.output_shapes[i]) {
      if (length < 0) {
        invalid(
            op(),
            "lengths of '",
            source.outputs[i],
            "' must not be negative, got ",
            length,
            '.');
      }
      size *= length;
    }
    call.empty &= size == 0;
    elements = i == 0 ? size : elements;
  }
  if (call.empty) {
    return call; // nothing to fill, so nothing to launch
  }
  if (const auto& g = first_set(given.grid, launch.grid)) {
    call.grid = g.of(inputs);
  } else if (elements > INT32_MAX) {
    invalid(
        op(),
        "grid must be given for more than 2^31 - 1 elements, got ",
        elements,
        '.');
  } else {
    call.grid = {static_cast<int>(elements), 1, 1};
  }
  const auto& t = first_set(given.threadgroup, launch.threadgroup);
  call.threadgroup = t ? t.of(inputs) : default_threadgroup(call.grid);
  check_sizes(op(), call.grid, call.threadgroup);
  return call;
}

Arrays Kernel::State::gradient(
    const Arrays& inputs,
    const Arrays& cotangents,
    const Arrays& outputs) const {
  if (!vjp) {
    invalid(op(), "a gradient must be given through custom_vjp, got none.");
  }
  auto gradients = vjp(inputs, cotangents, outputs);
  if (gradients.size() != inputs.size()) {
    invalid(
        op(),
        "custom_vjp must return one gradient for each of ",
        inputs.size(),
        " inputs, got ",
        gradients.size(),
        '.');
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (gradients[i].shape() != inputs[i].shape()) {
      invalid(
          op(),
          "custom_vjp must return a gradient of the shape of '",
          source.inputs[i],
          "', ",
          inputs[i].shape(),
          ", got ",
          gradients[i].shape(),
          '.');
    }
  }
  return gradients;
}

namespace {

// The kernel once for each element along the mapped axes, stacked.
template <class Call>
std::pair<Arrays, std::vector<int>> run_mapped(
    const Arrays& inputs,
    const std::vector<int>& axes,
    const Call& call) {
  int length = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    length = axes[i] >= 0 ? inputs[i].shape(axes[i]) : length;
  }
  const auto element = [&](int at) {
    Arrays slices;
    for (size_t i = 0; i < inputs.size(); ++i) {
      slices.push_back(
          axes[i] < 0 ? inputs[i]
              : length > 0
              ? mx::take(inputs[i], at, axes[i])
              : mx::zeros(
                    mx::squeeze(mx::sum(inputs[i], axes[i], true), axes[i])
                        .shape(),
                    inputs[i].dtype()));
    }
    return call(slices);
  };
  std::vector<Arrays> results; // by output
  for (int at = 0; at < std::max(length, 1); ++at) {
    const auto outputs = element(at);
    results.resize(outputs.size());
    for (size_t i = 0; i < outputs.size(); ++i) {
      results[i].push_back(outputs[i]);
    }
  }
  Arrays stacked;
  for (const auto& outputs : results) {
    auto all = mx::stack(outputs, 0);
    if (length == 0) {
      auto shape = all.shape();
      shape[0] = 0;
      all = mx::zeros(shape, all.dtype());
    }
    stacked.push_back(all);
  }
  return {stacked, std::vector<int>(stacked.size(), 0)};
}

} // namespace

Kernel::Kernel(KernelSource source, KernelLaunch launch) {
  check_names(source);
  auto state = std::make_shared<State>();
  state->source = std::move(source);
  state->launch = std::move(launch);
  state->runner = std::make_shared<KernelRunner>(state->source);
  state_ = std::move(state);
}

std::vector<mx::array> Kernel::operator()(
    const Arrays& inputs,
    const KernelLaunch& launch) const {
  const auto state = state_;
  const auto call = state->resolve(inputs, launch);
  const auto outputs = state->run(inputs, call);
  // Building the transformations costs as much as the call itself.
  const bool traced = std::ranges::any_of(
      inputs, [](const mx::array& input) { return input.is_tracer(); });
  if (call.empty || !traced) {
    return outputs;
  }
  OpTransforms transforms;
  transforms.vjp =
      [state](const Arrays& in, const Arrays& cotangents, const Arrays& out) {
        return state->gradient(in, cotangents, out);
      };
  transforms.jvp =
      [state](const Arrays&, const Arrays&, const std::vector<int>&) -> Arrays {
    invalid(state->op(), "only reverse-mode gradients are possible, got jvp.");
  };
  transforms.vmap = [self = *this, launch](
                        const Arrays& in, const std::vector<int>& axes) {
    return run_mapped(
        in, axes, [&](const Arrays& slices) { return self(slices, launch); });
  };
  return transformed_op(outputs, inputs.size(), std::move(transforms));
}

Kernel Kernel::custom_vjp(Vjp vjp) const {
  Kernel result = *this;
  auto state = std::make_shared<State>(*state_);
  state->vjp = std::move(vjp);
  result.state_ = std::move(state);
  return result;
}

Kernel Kernel::checked(bool on) const {
  Kernel result = *this;
  auto state = std::make_shared<State>(*state_);
  state->checked = on;
  result.state_ = std::move(state);
  return result;
}

const KernelSource& Kernel::source() const {
  return state_->source;
}

void set_checked_kernels(bool on) {
  all_checked() = on;
}

} // namespace zmlx
