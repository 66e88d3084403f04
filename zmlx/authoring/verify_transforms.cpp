// SPDX-License-Identifier: MIT
// What MLX's transformations must make of a differentiable kernel.
#include <algorithm>
#include <cmath>

#include "mlx/compile.h"
#include "zmlx/authoring/verify_case.h"

namespace zmlx {
namespace {

constexpr uint64_t kCotangentSeed = 117, kTangentSeed = 217;

// Gradients sum over whatever was broadcast, and are held to the largest.
Tolerance gradient_tolerance(double ulps, double terms, mx::Dtype dtype) {
  const double epsilon = epsilon_of(mx::float32);
  const double rounding = dtype == mx::float32 ? 0 : 2 * epsilon_of(dtype);
  return {
      0x1p-126, rounding, rounding + (ulps + 2 * std::sqrt(terms)) * epsilon};
}

// Cotangents or tangents; those of integers are zeros.
Arrays values_like(const Arrays& arrays, uint64_t seed) {
  Arrays values;
  for (const auto& array : arrays) {
    values.push_back(
        mx::issubdtype(array.dtype(), mx::floating)
            ? normal_values(array.shape(), array.dtype(), seed++)
            : mx::zeros_like(array));
  }
  mx::eval(values);
  return values;
}

// The inputs in which the kernel is differentiable.
Arrays primals_of(const VerifyCase& at, const Arrays& inputs) {
  Arrays primals;
  for (int place : at.spec.gradient) {
    primals.push_back(inputs[static_cast<size_t>(place)]);
  }
  return primals;
}

// A function of those inputs alone; the others stay as they are.
ArrayFunction
of_primals(const VerifyCase& at, KernelFunction function, Arrays inputs) {
  return [&at, function = std::move(function), inputs = std::move(inputs)](
             const Arrays& given) {
    Arrays all = inputs;
    for (size_t i = 0; i < given.size(); ++i) {
      all[static_cast<size_t>(at.spec.gradient[i])] = given[i];
    }
    return function(all, at.one.params);
  };
}

// Primals to gradients under fixed cotangents.
ArrayFunction gradient_of(ArrayFunction function, Arrays cotangents) {
  return [function = std::move(function),
          cotangents = std::move(cotangents)](const Arrays& primals) {
    return mx::vjp(function, primals, cotangents).second;
  };
}

// terms_of: the size of terms that may cancel.
std::string compare_gradients(
    const VerifyCase& at,
    const Arrays& primals,
    const Arrays& got,
    const Arrays& want,
    double ulps,
    double terms_of = 0) {
  size_t largest = 1;
  for (const auto& input : at.inputs) {
    largest = std::max(largest, input.size());
  }
  for (size_t i = 0; i < got.size(); ++i) {
    const mx::Dtype dtype = primals[i].dtype();
    const double terms = static_cast<double>(at.terms()) *
        static_cast<double>(largest) /
        static_cast<double>(std::max<size_t>(1, got[i].size()));
    auto tolerance = gradient_tolerance(ulps, terms, dtype);
    tolerance.absolute += terms_of * epsilon_of(mx::float32);
    std::string why = got[i].dtype() == dtype
        ? difference(got[i], want[i], tolerance)
        : concat("type must be ", dtype, ", got ", got[i].dtype(), '.');
    if (!why.empty()) {
      const auto place = static_cast<size_t>(at.spec.gradient[i]);
      return concat("in ", at.spec.inputs[place].name, ": ", why);
    }
  }
  return "";
}

double dot(const Arrays& a, const Arrays& b, bool sizes) {
  double sum = 0;
  const Arrays x = widened(a), y = widened(b);
  mx::StreamContext cpu{mx::Device(mx::Device::cpu)};
  for (size_t i = 0; i < x.size(); ++i) {
    if (!mx::issubdtype(x[i].dtype(), mx::floating)) {
      continue;
    }
    const mx::array product = x[i] * y[i];
    sum += mx::sum(sizes ? mx::abs(product) : product).item<double>();
  }
  return sum;
}

double largest(const Arrays& arrays) {
  mx::StreamContext cpu{mx::Device(mx::Device::cpu)};
  double most = 0;
  for (const auto& array : widened(arrays)) {
    if (array.size() > 0) {
      most = std::max(most, mx::max(mx::abs(array)).item<double>());
    }
  }
  return most;
}

// <J v, g> = <v, J^T g>, with the gradient that was checked before.
std::string jvp(const VerifyCase& at) {
  const Arrays primals = primals_of(at, at.inputs);
  const auto function = of_primals(at, at.spec.run, at.inputs);
  const Arrays cotangents = values_like(at.run(at.inputs), kCotangentSeed);
  const Arrays tangents = values_like(primals, kTangentSeed);
  const Arrays forward =
      at.on_device([&] { return mx::jvp(function, primals, tangents).second; });
  const Arrays backward =
      at.on_device([&] { return gradient_of(function, cotangents)(primals); });
  const double got = dot(forward, cotangents, false);
  const double want = dot(tangents, backward, false);
  const double size =
      dot(forward, cotangents, true) + dot(tangents, backward, true);
  // As in second(): what is left of terms that cancel.
  const double terms =
      epsilon_of(mx::float32) * largest(tangents) * largest(cotangents);
  return std::abs(got - want) <= 1e-6 * (size + 1e-30) + terms
      ? ""
      : concat(
            "the product with a cotangent must be ", want, ", got ", got, '.');
}

std::string second(const VerifyCase& at) {
  const Arrays primals = primals_of(at, at.inputs);
  const Arrays outer = values_like(primals, kTangentSeed);
  const Arrays inner = values_like(at.run(at.inputs), kCotangentSeed);
  const Arrays got = at.on_device([&] {
    const auto function = of_primals(at, at.spec.run, at.inputs);
    return gradient_of(gradient_of(function, inner), outer)(primals);
  });
  mx::StreamContext cpu{mx::Device(mx::Device::cpu)};
  const auto function = of_primals(at, at.spec.reference, widened(at.inputs));
  const Arrays want = gradient_of(
      gradient_of(function, widened(inner)), widened(outer))(widened(primals));
  // Terms of the size of a product of cotangents may leave nothing but what
  // their rounding, and a compiler's fused products, make of it.
  return compare_gradients(
      at,
      primals,
      got,
      want,
      16 * at.spec.ulps,
      largest(outer) * largest(inner));
}

// Two sets of inputs as one, along an axis of each: the first or the last.
Arrays stacked(const Arrays& a, const Arrays& b, bool last) {
  Arrays both;
  for (size_t i = 0; i < a.size(); ++i) {
    both.push_back(
        mx::stack({a[i], b[i]}, last ? static_cast<int>(a[i].ndim()) : 0));
  }
  return both;
}

std::string vmap(const VerifyCase& at, bool last) {
  const Arrays others = make_inputs(at.spec, at.one, kTangentSeed);
  std::vector<int> axes;
  for (const auto& input : at.inputs) {
    axes.push_back(last ? static_cast<int>(input.ndim()) : 0);
  }
  const ArrayFunction function = [&](const Arrays& inputs) {
    Arrays results = at.spec.run(inputs, at.one.params);
    const Arrays gradients = gradient_of(
        of_primals(at, at.spec.run, inputs),
        values_like(results, kCotangentSeed))(primals_of(at, inputs));
    results.insert(results.end(), gradients.begin(), gradients.end());
    return results;
  };
  const Arrays got = at.on_device([&] {
    return mx::vmap(function, axes)(stacked(at.inputs, others, last));
  });
  const Arrays want = at.on_device(
      [&] { return stacked(function(at.inputs), function(others), false); });
  for (size_t i = 0; i < want.size(); ++i) {
    const std::string why = difference(
        got[i],
        want[i],
        gradient_tolerance(
            at.spec.ulps, static_cast<double>(at.terms()), want[i].dtype()));
    if (!why.empty()) {
      const bool value = i < at.spec.outputs.size();
      return concat(value ? "result " : "gradient ", i, ": ", why);
    }
  }
  return "";
}

std::string compiled(const VerifyCase& at) {
  const ArrayFunction function = [&](const Arrays& inputs) {
    return at.spec.run(inputs, at.one.params);
  };
  const Arrays got =
      at.on_device([&] { return mx::compile(function)(at.inputs); });
  return bit_difference(at.spec, got, at.run(at.inputs));
}

} // namespace

std::string gradients_difference(const VerifyCase& at, const Arrays& inputs) {
  const Arrays cotangents = values_like(at.run(inputs), kCotangentSeed);
  const Arrays primals = primals_of(at, inputs);
  const Arrays got = at.on_device([&] {
    return gradient_of(
        of_primals(at, at.spec.run, inputs), cotangents)(primals);
  });
  mx::StreamContext cpu{mx::Device(mx::Device::cpu)};
  const Arrays want = gradient_of(
      of_primals(at, at.spec.reference, widened(inputs)),
      widened(cotangents))(widened(primals));
  return compare_gradients(at, primals, got, want, 4 * at.spec.ulps);
}

std::vector<Check> transform_checks(const VerifyCase& at) {
  std::vector<Check> checks = {checked(
      "gradients", [&] { return gradients_difference(at, at.inputs); })};
  // What narrow types would add is rounding.
  if (at.one.dtype == mx::float32) {
    checks.push_back(checked("jvp", [&] { return jvp(at); }));
    checks.push_back(checked("second", [&] { return second(at); }));
    checks.push_back(checked("vmap", [&] {
      const std::string why = vmap(at, false);
      return why.empty() ? vmap(at, true) : why;
    }));
    checks.push_back(checked("compile", [&] { return compiled(at); }));
  }
  return checks;
}

} // namespace zmlx
