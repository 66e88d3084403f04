// SPDX-License-Identifier: MIT
// How the threads of a row kernel combine values, as text.
#pragma once

#include <string>
#include <string_view>

#include "zmlx/dialect/row_program.h"

namespace zmlx::dialect {

/// The operation of a Combine other than Serial on two texts.
std::string
combined(Combine combine, const std::string& a, const std::string& b);

/// The function of fold_functions() that combines in a way other than Serial,
/// and the text of its neutral value.
struct Fold {
  Combine combine;
  std::string_view name, neutral;
};
const Fold& fold_of(Combine combine);

/// Functions (v, scratch, lane, threads) that combine a value of each thread of
/// a group: in SIMD-groups, then their results, which every thread takes in one
/// order. No two calls may share scratch, so that one barrier is enough.
std::string fold_functions();

} // namespace zmlx::dialect
