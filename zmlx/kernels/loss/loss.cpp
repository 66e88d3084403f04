// SPDX-License-Identifier: MIT
// For each function: what runs, the reference, the spec.
#include "zmlx/kernels/loss/loss.h"

#include <cmath>

#include <fmt/format.h>

#include "zmlx/authoring/reduce.h"
#include "zmlx/authoring/registry.h"
#include "zmlx/base/error.h"
#include "zmlx/kernels/common/kept_operations.h"
#include "zmlx/kernels/common/own_gradient.h"
#include "zmlx/kernels/common/reference.h"

namespace zmlx::loss {
namespace {

constexpr int kMostClasses = 1 << 24; // whole numbers that a float32 holds

using Kept = KeptOperations<int, RowOperation>;

// `hit` instead of a gather: a compare costs less than the exponential beside
// it, and needs no bounds.
const RowTotal kMost = {"most", "-INFINITY", "max(acc, x)"};
const RowTotal kSum = {"sum", "0.0f", "acc + exp(x - most)"};

// A result where the target is a class.
std::string for_targets(int ignore_index, const char* value) {
  return fmt::format(
      "target == {}.0f ? 0.0f : (target >= 0.0f && target < D ? {} : NAN)",
      ignore_index,
      value);
}

const RowOperation& loss_operation(int ignore_index) {
  static Kept kept;
  return kept.get(ignore_index, [&] {
    return row_operation(
        {.name = "softmax_cross_entropy",
         .inputs = {"x", "column"},
         .row_inputs = {"target"},
         .totals =
             {kMost,
              {"hit", "0.0f", "acc + (column == target ? x : 0.0f)"},
              kSum},
         .finish = {for_targets(ignore_index, "log(sum) + (most - hit)")}});
  });
}

const RowOperation& gradient_operation(int ignore_index) {
  static Kept kept;
  return kept.get(ignore_index, [&] {
    return row_operation(
        {.name = "softmax_cross_entropy_grad",
         .inputs = {"x", "column"},
         .row_inputs = {"target", "g"},
         .totals = {kMost, kSum},
         .write = {for_targets(
             ignore_index,
             "(exp(x - most) / sum - (column == target ? 1.0f : 0.0f)) * g")}});
  });
}

mx::array column_of(const mx::array& logits) {
  return mx::arange(0.0, logits.shape(-1), 1.0, mx::float32);
}

mx::array gradient(
    const mx::array& logits,
    const mx::array& targets,
    const mx::array& g,
    int ignore_index) {
  return gradient_operation(ignore_index)
      .results(
          {logits,
           column_of(logits),
           mx::expand_dims(targets, -1),
           mx::expand_dims(g, -1)},
          {logits.dtype()})[0];
}

void check(
    const char* op,
    const mx::array& logits,
    const mx::array& targets,
    const char* name) {
  const mx::Shape& shape = logits.shape();
  if (shape.empty() ||
      mx::Shape(shape.begin(), shape.end() - 1) != targets.shape()) {
    invalid(
        op,
        name,
        " must have the shape of logits less the last axis, got logits ",
        shape,
        " and ",
        name,
        ' ',
        targets.shape(),
        '.');
  }
}

void check_call(
    const char* op,
    const mx::array& logits,
    const mx::array& targets) {
  check(op, logits, targets, "targets");
  if (!mx::issubdtype(logits.dtype(), mx::floating) ||
      !mx::issubdtype(targets.dtype(), mx::integer)) {
    invalid(
        op,
        "logits must be floating and targets integers, got ",
        logits.dtype(),
        " and ",
        targets.dtype(),
        '.');
  }
  if (logits.shape(-1) > kMostClasses) {
    invalid(
        op,
        "logits must have at most 2^24 classes, got ",
        logits.shape(-1),
        '.');
  }
}

} // namespace

mx::array softmax_cross_entropy(
    const mx::array& logits,
    const mx::array& targets,
    int ignore_index) {
  check_call("softmax_cross_entropy", logits, targets);
  using Arrays = std::vector<mx::array>;
  // Of the program's own type, so that jvp takes tangents of every input.
  return with_own_gradient(
      {logits, mx::astype(targets, mx::float32)},
      [ignore_index](const Arrays& in) {
        const Arrays losses =
            loss_operation(ignore_index)
                .results(
                    {in[0], column_of(in[0]), mx::expand_dims(in[1], -1)},
                    {mx::float32});
        return Arrays{mx::squeeze(losses[0], -1)};
      },
      [ignore_index](
          const Arrays& in, const Arrays& cotangents, const Arrays&) {
        return Arrays{
            gradient(in[0], in[1], cotangents[0], ignore_index),
            mx::zeros_like(in[1])};
      })[0];
}

mx::array softmax_cross_entropy_grad(
    const mx::array& logits,
    const mx::array& targets,
    const mx::array& g,
    int ignore_index) {
  check_call("softmax_cross_entropy_grad", logits, targets);
  check("softmax_cross_entropy_grad", logits, g, "g");
  return gradient(logits, targets, g, ignore_index);
}

} // namespace zmlx::loss

