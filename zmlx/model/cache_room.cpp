// SPDX-License-Identifier: MIT
#include "zmlx/model/cache_room.h"

#include <algorithm>
#include <cstring>

#include "zmlx/model/cache.h"
#include "zmlx/runtime/cpu_op.h"
#include "zmlx/runtime/thread_team.h"

namespace zmlx {
namespace {

constexpr int kStep = KVCache::kStep;

// Bytes that lie together: rows of a head, and the pieces that one task takes.
constexpr int64_t kPiece = 1 << 18;

void fill_room(const mx::array* held, int64_t used_bytes, mx::array& out) {
  const int64_t heads = int64_t{out.shape(0)} * out.shape(1);
  const int64_t bytes = static_cast<int64_t>(out.nbytes()) / heads;
  const int64_t pieces = (bytes + kPiece - 1) / kPiece;
  const char* from = held ? held->data<char>() : nullptr;
  const int64_t stride =
      held ? static_cast<int64_t>(held->nbytes()) / heads : 0;
  char* to = out.data<char>();
  const auto team = thread_team();
  team->run([&](int thread) {
    const Range mine = share(heads * pieces, 1, thread, team->size());
    for (int64_t task = mine.begin; task < mine.end; ++task) {
      const int64_t head = task / pieces, begin = task % pieces * kPiece;
      const int64_t end = std::min(bytes, begin + kPiece);
      const int64_t kept = std::clamp(used_bytes, begin, end);
      std::copy(
          from + head * stride + begin,
          from + head * stride + kept,
          to + head * bytes + begin);
      std::memset(to + head * bytes + kept, 0, static_cast<size_t>(end - kept));
    }
  });
}

} // namespace

int grown_capacity(int held, int needed, int expected) {
  const int wanted = std::max({needed, expected, held + held / 4});
  return (wanted + kStep - 1) / kStep * kStep;
}

mx::array with_room(
    const std::optional<mx::array>& held,
    int used,
    const mx::Shape& shape,
    mx::Dtype dtype) {
  mx::Shape stop = shape;
  stop[2] = used;
  if (mx::default_device() != mx::Device(mx::Device::cpu)) {
    mx::Shape rest = shape;
    rest[2] -= used;
    const mx::array room = mx::contiguous(mx::zeros(rest, dtype));
    return used == 0
        ? room
        : mx::concatenate({mx::slice(*held, {0, 0, 0, 0}, stop), room}, 2);
  }
  std::vector<mx::array> inputs;
  if (used > 0) {
    inputs.push_back(mx::contiguous(*held));
  }
  const int64_t used_bytes =
      int64_t{used} * shape[3] * static_cast<int64_t>(size_of(dtype));
  return cpu_op(
      "CacheRoomCpu",
      std::move(inputs),
      {{shape, dtype}},
      [used_bytes](const auto& in, auto& out) {
        fill_room(in.empty() ? nullptr : &in[0], used_bytes, out[0]);
      })[0];
}

} // namespace zmlx
