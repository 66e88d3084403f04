// SPDX-License-Identifier: MIT
#include "zmlx/model/cache.h"

#include "zmlx/model/cache_room.h"

namespace zmlx {
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
  shape[2] =
      grown_capacity(keys ? keys->shape(2) : 0, offset + count, expected);
  keys = with_room(keys, offset, shape, dtype);
  values = with_room(values, offset, shape, dtype);
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

void expect(Cache& cache, int tokens) {
  for (auto& layer : cache) {
    layer->expected = tokens;
  }
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
