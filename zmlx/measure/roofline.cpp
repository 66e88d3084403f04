// SPDX-License-Identifier: MIT
#include "zmlx/measure/roofline.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include <sys/mman.h>

#include "zmlx/base/clock.h"
#include "zmlx/base/error.h"
#include "zmlx/base/statistics.h"
#include "zmlx/model/checkpoint/memory.h"

namespace zmlx::measure {
namespace {

namespace mx = mlx::core;

// Sums land here, so that no read can be optimised away.
std::atomic<uint64_t> sink{0};

constexpr size_t kLine = 8; // words a cache line

// Sums `count` words as `Streams` equal runs read side by side, one cache line
// of each in turn, which are asked for `Ahead` bytes before. Eight sums a
// stream break the chain of additions.
template <size_t Streams, size_t Ahead = 0>
uint64_t read_words(const uint64_t* words, size_t count) {
  const size_t stride = count / Streams / kLine * kLine;
  std::array<std::array<uint64_t, kLine>, Streams> sums{};
  for (size_t i = 0; i < stride; i += kLine) {
    for (size_t stream = 0; stream < Streams; ++stream) {
      const uint64_t* line = words + stream * stride + i;
      if constexpr (Ahead > 0) {
        __builtin_prefetch(line + Ahead / sizeof(uint64_t), 0, 2);
      }
      for (size_t j = 0; j < kLine; ++j) {
        sums[stream][j] += line[j];
      }
    }
  }
  uint64_t total = 0;
  for (const auto& stream : sums) {
    for (uint64_t sum : stream) {
      total += sum;
    }
  }
  return total;
}

using ReadLoop = uint64_t (*)(const uint64_t*, size_t);

struct NamedLoop {
  const char* name;
  ReadLoop read;
};
constexpr NamedLoop kLoops[] = {
    {"1 stream", read_words<1>},
    {"4 streams", read_words<4>},
    {"1 stream prefetched", read_words<1, 8192>},
    {"4 streams prefetched", read_words<4, 2048>}};

// Bytes a second of passes through `count` words for `seconds`; all threads
// start each pass together and the slowest ends it.
std::vector<double> passes_of(
    const uint64_t* words,
    size_t count,
    int threads,
    ReadLoop read,
    double seconds) {
  const size_t share = count / static_cast<size_t>(threads);
  std::barrier<> line_up(threads + 1);
  std::atomic<bool> stop{false};
  std::vector<std::thread> team;
  for (int t = 0; t < threads; ++t) {
    team.emplace_back([&, t] {
      for (;;) {
        line_up.arrive_and_wait();
        if (stop) {
          return;
        }
        sink += read(words + static_cast<size_t>(t) * share, share);
        line_up.arrive_and_wait();
      }
    });
  }
  const double read_bytes =
      static_cast<double>(share * static_cast<size_t>(threads) * 8);
  std::vector<double> rates;
  const Stopwatch all;
  do {
    const Stopwatch pass;
    line_up.arrive_and_wait();
    line_up.arrive_and_wait();
    rates.push_back(read_bytes / pass.seconds());
  } while (all.seconds() < seconds);
  stop = true;
  line_up.arrive_and_wait();
  for (auto& thread : team) {
    thread.join();
  }
  return rates;
}

size_t fitting_bytes(size_t wanted) {
  const uint64_t available = available_memory();
  while (2 * wanted > available / 2 && wanted > (1u << 20)) {
    wanted /= 2;
  }
  return std::max<size_t>(wanted, 1u << 20);
}

} // namespace

// Anonymous memory, written once so that every page is there.
class ReadPasses::Buffer {
 public:
  Buffer(size_t bytes, [[maybe_unused]] bool huge_pages) : bytes_(bytes) {
    data_ = mmap(
        nullptr,
        bytes,
        PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS,
        -1,
        0);
    if (data_ == MAP_FAILED) {
      throw BackendError(concat(
          "[roofline] cannot map ", bytes, " bytes: ", std::strerror(errno)));
    }
#if defined(MADV_HUGEPAGE)
    // A kernel without huge pages refuses; the plain pages then serve.
    (void)madvise(data_, bytes, huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#endif
    std::memset(data_, 1, bytes);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    munmap(data_, bytes_);
  }
  const uint64_t* words() const {
    return static_cast<const uint64_t*>(data_);
  }
  size_t bytes() const {
    return bytes_;
  }

 private:
  void* data_;
  size_t bytes_;
};

ReadPasses::ReadPasses(const RooflineOptions& options, int rounds)
    : options_(options),
      seconds_(
          std::max(
              options.least_seconds,
              options.seconds / std::max(1, rounds))) {}

ReadPasses::~ReadPasses() = default;

void ReadPasses::add_cpu() {
  if (buffers_.empty()) {
    const size_t bytes = fitting_bytes(options_.buffer_bytes);
    for (bool huge_pages : {false, true}) {
      buffers_.push_back(std::make_unique<Buffer>(bytes, huge_pages));
    }
  }
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  const int threads =
      options_.threads > 0 ? options_.threads : std::max(1, cores);
  const double seconds = seconds_ / (2 * std::size(kLoops));
  for (const auto& buffer : buffers_) {
    const bool huge_pages = buffer == buffers_.back();
    for (const auto& loop : kLoops) {
      auto& rates = rates_[concat(
          loop.name,
          huge_pages ? ", huge pages, " : ", plain pages, ",
          threads,
          threads == 1 ? " thread" : " threads")];
      const auto more = passes_of(
          buffer->words(),
          buffer->bytes() / sizeof(uint64_t),
          threads,
          loop.read,
          seconds);
      rates.insert(rates.end(), more.begin(), more.end());
    }
  }
}

void ReadPasses::add_device() {
  if (!source_) {
    const auto count =
        static_cast<mx::ShapeElem>(options_.buffer_bytes / sizeof(float));
    source_ = mx::full({count}, 1.0f);
    mx::eval(*source_);
  }
  for (bool copies : {false, true}) {
    const double moved =
        static_cast<double>(source_->nbytes()) * (copies ? 2 : 1);
    auto& rates = rates_[copies ? "copy" : "sum"];
    const Stopwatch all;
    do {
      mx::array result = copies ? mx::negative(*source_) : mx::sum(*source_);
      const Stopwatch pass;
      mx::eval(result);
      rates.push_back(moved / pass.seconds());
    } while (all.seconds() < seconds_ / 2);
  }
}

void ReadPasses::add() {
  if (mx::default_device() == mx::Device::gpu) {
    add_device();
  } else {
    add_cpu();
  }
}

uint64_t ReadPasses::held_bytes() const {
  uint64_t sum = source_ ? source_->nbytes() : 0;
  for (const auto& buffer : buffers_) {
    sum += buffer->bytes();
  }
  return sum;
}

ReadBandwidth best_of(
    const std::map<std::string, std::vector<double>>& passes_of_loops) {
  ReadBandwidth best;
  for (const auto& [loop, rates] : passes_of_loops) {
    const double rate = median(rates);
    if (rate > best.bytes_per_second) {
      best.bytes_per_second = rate;
      best.loop = loop;
    }
    best.best_pass =
        std::max(best.best_pass, *std::max_element(rates.begin(), rates.end()));
  }
  return best;
}

} // namespace zmlx::measure
