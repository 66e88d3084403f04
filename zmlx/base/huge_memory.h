// SPDX-License-Identifier: MIT
// Memory in huge pages, for what is read whole many times.
#pragma once

#include <cstddef>
#include <memory>

namespace zmlx {

/// Bytes that start a cache line, in huge pages where the system has them; what
/// is small shares pages with others. Lives as long as the pointer and its
/// copies. Throws std::bad_alloc.
std::shared_ptr<char> huge_memory(size_t bytes);

} // namespace zmlx
