// SPDX-License-Identifier: MIT
// How fast this machine reads memory, measured: the wall that decoding runs
// into, since every token reads each weight once.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

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

/// What the best of the read loops tried does.
struct ReadBandwidth {
  /// Of the loop with the highest median: that median of its passes.
  double bytes_per_second = 0;
  /// The fastest pass of any loop; on a shared machine far above what lasts.
  double best_pass = 0;
  /// Which loop won: "4 streams, huge pages, 2 threads".
  std::string loop;

  double gb_per_second() const {
    return bytes_per_second / 1e9;
  }
};

/// Of the passes of each loop, in bytes a second; all zero when there are none.
ReadBandwidth best_of(
    const std::map<std::string, std::vector<double>>& passes_of_loops);

/// Passes of read loops over memory. Where the wall itself moves, as on a
/// shared machine, they are added in turn with what is compared with them.
class ReadPasses {
 public:
  /// Reads a buffer with every CPU thread: in one or four streams a thread,
  /// prefetched or not, on plain and huge pages. Throws BackendError when the
  /// buffer cannot be mapped.
  void add_cpu(const RooflineOptions& options = {});
  /// Reads an array on the default device: a sum (read once) or a copy (read
  /// and written, both counted).
  void add_device(const RooflineOptions& options = {});
  /// The one that counts for the default device.
  void add(const RooflineOptions& options = {});

  ReadBandwidth best() const {
    return best_of(rates_);
  }

 private:
  std::map<std::string, std::vector<double>> rates_; // of a loop's passes
};

} // namespace zmlx::measure
