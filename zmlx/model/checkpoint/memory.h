// SPDX-License-Identifier: MIT
// Tells before loading whether a model fits the machine's memory.
#pragma once

#include <cstdint>
#include <string>

namespace zmlx {

class Checkpoint;

/// Bytes.
struct MemoryNeed {
  uint64_t needed = 0, available = 0;
};

/// Bytes that can be had without swapping: MemAvailable, or what is left of
/// this process's control group (version 2 or 1) and its parents when that is
/// less, pages of cached files not counted as used; on macOS the machine's
/// memory. UINT64_MAX when nothing tells. root: where the system's files are.
uint64_t available_memory(const std::string& root = "/");

/// Weights plus a tenth, plus `extra` bytes (caches, converted weights),
/// against what is available.
MemoryNeed memory_need(const Checkpoint& checkpoint, uint64_t extra = 0);

/// Throws BackendError naming both numbers when more is needed than available.
void check_memory(const Checkpoint& checkpoint, uint64_t extra = 0);
void check_memory(const MemoryNeed& need, const std::string& model);

} // namespace zmlx
