// SPDX-License-Identifier: MIT
// How fast this machine reads memory, measured: the wall that decoding runs
// into, since every token reads each weight once.
#pragma once

#include <cstddef>
#include <string>

namespace zmlx::measure {

struct RooflineOptions {
  /// Bytes of the buffer read; it must be far larger than the caches. Halved
  /// until it fits into half of the memory that is free.
  size_t buffer_bytes = size_t{512} << 20;
  /// Threads of the CPU loops; 0 means one a logical core.
  int threads = 0;
  /// Time spent reading, spread over the loops tried.
  double seconds = 1.2;
};

/// The best of the read loops tried.
struct ReadBandwidth {
  double bytes_per_second = 0;
  /// Which loop won: "4 streams, huge pages, 2 threads".
  std::string loop;

  double gb_per_second() const {
    return bytes_per_second / 1e9;
  }
};

/// Reads a buffer with every CPU thread: in one or four streams a thread, on
/// plain and huge pages. Throws BackendError when the buffer cannot be mapped.
ReadBandwidth cpu_read_bandwidth(const RooflineOptions& options = {});

/// Reads an array on the default device: a sum (read once) or a copy (read
/// and written, both counted).
ReadBandwidth device_read_bandwidth(const RooflineOptions& options = {});

/// The one that counts for the default device.
ReadBandwidth read_bandwidth(const RooflineOptions& options = {});

} // namespace zmlx::measure
