// SPDX-License-Identifier: MIT
// Quantised weights of a model's modules, kept in blocks in place of the arrays
// that the modules hold, which unpack themselves when somebody reads them.
#include <array>
#include <memory>
#include <utility>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "python/bindings/bind.h"
#include "zmlx/base/env.h"
#include "zmlx/kernels/common/matvec.h"
#include "zmlx/kernels/common/rows_of_blocks.h"

namespace {

using zmlx::quant::RowsOfBlocks;

mx::array& array_of(nb::handle object) {
  return *nb::inst_ptr<mx::array>(object);
}

/// The three array objects of a weight. Their owner may put other values into
/// an object (w[0] = ...); then it is left alone. While somebody else holds an
/// object, maybe for a view of its memory as NumPy's are, it keeps its memory.
class PackedWeight {
 public:
  PackedWeight(
      std::array<nb::object, 3> objects,
      std::shared_ptr<const RowsOfBlocks> rows)
      : objects_(std::move(objects)), rows_(std::move(rows)) {
    for (size_t i = 0; i < objects_.size(); ++i) {
      forget(i);
    }
  }

  /// From now on, who holds an object besides today's holders is somebody else.
  void count_holders() {
    for (size_t i = 0; i < objects_.size(); ++i) {
      holders_[i] = Py_REFCNT(objects_[i].ptr());
    }
  }

  /// Drops what has been unpacked since; returns its bytes.
  size_t drop() {
    size_t dropped = 0;
    for (size_t i = 0; i < objects_.size(); ++i) {
      const mx::array& array = array_of(objects_[i]);
      if (array.id() == ids_[i] && !zmlx::quant::is_unpacking(array) &&
          Py_REFCNT(objects_[i].ptr()) <= holders_[i]) {
        dropped += array.nbytes();
        forget(i);
      }
    }
    return dropped;
  }

  void unpack() const {
    for (const auto& object : objects_) {
      array_of(object).eval();
    }
  }

  bool holds() const {
    for (size_t i = 0; i < objects_.size(); ++i) {
      if (array_of(objects_[i]).id() != ids_[i]) {
        return false;
      }
    }
    return true;
  }

 private:
  void forget(size_t i) {
    const mx::array lazy = rows_->rows(RowsOfBlocks::kParts[i]);
    array_of(objects_[i]).overwrite_descriptor(lazy);
    ids_[i] = lazy.id();
  }

  std::array<nb::object, 3> objects_;
  std::array<std::uintptr_t, 3> ids_ = {};
  std::array<Py_ssize_t, 3> holders_ = {};
  std::shared_ptr<const RowsOfBlocks> rows_;
};

/// All calls are made with the interpreter locked, so that no two threads
/// evaluate one array.
class PackedWeights {
 public:
  bool add(
      nb::object words,
      nb::object scales,
      nb::object biases,
      int bits,
      int group_size) {
    std::array<nb::object, 3> objects = {words, scales, biases};
    for (const auto& object : objects) {
      if (!nb::isinstance<mx::array>(object) ||
          !array_of(object).is_available()) {
        return false;
      }
    }
    const zmlx::quant::QuantizedArrays arrays{
        array_of(words), array_of(scales), array_of(biases), bits, group_size};
    if (!zmlx::quant::why_unsupported(arrays).empty()) {
      return false;
    }
    auto rows = RowsOfBlocks::pack(arrays);
    if (rows) {
      weights_.emplace_back(std::move(objects), std::move(rows));
    }
    return rows != nullptr;
  }

  void count_holders() {
    for (auto& weight : weights_) {
      weight.count_holders();
    }
  }

  size_t drop() {
    size_t dropped = 0;
    for (auto& weight : weights_) {
      dropped += weight.drop();
    }
    return dropped;
  }

  void unpack() const {
    for (const auto& weight : weights_) {
      weight.unpack();
    }
  }

  void restore() {
    unpack();
    weights_.clear();
  }

  bool holds() const {
    for (const auto& weight : weights_) {
      if (!weight.holds()) {
        return false;
      }
    }
    return true;
  }

  size_t size() const {
    return weights_.size();
  }

  /// Gives the system what was freed between other blocks of the heap.
  static void trim() {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
  }

 private:
  std::vector<PackedWeight> weights_;
};

/// Whether blocks are of use on this machine, and wanted.
bool wants_blocks() {
  return mx::default_device() == mx::Device(mx::Device::cpu) &&
      zmlx::cpu::prefers_blocks() &&
      zmlx::env("ZMLX_HUGE_PAGES").value_or("1") != "0";
}

} // namespace

void bind_packed_rows(nb::module_& m) {
  nb::class_<PackedWeights>(m, "PackedWeights", "Weights kept in blocks.")
      .def(nb::init<>())
      .def(
          "add",
          &PackedWeights::add,
          nb::arg("words"),
          nb::arg("scales"),
          nb::arg("biases").none(),
          nb::arg("bits"),
          nb::arg("group_size"),
          "Keeps an affine weight in blocks, and makes its arrays unpack "
          "themselves when they are read; False where it cannot lie in blocks.")
      .def(
          "count_holders",
          &PackedWeights::count_holders,
          "Arrays with more holders than now keep what is unpacked.")
      .def("drop", &PackedWeights::drop, "Drops what has been unpacked since.")
      .def("unpack", &PackedWeights::unpack, "Unpacks all, until drop().")
      .def("restore", &PackedWeights::restore, "Unpacks all for good.")
      .def(
          "holds",
          &PackedWeights::holds,
          "Whether all arrays have their values still.")
      .def_static("trim", &PackedWeights::trim)
      .def("__len__", &PackedWeights::size);
  m.def("wants_blocks", &wants_blocks);
  m.def(
      "unpack",
      [](const mx::array& array) {
        if (zmlx::quant::is_unpacking(array)) {
          mx::array(array).eval();
        }
      },
      nb::arg("array"),
      "Evaluates an array that unpacks itself, in one thread at a time.");
}
