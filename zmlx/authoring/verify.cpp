// SPDX-License-Identifier: MIT
#include "zmlx/authoring/verify.h"

#include <cmath>

#include "zmlx/authoring/difference.h"
#include "zmlx/base/error.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx {
namespace {

constexpr uint64_t kSeed = 17;

bool is_floating(const mx::array& array) {
  return mx::issubdtype(array.dtype(), mx::floating);
}

// What the oracle reads: the same values in a wide type.
Arrays widened(const Arrays& arrays, mx::Dtype dtype = mx::float64) {
  mx::StreamContext cpu{mx::Device(mx::Device::cpu)};
  Arrays wide;
  for (const auto& array : arrays) {
    wide.push_back(is_floating(array) ? mx::astype(array, dtype) : array);
  }
  return wide;
}

int64_t terms_of(const KernelSpec& spec, const KernelCase& one) {
  return spec.terms ? spec.terms(one) : 1;
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

// Gradients sum over whatever was broadcast, and are held to the largest.
Tolerance
gradient_tolerance(const KernelSpec& spec, double terms, mx::Dtype dtype) {
  const double epsilon = epsilon_of(mx::float32);
  const double rounding = dtype == mx::float32 ? 0 : 2 * epsilon_of(dtype);
  return {
      0x1p-126,
      rounding,
      rounding + (4 * spec.ulps + 2 * std::sqrt(terms)) * epsilon};
}

class Driver {
 public:
  Driver(
      const KernelSpec& spec,
      const KernelCase& one,
      const mx::Device& device)
      : spec_(spec),
        case_(one),
        device_(device),
        inputs_(make_inputs(spec, one, kSeed)) {
    mx::eval(inputs_);
  }

  std::string values(const Arrays& inputs) const {
    return values_difference(spec_, case_, inputs, run(inputs));
  }

  std::string gradients(const Arrays& inputs) const {
    const Arrays outputs = run(inputs);
    Arrays cotangents;
    for (size_t i = 0; i < outputs.size(); ++i) {
      cotangents.push_back(normal_values(
          outputs[i].shape(), outputs[i].dtype(), kSeed + 100 + i));
    }
    const Arrays got =
        on_device([&] { return differentiate(spec_.run, inputs, cotangents); });
    mx::StreamContext cpu{mx::Device(mx::Device::cpu)};
    const Arrays want =
        differentiate(spec_.reference, widened(inputs), widened(cotangents));
    return compare_gradients(inputs, got, want);
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
    return why.empty() && !spec_.gradient.empty() ? gradients(inputs) : why;
  }

  std::string specials() const {
    const std::vector<float> specials = spec_.specials == Specials::kAll
        ? std::vector<float>{NAN, INFINITY, -INFINITY, 0.0f, -0.0f}
        : std::vector<float>{NAN, 0.0f, -0.0f};
    return values(with_plain(
        [&](const mx::array& x) { return spread_over(x, specials); }));
  }

  std::string repeats() const {
    return same_bits(run(inputs_), run(inputs_));
  }

  std::string threads() const {
    struct Restore {
      int before = num_threads();
      ~Restore() {
        set_num_threads(before);
      }
    } restore;
    set_num_threads(1);
    const Arrays one = run(inputs_);
    for (int count : {2, 3}) {
      set_num_threads(count);
      const std::string why = same_bits(run(inputs_), one);
      if (!why.empty()) {
        return concat(count, " threads: ", why);
      }
    }
    return "";
  }

  const Arrays& inputs() const {
    return inputs_;
  }

 private:
  template <class Work>
  Arrays on_device(Work&& work) const {
    mx::StreamContext context{device_};
    Arrays outputs = work();
    mx::eval(outputs);
    return outputs;
  }

  Arrays run(const Arrays& inputs) const {
    return on_device([&] { return spec_.run(inputs, case_.params); });
  }

  // The vector-Jacobian products in the inputs of spec.gradient.
  Arrays differentiate(
      const KernelFunction& function,
      const Arrays& inputs,
      const Arrays& cotangents) const {
    Arrays primals;
    for (int place : spec_.gradient) {
      primals.push_back(inputs[static_cast<size_t>(place)]);
    }
    const auto of_primals = [&](const Arrays& given) {
      Arrays all = inputs;
      for (size_t i = 0; i < given.size(); ++i) {
        all[static_cast<size_t>(spec_.gradient[i])] = given[i];
      }
      return function(all, case_.params);
    };
    return mx::vjp(of_primals, primals, cotangents).second;
  }

  std::string compare_gradients(
      const Arrays& inputs,
      const Arrays& got,
      const Arrays& want) const {
    size_t largest = 1;
    for (const auto& input : inputs) {
      largest = std::max(largest, input.size());
    }
    for (size_t i = 0; i < got.size(); ++i) {
      const auto place = static_cast<size_t>(spec_.gradient[i]);
      const mx::Dtype dtype = inputs[place].dtype();
      const double terms = static_cast<double>(terms_of(spec_, case_)) *
          static_cast<double>(largest) /
          static_cast<double>(std::max<size_t>(1, got[i].size()));
      std::string why = got[i].dtype() == dtype
          ? difference(got[i], want[i], gradient_tolerance(spec_, terms, dtype))
          : concat("type must be ", dtype, ", got ", got[i].dtype(), '.');
      if (!why.empty()) {
        return concat("gradient in ", spec_.inputs[place].name, ": ", why);
      }
    }
    return "";
  }

  std::string same_bits(const Arrays& got, const Arrays& want) const {
    for (size_t i = 0; i < got.size(); ++i) {
      const std::string why = bit_difference(got[i], want[i]);
      if (!why.empty()) {
        return concat(spec_.outputs[i].name, ": ", why);
      }
    }
    return "";
  }

  // The inputs, with the plain ones of at least one axis changed.
  template <class Change>
  Arrays with_plain(Change&& change) const {
    Arrays changed = inputs_;
    for (size_t i = 0; i < changed.size(); ++i) {
      if (spec_.inputs[i].plain && is_floating(changed[i]) &&
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

  const KernelSpec& spec_;
  const KernelCase& case_;
  const mx::Device device_;
  const Arrays inputs_;
};

template <class Work>
Check checked(const char* name, Work&& work) {
  try {
    std::string why = work();
    return {name, why.empty(), std::move(why)};
  } catch (const std::exception& error) {
    return {name, false, concat("threw: ", error.what())};
  }
}

} // namespace

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
  const Arrays want = spec.reference(widened(inputs, oracle), one.params);
  // In float32 the reference cancels where it likes.
  const bool exact = oracle == mx::float64;
  const double ulps = exact ? spec.ulps : 4 * spec.ulps;
  const int64_t terms = std::max<int64_t>(terms_of(spec, one), exact ? 1 : 2);
  for (size_t i = 0; i < want.size(); ++i) {
    const mx::Dtype dtype = typed[i].dtype();
    std::string why = outputs[i].dtype() == dtype
        ? difference(outputs[i], want[i], value_tolerance(ulps, terms, dtype))
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
  std::vector<Check> checks;
  const Driver driver(spec, one, device);
  checks.push_back(
      checked("values", [&] { return driver.values(driver.inputs()); }));
  if (!spec.gradient.empty()) {
    checks.push_back(checked(
        "gradients", [&] { return driver.gradients(driver.inputs()); }));
  }
  checks.push_back(checked("strided", [&] { return driver.strided(); }));
  checks.push_back(checked("broadcast", [&] { return driver.broadcast(); }));
  checks.push_back(checked("ties", [&] { return driver.ties(); }));
  if (spec.specials != Specials::kNone) {
    checks.push_back(checked("specials", [&] { return driver.specials(); }));
  }
  checks.push_back(checked("repeats", [&] { return driver.repeats(); }));
  if (device == mx::Device::cpu) {
    checks.push_back(checked("threads", [&] { return driver.threads(); }));
  }
  return checks;
}

std::vector<mx::Device> devices_of(const KernelSpec& spec) {
  std::vector<mx::Device> devices = {mx::Device(mx::Device::cpu)};
  if (spec.gpu && mx::is_available(mx::Device(mx::Device::gpu))) {
    devices.push_back(mx::Device(mx::Device::gpu));
  }
  return devices;
}

} // namespace zmlx
