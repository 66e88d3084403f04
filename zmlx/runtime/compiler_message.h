// SPDX-License-Identifier: MIT
// Finds the author's line in what a C++ compiler prints.
#pragma once

#include <string>

namespace zmlx {

/// " at body:3: <the first error>." of a compiler's output, "header" instead of
/// "body" for lines of the header; without the place where there is none.
std::string first_error(const std::string& output);

} // namespace zmlx
