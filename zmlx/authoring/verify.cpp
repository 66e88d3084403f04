// SPDX-License-Identifier: MIT
#include "zmlx/authoring/verify.h"

#include <cmath>

#include "zmlx/authoring/verify_case.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx {
namespace {

constexpr uint64_t kSeed = 17;

bool is_floating(const mx::array& array) {
  return mx::issubdtype(array.dtype(), mx::floating);
}

Tolerance value_tolerance(double ulps, int64_t terms, mx::Dtype dtype) {
  const double epsilon = epsilon_of(mx::float32);
  // Rounding to a narrower type costs half of its epsilon; subnormals of
  // float16 are 2^-24 apart.
  const double rounding = dtype == mx::float32 ? 0 : 0.51 * epsilon_of(dtype);
  const double absolute = dtype == mx::float16 ? 0x1p-24 : 0x1p-126;
  const double sums = 2 * std::sqrt(static_cast<double>(terms));
  return terms > 1 ? Tolerance{absolute, rounding, (ulps + sums) * epsilon}
                   : Tolerance{absolute, rounding + ulps * epsilon, 0};
}

// The checks of every kernel.
class Driver {
 public:
  explicit Driver(const VerifyCase& at) : at_(at) {}

  std::string values(const Arrays& inputs) const {
    return values_difference(at_.spec, at_.one, inputs, at_.run(inputs));
  }

  std::string strided() const {
    for (auto view : {every_second, transposed, reversed}) {
      const std::string why = values(with_plain(view));
      if (!why.empty()) {
        return concat(
            view == every_second     ? "every second value: "
                : view == transposed ? "transposed: "
                                     : "reversed: ",
            why);
      }
    }
    return "";
  }

  std::string broadcast() const {
    return values(with_plain([](const mx::array& x) {
      mx::Shape first = x.shape();
      first[0] = std::min(first[0], 1);
      return mx::broadcast_to(
          mx::slice(x, mx::Shape(x.ndim(), 0), first), x.shape());
    }));
  }

  std::string ties() const {
    const Arrays inputs =
        with_plain([](const mx::array& x) { return mx::round(x); });
    const std::string why = values(inputs);
    return why.empty() && !at_.spec.gradient.empty()
        ? gradients_difference(at_, inputs)
        : why;
  }

  std::string specials() const {
    const std::vector<float> specials = at_.spec.specials == Specials::kAll
        ? std::vector<float>{NAN, INFINITY, -INFINITY, 0.0f, -0.0f}
        : std::vector<float>{NAN, 0.0f, -0.0f};
    return values(with_plain(
        [&](const mx::array& x) { return spread_over(x, specials); }));
  }

  std::string repeats() const {
    return bit_difference(at_.spec, at_.run(at_.inputs), at_.run(at_.inputs));
  }

  std::string threads() const {
    struct Restore {
      int before = num_threads();
      ~Restore() {
        set_num_threads(before);
      }
    } restore;
    set_num_threads(1);
    const Arrays one = at_.run(at_.inputs);
    for (int count : {2, 3}) {
      set_num_threads(count);
      const std::string why =
          bit_difference(at_.spec, at_.run(at_.inputs), one);
      if (!why.empty()) {
        return concat(count, " threads: ", why);
      }
    }
    return "";
  }

 private:
  // The inputs, with the plain ones of at least one axis changed.
  template <class Change>
  Arrays with_plain(Change&& change) const {
    Arrays changed = at_.inputs;
    for (size_t i = 0; i < changed.size(); ++i) {
      if (at_.spec.inputs[i].plain && is_floating(changed[i]) &&
          changed[i].ndim() > 0) {
        changed[i] = change(changed[i]);
      }
    }
    mx::eval(changed);
    return changed;
  }

  static mx::array every_second(const mx::array& x) {
    const mx::array pairs = mx::stack({x, x + mx::array(1, x.dtype())}, -1);
    mx::Shape end = pairs.shape();
    end.back() = 1;
    return mx::squeeze(mx::slice(pairs, mx::Shape(pairs.ndim(), 0), end), -1);
  }

  static mx::array transposed(const mx::array& x) {
    return mx::transpose(mx::contiguous(mx::transpose(x)));
  }

  static mx::array reversed(const mx::array& x) {
    mx::Shape begin(x.ndim(), 0), end = x.shape(), step(x.ndim(), 1);
    begin.back() = -1;
    end.back() = -x.shape(-1) - 1;
    step.back() = -1;
    return mx::slice(
        mx::contiguous(mx::slice(x, begin, end, step)), begin, end, step);
  }

