// SPDX-License-Identifier: MIT
// With h = x + residual, y = (h - mean) r, r = 1 / sqrt(variance + eps) and the
// cotangent g of y weight + bias:
//   dh      = r (g weight - mean(g weight) - y mean(g weight y))
//   dweight = sum of g y, dbias = sum of g over all rows
// where RMSNorm has no mean(g weight) and no mean of h.
#include "zmlx/kernels/common/norm_rows.h"

#include <cmath>
#include <compare>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "zmlx/authoring/reduce.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/dropout_mask.h"
#include "zmlx/kernels/common/kept_operations.h"
#include "zmlx/kernels/common/own_gradient.h"

namespace zmlx::norm {
namespace {

using Arrays = std::vector<mx::array>;

// What a text depends on.
struct Key {
  bool centred, residual, weight, bias, returns_sum;
  float eps;
  double dropout;
  auto operator<=>(const Key&) const = default;
};

// The texts of one form. Inputs: x, then residual, weight and bias where there
// are, then the places of dropout.
struct Text {
  explicit Text(const Key& key)
      : key(key),
        h(key.residual ? "(x + residual)" : "x"),
        y(key.centred ? concat("(", h, " - sum / D)") : h),
        scale(fmt::format("rsqrt(squares / D + {:.9e}f)", key.eps)) {
    if (key.centred) {
      totals.push_back({"sum", "0.0f", "acc + " + h});
    }
    totals.push_back({"squares", "0.0f", concat("acc + ", y, " * ", y)});
    names = {"x"};
    if (key.residual) {
      names.push_back("residual");
    }
    if (key.dropout > 0) {
      row_names = {"first", "second"};
      keep = "keep(column, first, second)";
      header = dropout_mask::text(key.dropout);
    }
  }

  RowOperation operation(
      const char* name,
      std::vector<std::string> more_names,
      std::vector<std::string> write,
      std::vector<std::string> finish) const {
    std::vector<std::string> all = names;
    all.insert(all.end(), more_names.begin(), more_names.end());
    if (!keep.empty()) {
      all.push_back("column");
    }
    return row_operation(
        {.name = name,
         .inputs = std::move(all),
         .row_inputs = row_names,
         .totals = totals,
         .write = std::move(write),
         .finish = std::move(finish),
         .header = header});
  }

