// SPDX-License-Identifier: MIT
// mlx_lm's models as C++ networks over the same arrays.
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "python/bindings/bind.h"
#include "python/bindings/caches.h"
#include "zmlx/base/env.h"
#include "zmlx/base/error.h"
#include "zmlx/base/huge_pages.h"
#include "zmlx/kernels/common/rows_of_blocks.h"
#include "zmlx/model/assemble.h"
#include "zmlx/model/decode/fused_network.h"
#include "zmlx/model/decode/lower.h"
#include "zmlx/model/patch/patch.h"
#include "zmlx/runtime/device_name.h"

namespace {

using Packing = std::tuple<int, int, std::string>; // bits, group size, mode

/// Decoding reads large weights whole for every token, which huge pages make up
/// to a tenth faster. They keep their addresses, so all that refers to them
/// holds, and a thread of its own can move them while the model works.
class WeightMover {
 public:
  explicit WeightMover(const std::map<std::string, mx::array>& all) {
    constexpr size_t kLeast = size_t{4} << 20, kLeastInAll = size_t{64} << 20;
    size_t total = 0;
    std::vector<mx::array> large;
    for (const auto& [name, array] : all) {
      if (array.nbytes() >= kLeast && array.is_available()) {
        large.push_back(array);
        total += array.nbytes();
      }
    }
    if (mx::default_device() == mx::Device(mx::Device::cpu) &&
        total >= kLeastInAll &&
        zmlx::env("ZMLX_HUGE_PAGES").value_or("1") != "0") {
      thread_ =
          std::jthread([large = std::move(large)](const std::stop_token& stop) {
            for (const auto& array : large) {
              zmlx::move_to_huge_pages(
                  array.data<char>(), array.nbytes(), stop);
            }
          });
    }
  }

 private:
  std::jthread thread_; // stops when this ends
};

using Packings = std::map<std::string, Packing>;
using Tensors = std::map<std::string, mx::array>;

/// The network of these arrays, which computes in float32.
std::unique_ptr<zmlx::Model> assembled(
    std::string config,
    Tensors tensors,
    const Packings& packing,
    std::string origin) {
  zmlx::ModelParts parts;
  parts.config = std::move(config);
  parts.tensors = std::move(tensors);
  parts.origin = std::move(origin);
  for (const auto& [path, how] : packing) {
    const auto& [bits, group_size, mode] = how;
    parts.packing[path] = {bits, group_size, mode};
  }
  auto model = zmlx::assemble(std::move(parts), mx::float32);
  // mlx_lm sets no limit to the context.
  model->info.max_positions = 0;
  return model;
}

/// Compiles what a DecodeModel's steps on caches of these types will call, in
/// the background. It is no DecodeModel, since one knows where on the device
/// the arrays lie, and fusing a module may move them.
class CompiledAhead {
 public:
  CompiledAhead(const CompiledAhead&) = delete;
  CompiledAhead(
      std::string config,
      Tensors tensors,
      const Packings& packing,
      std::string origin,
      const std::vector<mx::Dtype>& cache_types) {
    const auto model = assembled(
        std::move(config), std::move(tensors), packing, std::move(origin));
    const auto lowered = zmlx::decode::lower(*model->network);
    if (!lowered.program) {
      return;
    }
    for (const auto& type : cache_types) {
      done_.push_back(zmlx::decode::prepare_executor(*lowered.program, type));
    }
  }

 private:
  std::vector<std::future<void>> done_; // end before this does
};

/// A network that runs calls with mlx_lm's caches, fused throughout.
class DecodeModel {
 public:
  DecodeModel(
      std::string config,
      Tensors tensors,
      const Packings& packing,
      std::string origin) {
    for (auto& [name, array] : tensors) {
      array = zmlx::unevaluated(array);
    }
    tensors_ = tensors;
    model_ = assembled(
        std::move(config), std::move(tensors), packing, std::move(origin));
    const auto lowered = zmlx::decode::lower(*model_->network);
    if (!lowered.program) {
      throw std::invalid_argument(lowered.reason);
    }
    shapes_ = layer_shapes(*lowered.program);
    zmlx::PatchOptions options;
    if (on_gpu_) { // where prompts go through the model's own layers
      options.patterns = {"decode_step"};
    }
    const auto done = zmlx::patch_unprobed(*model_, options);
    fused_ = dynamic_cast<zmlx::decode::FusedNetwork*>(model_->network.get());
    if (!fused_) {
      throw std::invalid_argument(
          done.skipped.empty() ? "the device has no decode program"
                               : done.skipped.back().reason);
    }
    if (!on_gpu_) {
      settle();
    }
  }

