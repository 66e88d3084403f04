// SPDX-License-Identifier: MIT
// The files of zmlx/dialect/prelude as text; the build writes the definitions.
#pragma once

#include <string_view>

namespace zmlx::dialect {

extern const std::string_view prelude_types, prelude_vectors, prelude_math,
    prelude_matrix, prelude_ops, prelude_host, prelude_host_sync,
    prelude_checked, prelude_cuda;

} // namespace zmlx::dialect