  static mx::array spread_over(
      const mx::array& x,
      const std::vector<float>& specials) {
    std::vector<float> values(x.size());
    std::vector<bool> there(x.size());
    for (size_t i = 0; i < specials.size() && i < x.size(); ++i) {
      values[i * x.size() / specials.size()] = specials[i];
      there[i * x.size() / specials.size()] = true;
    }
    return mx::where(
        mx::array(there.begin(), x.shape(), mx::bool_),
        mx::array(values.begin(), x.shape(), x.dtype()),
        x);
  }

  const VerifyCase& at_;
};

std::vector<Check> all_checks(const VerifyCase& at) {
  const KernelSpec& spec = at.spec;
  const Driver driver(at);
  std::vector<Check> checks = {
      checked("values", [&] { return driver.values(at.inputs); })};
  if (!spec.gradient.empty()) {
    for (auto& check : transform_checks(at)) {
      checks.push_back(std::move(check));
    }
  }
  checks.push_back(checked("strided", [&] { return driver.strided(); }));
  checks.push_back(checked("broadcast", [&] { return driver.broadcast(); }));
  checks.push_back(checked("ties", [&] { return driver.ties(); }));
  if (spec.specials != Specials::kNone) {
    checks.push_back(checked("specials", [&] { return driver.specials(); }));
  }
  checks.push_back(checked("repeats", [&] { return driver.repeats(); }));
  if (at.device == mx::Device::cpu) {
    checks.push_back(checked("threads", [&] { return driver.threads(); }));
  }
  return checks;
}

} // namespace

Arrays widened(const Arrays& arrays, mx::Dtype dtype) {
  mx::StreamContext cpu{mx::Device(mx::Device::cpu)};
  Arrays wide;
  for (const auto& array : arrays) {
    wide.push_back(is_floating(array) ? mx::astype(array, dtype) : array);
  }
  return wide;
}

std::string
bit_difference(const KernelSpec& spec, const Arrays& got, const Arrays& want) {
  for (size_t i = 0; i < got.size(); ++i) {
    const std::string why = bit_difference(got[i], want[i]);
    if (!why.empty()) {
      return concat(spec.outputs[i].name, ": ", why);
    }
  }
  return "";
}

std::string values_difference(
    const KernelSpec& spec,
    const KernelCase& one,
    const Arrays& inputs,
    const Arrays& outputs,
    mx::Dtype oracle) {
  // Not evaluated: only its types count.
  const Arrays typed = spec.reference(inputs, one.params);
  if (outputs.size() != typed.size() || outputs.size() != spec.outputs.size()) {
    return concat(
        "must have ", typed.size(), " outputs, got ", outputs.size(), '.');
  }
  // No GPU has float64; and float32 products there may be TF32.
  mx::StreamContext cpu{mx::Device(mx::Device::cpu)};
  const Arrays wide = widened(inputs, oracle);
  const Arrays want = spec.reference(wide, one.params);
  const Arrays sizes =
      spec.term_sizes ? spec.term_sizes(wide, one.params) : Arrays{};
  // In float32 the reference cancels where it likes.
  const bool exact = oracle == mx::float64;
  const double ulps = exact ? spec.ulps : 4 * spec.ulps;
  const int64_t terms =
      std::max<int64_t>((spec.terms ? spec.terms(one) : 1), exact ? 1 : 2);
  for (size_t i = 0; i < want.size(); ++i) {
    const mx::Dtype dtype = typed[i].dtype();
    Tolerance allowed = value_tolerance(ulps, terms, dtype);
    allowed.largest = i < sizes.size() ? largest_finite(sizes[i]) : 0;
    std::string why = outputs[i].dtype() == dtype
        ? difference(outputs[i], want[i], allowed)
        : concat("type must be ", dtype, ", got ", outputs[i].dtype(), '.');
    if (!why.empty()) {
      return concat(spec.outputs[i].name, ": ", why);
    }
  }
  return "";
}

std::vector<Check> verify(
    const KernelSpec& spec,
    const KernelCase& one,
    const mx::Device& device) {
  VerifyCase at{spec, one, device, {}};
  const Check inputs = checked("inputs", [&] {
    at.inputs = make_inputs(spec, one, kSeed);
    mx::eval(at.inputs);
    return std::string();
  });
  return inputs.passed ? all_checks(at) : std::vector<Check>{inputs};
}

std::vector<mx::Device> devices_of(const KernelSpec& spec) {
  std::vector<mx::Device> devices = {mx::Device(mx::Device::cpu)};
  if (spec.gpu && mx::is_available(mx::Device(mx::Device::gpu))) {
    devices.push_back(mx::Device(mx::Device::gpu));
  }
  return devices;
}

} // namespace zmlx