  /// Logits (batch, length, vocab), or none when it cannot serve the caches, or
  /// on a GPU more tokens than one.
  std::optional<mx::array> forward(
      const mx::array& tokens,
      std::optional<nb::list> caches) {
    if (tokens.ndim() != 2 || tokens.shape(1) == 0) {
      zmlx::invalid(
          "decode_step",
          "tokens must have shape (batch, length), got ",
          tokens.shape(),
          '.');
    }
    if (on_gpu_ && (!caches || tokens.shape(1) > 1)) {
      return std::nullopt;
    }
    if (!caches) {
      zmlx::Cache none;
      return model_->network->forward(tokens, none);
    }
    auto taken =
        TakenCaches::look(*caches, shapes_, tokens.shape(0), tokens.shape(1));
    if (!taken || (on_gpu_ && taken->has_starts())) {
      return std::nullopt;
    }
    auto cache = taken->take(on_gpu_);
    auto& executor = *fused_->executor;
    try {
      auto logits = model_->network->forward(tokens, cache);
      taken->put_back(cache, executor.last_written());
      return logits;
    } catch (...) {
      if (on_gpu_) {
        taken->undo(cache, executor.last_written());
      }
      throw;
    }
  }

  /// Returns at once.
  void move_weights() {
    mover_.emplace(tensors_);
  }

  void start_timing() {
    fused_->executor->start_timing();
  }
  std::vector<zmlx::decode::StageTime> stop_timing() {
    return fused_->executor->stop_timing();
  }

 private:
  // A thread may not evaluate what another built, so casts of parameters are
  // made here and not by the first who needs them.
  void settle() {
    auto cache = model_->network->make_cache();
    const std::vector<int> ids = {0, 0};
    mx::eval(model_->network->forward(
        mx::array(ids.begin(), {1, 2}, mx::int32), cache));
  }

  // The steps of a GPU compute in float32 on caches of any type.
  const bool on_gpu_ = zmlx::on_a_gpu();
  std::unique_ptr<zmlx::Model> model_;
  zmlx::decode::FusedNetwork* fused_ = nullptr;
  std::vector<LayerShape> shapes_;
  Tensors tensors_; // as Python has them
  std::optional<WeightMover> mover_;
};

} // namespace

void bind_decode(nb::module_& m) {
  nb::class_<CompiledAhead>(m, "CompiledAhead")
      .def(
          nb::init<
              std::string,
              Tensors,
              const Packings&,
              std::string,
              const std::vector<mx::Dtype>&>(),
          nb::arg("config"),
          nb::arg("tensors"),
          nb::arg("packing"),
          nb::arg("origin"),
          nb::arg("cache_types"));
  nb::class_<DecodeModel>(m, "DecodeModel")
      .def(
          nb::init<std::string, Tensors, const Packings&, std::string>(),
          nb::arg("config"),
          nb::arg("tensors"),
          nb::arg("packing"),
          nb::arg("origin"))
      .def(
          "forward",
          &DecodeModel::forward,
          nb::arg("tokens"),
          nb::arg("caches").none())
      .def("move_weights", &DecodeModel::move_weights)
      .def("start_timing", &DecodeModel::start_timing)
      .def("stop_timing", [](DecodeModel& self) {
        nb::list rows;
        for (const auto& row : self.stop_timing()) {
          rows.append(
              nb::make_tuple(
                  row.name, row.count, row.seconds, row.steps, row.bytes));
        }
        return rows;
      });
}
