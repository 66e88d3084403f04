// SPDX-License-Identifier: MIT
// How fast this machine reads memory, measured: the wall that decoding runs
// into, since every token reads each weight once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx::measure {

struct RooflineOptions {
  /// Bytes of a buffer that is read; it must be far larger than the caches.
  /// Halved until two fit into half of the memory that is free.
  size_t buffer_bytes = size_t{512} << 20;
  /// Threads of the CPU loops; 0 means one a logical core.
  int threads = 0;
  /// Time spent reading, spread over the rounds and the loops tried; and the
  /// least that a round takes.
  double seconds = 1.2, least_seconds = 0.5;
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
/// shared machine, they are added in turn with what is compared with them, in
/// rounds. What is read is made in the first round and held until the end.
class ReadPasses {
 public:
  explicit ReadPasses(const RooflineOptions& options = {}, int rounds = 1);
  ~ReadPasses();
  ReadPasses(const ReadPasses&) = delete;
  ReadPasses& operator=(const ReadPasses&) = delete;

  /// A round. Reads buffers with every CPU thread: in one or four streams a
  /// thread, prefetched or not, on plain and huge pages. Throws BackendError
  /// when they cannot be mapped.
  void add_cpu();
  /// Reads an array on the default device: a sum (read once) or a copy (read
  /// and written, both counted).
  void add_device();
  /// The one that counts for the default device.
  void add();

  /// Bytes that are resident for it, on the CPU or the device.
  uint64_t held_bytes() const;
  ReadBandwidth best() const {
    return best_of(rates_);
  }

 private:
  class Buffer;

  RooflineOptions options_;
  double seconds_; // of a round
  std::vector<std::unique_ptr<Buffer>> buffers_; // on plain, on huge pages
  std::optional<mlx::core::array> source_; // on the device
  std::map<std::string, std::vector<double>> rates_; // of a loop's passes
};

} // namespace zmlx::measure
