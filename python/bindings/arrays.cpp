// SPDX-License-Identifier: MIT
// Arrays that come from Python.
#include <string>

#include "python/bindings/bind.h"
#include "zmlx/base/error.h"

std::vector<mx::array> arrays_of(
    nb::handle values,
    std::string_view op,
    const std::vector<std::string>& names) {
  std::vector<mx::array> arrays;
  for (nb::handle value : values) {
    const size_t at = arrays.size();
    if (mx::array* array = nullptr; nb::try_cast(value, array) && array) {
      arrays.push_back(*array);
    } else if (nb::isinstance<nb::float_>(value)) {
      arrays.push_back(mx::array(nb::cast<float>(value)));
    } else if (nb::isinstance<nb::int_>(value)) {
      arrays.push_back(mx::array(nb::cast<int>(value)));
    } else {
      const auto text = zmlx::concat(
          '[',
          op,
          "] ",
          at < names.size() ? names[at] : zmlx::concat("input ", at),
          " must be an mx.array, got ",
          nb::type_name(value.type()).c_str(),
          '.');
      throw nb::type_error(text.c_str());
    }
  }
  return arrays;
}
