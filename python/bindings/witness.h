// SPDX-License-Identifier: MIT
// Remembers what a Python model was made of, to notice when it changes.
#pragma once

#include <vector>

#include "python/bindings/bind.h"

/// Entries of dicts and lists, and what they held. An array counts as changed
/// when its values were replaced in place too.
class Witness {
 public:
  void add(nb::dict holder, nb::object key);
  void add(nb::list holder);
  /// Whether every entry still holds what it held.
  bool holds() const;

 private:
  struct Entry {
    nb::object holder, key, value; // key: none for a whole list
    std::uintptr_t array = 0; // its id, or 0
    Py_ssize_t index = 0, size = 0; // of a list
  };
  std::vector<Entry> entries_;
};