namespace zmlx::kernels {
namespace {

int ignored(const Params& params) {
  return reference::whole(params, "ignore_index");
}

// Of the classes alone: 0 where the target is ignored. There are no others in
// the cases.
mx::array is_there(const Arrays& in, const Params& params) {
  return mx::expand_dims(
      in[1] != mx::array(ignored(params), in[1].dtype()), -1);
}

mx::array safe_targets(const Arrays& in, const mx::array& there) {
  return mx::where(
      there, mx::expand_dims(in[1], -1), mx::zeros({1}, in[1].dtype()));
}

Arrays loss_reference(const Arrays& in, const Params& params) {
  const mx::array& x = in[0];
  const mx::array there = is_there(in, params);
  mx::array logsumexp = x;
  if (x.dtype() == mx::float64 || x.size() == 0) {
    const mx::array most = mx::stop_gradient(mx::max(x, -1, true));
    logsumexp = most + mx::log(mx::sum(reference::exp(x - most), -1, true));
  } else {
    logsumexp = mx::logsumexp(x, -1, true);
  }
  const mx::array loss =
      logsumexp - mx::take_along_axis(x, safe_targets(in, there), -1);
  const mx::array result =
      mx::squeeze(mx::where(there, loss, reference::number(0, loss)), -1);
  return {x.dtype() == mx::float64 ? result : mx::astype(result, mx::float32)};
}

Arrays gradient_reference(const Arrays& in, const Params& params) {
  const mx::array& x = in[0];
  const mx::array there = is_there(in, params);
  const mx::array hit = mx::arange(x.shape(-1)) == safe_targets(in, there);
  const mx::array slope = reference::softmax(x) - mx::astype(hit, x.dtype());
  return {mx::astype(
      mx::where(
          there,
          slope * mx::expand_dims(in[2], -1),
          reference::number(0, slope)),
      x.dtype())};
}

// Classes, and the ignored one in every fifth row.
Arrays inputs_of(const KernelCase& one, uint64_t seed) {
  const mx::Shape& rows = one.shapes[1];
  const int classes = one.shapes[0].back();
  const mx::array any = mx::astype(
      mx::abs(normal_values(rows, mx::float32, seed + 1)) * mx::array(1e4f),
      mx::int32);
  const mx::array number =
      mx::reshape(mx::arange(static_cast<int>(any.size())), rows);
  const mx::array targets = mx::where(
      mx::remainder(number, mx::array(5)) == mx::array(3),
      mx::array(ignored(one.params)),
      mx::remainder(any, mx::array(classes)));
  Arrays inputs = {
      normal_values(one.shapes[0], one.dtype, seed) *
          mx::array(3.0f, one.dtype),
      targets};
  if (one.shapes.size() > 2) {
    inputs.push_back(normal_values(rows, one.dtype, seed + 2));
  }
  return inputs;
}

KernelSpec spec_of(bool gradient) {
  const Params params = {{"ignore_index", -100}};
  const auto shapes = [&](const mx::Shape& logits) {
    std::vector<mx::Shape> all(
        gradient ? 3 : 2, mx::Shape(logits.begin(), logits.end() - 1));
    all[0] = logits;
    return all;
  };
  KernelSpec spec = {
      .family = "loss",
      .name = gradient ? "softmax_cross_entropy_grad" : "softmax_cross_entropy",
      .summary = gradient ? "(softmax - onehot) g of each row of logits"
                          : "Cross entropy of each row of logits and its class",
      .call = gradient
          ? "zmlx::loss::softmax_cross_entropy_grad(logits, targets, g, "
            "ignore_index)"
          : "zmlx::loss::softmax_cross_entropy(logits, targets, ignore_index)",
      .inputs =
          {{"logits", "(..., classes) float"},
           {"targets", "(...) integers", false}},
      .outputs = {{"out", "(...) float32"}},
      .params = {{"ignore_index", "the target of rows that count 0", -100.0}},
      .run =
          [gradient](const Arrays& in, const Params& params) {
            return Arrays{
                gradient ? loss::softmax_cross_entropy_grad(
                               in[0], in[1], in[2], ignored(params))
                         : loss::softmax_cross_entropy(
                               in[0], in[1], ignored(params))};
          },
      .reference = gradient ? gradient_reference : loss_reference,
      .gradient = gradient ? std::vector<int>{0, 2} : std::vector<int>{0},
      .cases = cases_of(
          {shapes({0, 5}),
           shapes({7}),
           shapes({9, 193}),
           shapes({2, 3, 256}),
           shapes({5, 1}),
           shapes({1, 4097})},
          params),
      .bench =
          {{mx::float32, shapes({1, 65536}), params},
           {mx::float32, shapes({1024, 32000}), params},
           {mx::bfloat16, shapes({1024, 32000}), params}},
      .make_inputs = inputs_of,
      .terms =
          [](const KernelCase& one) { return int64_t{one.shapes[0].back()}; },
  };
  if (gradient) {
    spec.inputs.push_back({"g", "(...) float"});
    spec.outputs = {{"out", "logits' shape and type; float32 inside"}};
  }
  return spec;
}

} // namespace

void register_loss(Registry& registry) {
  registry.add(spec_of(false));
  registry.add(spec_of(true));
}

} // namespace zmlx::kernels
