// SPDX-License-Identifier: MIT
#include "python/bindings/witness.h"

#include "zmlx/kernels/common/rows_of_blocks.h"

#include <algorithm>

namespace {

// 0: any contents will do. So it is with arrays that unpack themselves, which
// change with each reading; PackedWeights looks after them.
std::uintptr_t id_of(nb::handle value) {
  mx::array* array = nullptr;
  const bool watched =
      nb::try_cast(value, array) && array && !zmlx::quant::is_unpacking(*array);
  return watched ? array->id() : 0;
}

} // namespace

void Witness::add(nb::dict holder, nb::object key) {
  nb::object value = holder[key];
  entries_.push_back({std::move(holder), std::move(key), value, id_of(value)});
}

void Witness::add(nb::list holder) {
  for (size_t i = 0; i < holder.size(); ++i) {
    nb::object value = holder[i];
    entries_.push_back(
        {holder,
         nb::none(),
         value,
         id_of(value),
         static_cast<Py_ssize_t>(i),
         static_cast<Py_ssize_t>(holder.size())});
  }
}

bool Witness::holds() const {
  return std::all_of(entries_.begin(), entries_.end(), [](const Entry& entry) {
    PyObject* now;
    if (entry.key.is_none()) {
      now = PyList_Size(entry.holder.ptr()) == entry.size
          ? PyList_GetItem(entry.holder.ptr(), entry.index)
          : nullptr;
    } else {
      now = PyDict_GetItemWithError(entry.holder.ptr(), entry.key.ptr());
    }
    if (now != entry.value.ptr()) {
      PyErr_Clear();
      return false;
    }
    return entry.array == 0 ||
        nb::inst_ptr<mx::array>(entry.value)->id() == entry.array;
  });
}

void bind_witness(nb::module_& m) {
  nb::class_<Witness>(m, "Witness")
      .def(nb::init<>())
      .def(
          "add",
          [](Witness& self, nb::dict holder, nb::object key) {
            self.add(std::move(holder), std::move(key));
          },
          nb::arg("holder"),
          nb::arg("key"))
      .def(
          "add_list",
          [](Witness& self, nb::list holder) { self.add(holder); },
          nb::arg("holder"))
      .def("holds", &Witness::holds);
}
