// SPDX-License-Identifier: MIT
// How much memory the process holds and has held at most.
#pragma once

#include <cstdint>

namespace zmlx::measure {

/// Bytes resident now, mapped files included. 0 if the system does not tell.
uint64_t resident_memory();

/// The most bytes resident since the start or the last reset; 0 if unknown.
uint64_t peak_resident_memory();

/// Sets the peak back to what is resident now. Returns false where the system
/// cannot do it (macOS): the peak is then that of the whole process.
bool reset_peak_resident_memory();

/// Bytes of memory in the machine; 0 if unknown.
uint64_t total_memory();

/// The peak that counts for the default device: MLX's own on a GPU, the
/// process's resident peak on a CPU (where MLX counts no mapped weights).
uint64_t peak_memory();

/// Frees what MLX and the C library keep for reuse, then resets that peak.
/// Returns false where the peak cannot be reset.
bool reset_peak_memory();

} // namespace zmlx::measure