  Key key;
  std::string h, y, scale, keep, header;
  std::vector<RowTotal> totals;
  std::vector<std::string> names, row_names;
};

RowOperation forward_operation(const Key& key) {
  const Text text(key);
  std::string result = concat(text.y, " * ", text.scale);
  std::vector<std::string> names;
  if (key.weight) {
    names.push_back("weight");
    result += " * weight";
  }
  if (key.bias) {
    names.push_back("bias");
    result += " + bias";
  }
  if (!text.keep.empty()) {
    result = concat("(", result, ") * ", text.keep);
  }
  std::vector<std::string> write = {result};
  if (key.returns_sum) {
    write.push_back(text.h);
  }
  return text.operation("norm", std::move(names), std::move(write), {});
}

// x, residual, weight, g, the sum's cotangent, places: the gradient in h, then
// the row's r and, when centred, its mean.
RowOperation input_gradient(const Key& key) {
  Text text(key);
  std::vector<std::string> names;
  std::string g = text.keep.empty() ? "g" : concat("(g * ", text.keep, ")");
  if (key.weight) {
    names.push_back("weight");
    g = concat("(", g, " * weight)");
  }
  names.push_back("g");
  if (key.centred) {
    text.totals.push_back({"slopes", "0.0f", "acc + " + g});
  }
  text.totals.push_back({"shared", "0.0f", concat("acc + ", g, " * ", text.y)});
  const std::string r = text.scale;
  std::string result = concat(
      r,
      " * (",
      g,
      key.centred ? " - slopes / D" : "",
      " - ",
      text.y,
      " * (",
      r,
      " * ",
      r,
      " * shared / D))");
  if (key.returns_sum) {
    names.push_back("gsum");
    result += " + gsum";
  }
  std::vector<std::string> finish = {r};
  if (key.centred) {
    finish.push_back("sum / D");
  }
  return text.operation(
      "norm_gradient", std::move(names), {result}, std::move(finish));
}

// Along columns, over all rows: x, residual, g, r, mean, places to the
// gradients of weight and bias.
RowOperation weight_gradient(const Key& key) {
  Text text(key);
  std::vector<std::string> names = text.names, finish;
  names.insert(names.end(), {"g", "r"});
  std::string y = text.h;
  if (key.centred) {
    names.push_back("mean");
    y = concat("(", y, " - mean)");
  }
  std::string g = "g";
  if (!text.keep.empty()) {
    names.insert(names.end(), {"column", "first", "second"});
    g = concat("(g * ", text.keep, ")");
  }
  std::vector<RowTotal> totals;
  if (key.weight) {
    totals.push_back(
        {"gweight", "0.0f", concat("acc + ", g, " * (", y, " * r)")});
    finish.push_back("gweight");
  }
  if (key.bias) {
    totals.push_back({"gbias", "0.0f", "acc + " + g});
    finish.push_back("gbias");
  }
  return row_operation(
      {.name = "norm_weight_gradient",
       .inputs = std::move(names),
       .totals = std::move(totals),
       .finish = std::move(finish),
       .header = text.header,
       .axis = 0});
}

using Kept = KeptOperations<Key, RowOperation>;

const RowOperation& forward_of(const Key& key) {
  static Kept kept;
  return kept.get(key, [&] { return forward_operation(key); });
}
const RowOperation& input_gradient_of(const Key& key) {
  static Kept kept;
  return kept.get(key, [&] { return input_gradient(key); });
}
const RowOperation& weight_gradient_of(const Key& key) {
  static Kept kept;
  return kept.get(key, [&] { return weight_gradient(key); });
}

// (..., n) as (rows, n), also without rows.
mx::array rows_of(const mx::array& x) {
  return x.ndim() == 1 ? mx::expand_dims(x, 0) : mx::flatten(x, 0, -2);
}

void add(Arrays& to, const Arrays& more) {
  to.insert(to.end(), more.begin(), more.end());
}

// The parts of a call by name; those that the form lacks are empty.
struct Parts {
  Parts(const Key& key, const Arrays& in) {
    size_t at = 1;
    x = {in[0]};
    for (auto [there, part] :
         {std::pair{key.residual, &residual},
          std::pair{key.weight, &weight},
          std::pair{key.bias, &bias}}) {
      if (there) {
        *part = {in[at++]};
      }
    }
  }
  Arrays x, residual, weight, bias;
};

Arrays
run_forward(const Key& key, uint64_t seed, const char* op, const Arrays& in) {
  Arrays all = in;
  if (key.dropout > 0) {
    const auto places = dropout_mask::places(op, in[0], seed);
    add(all, {places.column, places.first, places.second});
  }
  const std::vector<mx::Dtype> dtypes(key.returns_sum ? 2 : 1, in[0].dtype());
  return forward_of(key).results(all, dtypes);
}

Arrays run_gradient(
    const Key& key,
    uint64_t seed,
    const char* op,
    const Arrays& in,
    const Arrays& cotangents) {
  const Parts parts(key, in);
  Arrays places;
  if (key.dropout > 0) {
    const auto made = dropout_mask::places(op, in[0], seed);
    places = {made.column, made.first, made.second};
  }
  Arrays all = parts.x;
  for (const auto* more : {&parts.residual, &parts.weight, &cotangents}) {
    add(all, *more);
  }
  add(all, places);
  const size_t num_rows = key.centred ? 2 : 1;
  std::vector<mx::Dtype> dtypes = {in[0].dtype()};
  dtypes.resize(num_rows + 1, mx::float32);
  const Arrays made = input_gradient_of(key).results(all, dtypes);
  Arrays gradients = {made[0]};
  if (key.residual) {
    gradients.push_back(mx::astype(made[0], parts.residual[0].dtype()));
  }
  if (!key.weight && !key.bias) {
    return gradients;
  }
  Arrays columns = {rows_of(in[0])};
  if (key.residual) {
    columns.push_back(rows_of(parts.residual[0]));
  }
  columns.push_back(rows_of(cotangents[0]));
  for (size_t i = 0; i < num_rows; ++i) {
    columns.push_back(rows_of(made[i + 1]));
  }
  if (!places.empty()) {
    add(columns, {places[0], rows_of(places[1]), rows_of(places[2])});
  }
  dtypes.clear();
  for (const auto* part : {&parts.weight, &parts.bias}) {
    if (!part->empty()) {
      dtypes.push_back((*part)[0].dtype());
    }
  }
  for (const auto& sums : weight_gradient_of(key).results(columns, dtypes)) {
    gradients.push_back(mx::squeeze(sums, 0));
  }
  return gradients;
}

void check(
    const char* op,
    const Form& form,
    const mx::array& x,
    const std::optional<mx::array>& residual,
    const std::optional<mx::array>& weight,
    const std::optional<mx::array>& bias) {
  if (x.ndim() == 0 || !mx::issubdtype(x.dtype(), mx::floating)) {
    invalid(
        op,
        "x must be floating with at least one axis, got ",
        x.dtype(),
        ' ',
        x.shape(),
        '.');
  }
  if (residual && residual->shape() != x.shape()) {
    invalid(
        op,
        "residual must have x's shape ",
        x.shape(),
        ", got ",
        residual->shape(),
        '.');
  }
  for (const auto& [part, name] :
       {std::pair{&weight, "weight"}, std::pair{&bias, "bias"}}) {
    if (*part && (*part)->shape() != mx::Shape{x.shape(-1)}) {
      invalid(
          op,
          name,
          " must have the shape of x's last axis, got x ",
          x.shape(),
          " and ",
          name,
          ' ',
          (*part)->shape(),
          '.');
    }
  }
  if (!(form.eps >= 0) || std::isinf(form.eps)) {
    invalid(op, "eps must be finite and not negative, got ", form.eps, '.');
  }
  dropout_mask::check(op, form.dropout);
}

} // namespace

std::vector<mx::array> normalise(
    const char* op,
    const Form& form,
    const mx::array& x,
    const std::optional<mx::array>& residual,
    const std::optional<mx::array>& weight,
    const std::optional<mx::array>& bias,
    const std::function<Arrays(const Arrays&)>& run) {
  check(op, form, x, residual, weight, bias);
  const Key key{
      form.centred,
      residual.has_value(),
      weight.has_value(),
      bias.has_value(),
      form.returns_sum,
      form.eps,
      form.dropout};
  Arrays in = {x};
  for (const auto* part : {&residual, &weight, &bias}) {
    if (*part) {
      in.push_back(**part);
    }
  }
  const auto forward = [=, seed = form.seed](const Arrays& given) {
    return run_forward(key, seed, op, given);
  };
  const auto vjp =
      [=, seed = form.seed](
          const Arrays& given, const Arrays& cotangents, const Arrays&) {
        return run_gradient(key, seed, op, given, cotangents);
      };
  return run ? with_own_gradient(in, run, forward, vjp)
             : with_own_gradient(in, forward, vjp);
}

mx::array rms_gradient(
    const char* op,
    const mx::array& x,
    const mx::array& weight,
    const mx::array& cotangent,
    float eps) {
  const Form form{.eps = eps};
  check(op, form, x, cotangent, weight, std::nullopt);
  return input_gradient_of({false, false, true, false, false, eps, 0})
      .results({x, weight, cotangent}, {x.dtype(), mx::float32})[0];
}

} // namespace zmlx::norm
