// SPDX-License-Identifier: MIT
#include "zmlx/model/cache.h"

namespace zmlx {
namespace {

mx::array with_room(
    std::optional<mx::array> held,
    const mx::Shape& extra,
    mx::Dtype dtype,
    int used) {
  mx::array room = mx::contiguous(mx::zeros(extra, dtype));
  if (!held) {
    return room;
  }
  mx::array kept = *held;
  if (used < kept.shape(2)) {
    mx::Shape stop = kept.shape();
    stop[2] = used;
    kept = mx::slice(kept, {0, 0, 0, 0}, stop);
  }
  return mx::concatenate({kept, room}, 2);
}

} // namespace

size_t LayerCache::nbytes() const {
  size_t total = 0;
  for (const auto& array : state()) {
    total += array.nbytes();
  }
  return total;
}

void KVCache::reserve(int count, mx::Shape shape, mx::Dtype dtype) {
  if (keys && offset + count <= keys->shape(2)) {
    return;
  }
  shape[2] = (count + kStep - 1) / kStep * kStep;
  keys = with_room(std::move(keys), shape, dtype, offset);
  values = with_room(std::move(values), shape, dtype, offset);
}

std::pair<mx::array, mx::array> KVCache::update_and_fetch(
    const mx::array& new_keys,
    const mx::array& new_values) {
  const int count = new_keys.shape(2);
  reserve(count, new_keys.shape(), new_keys.dtype());
  mx::Shape start = {0, 0, offset, 0};
  mx::Shape stop = keys->shape();
  stop[2] = offset + count;
  keys = mx::slice_update(*keys, new_keys, start, stop);
  values = mx::slice_update(*values, new_values, start, stop);
  offset += count;
  if (offset == keys->shape(2)) {
    return {*keys, *values};
  }
  return {
      mx::slice(*keys, {0, 0, 0, 0}, stop),
      mx::slice(*values, {0, 0, 0, 0}, stop)};
}

std::vector<mx::array> KVCache::state() const {
  return keys ? std::vector<mx::array>{*keys, *values}
              : std::vector<mx::array>{};
}

std::vector<mx::array> ConvCache::state() const {
  return inputs ? std::vector<mx::array>{*inputs} : std::vector<mx::array>{};
}

void eval(const Cache& cache) {
  std::vector<mx::array> arrays;
  for (const auto& layer : cache) {
    for (auto& array : layer->state()) {
      arrays.push_back(std::move(array));
    }
  }
  mx::eval(arrays);
}

} // namespace zmlx
