// SPDX-License-Identifier: MIT
// Moves memory that is in use into huge pages, where the system can.
#pragma once

#include <cstddef>

namespace zmlx {

/// Puts the whole huge pages of [data, data + size) into huge pages, with their
/// contents and at their addresses; a few GB a second on an idle machine. Stops
/// after about so many seconds, for a busy one takes much longer. Returns the
/// bytes done; 0 where the system has none to give.
size_t move_to_huge_pages(const void* data, size_t size, double seconds);

} // namespace zmlx
