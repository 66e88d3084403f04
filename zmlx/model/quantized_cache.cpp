// SPDX-License-Identifier: MIT
#include "zmlx/model/quantized_cache.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/model/cache_room.h"

namespace zmlx {
namespace {

constexpr const char* kOp = "kv_cache";

QuantizedRows quantized(const mx::array& rows, int bits, int group_size) {
  auto parts = mx::quantize(rows, group_size, bits);
  return {parts[0], parts[1], parts[2]};
}

template <class Change>
void change_all(QuantizedRows& rows, const Change& change) {
  for (auto* array : {&rows.words, &rows.scales, &rows.biases}) {
    *array = change(*array);
  }
}

mx::array first_tokens(const mx::array& array, int count) {
  mx::Shape stop = array.shape();
  stop[2] = count;
  return mx::slice(array, {0, 0, 0, 0}, stop);
}

mx::array written(const mx::array& array, const mx::array& rows, int offset) {
  mx::Shape stop = array.shape();
  stop[2] = offset + rows.shape(2);
  return mx::slice_update(array, rows, {0, 0, offset, 0}, stop);
}

const KVCache& checked(const KVCache& held, const KVQuantization& options) {
  check(options);
  if (const int dim = held.keys->shape(3); dim % options.group_size != 0) {
    invalid(
        kOp,
        "kv_group_size must divide the head dimension of ",
        dim,
        ", got ",
        options.group_size,
        '.');
  }
  return held;
}

} // namespace

QuantizedKVCache::QuantizedKVCache(
    const KVCache& held,
    int bits_,
    int group_size_)
    : offset(held.offset),
      keys(quantized(
          first_tokens(*checked(held, {bits_, group_size_}).keys, offset),
          bits_,
          group_size_)),
      values(quantized(first_tokens(*held.values, offset), bits_, group_size_)),
      bits(bits_),
      group_size(group_size_) {
  expected = held.expected;
}

void QuantizedKVCache::reserve(int count) {
  const int capacity = keys.words.shape(2);
  if (offset + count <= capacity) {
    return;
  }
  const int wanted = grown_capacity(capacity, offset + count, expected);
  for (auto* rows : {&keys, &values}) {
    change_all(*rows, [&](const mx::array& array) {
      mx::Shape shape = array.shape();
      shape[2] = wanted;
      return with_room(array, offset, shape, array.dtype());
    });
  }
}

std::pair<QuantizedRows, QuantizedRows> QuantizedKVCache::update_and_fetch(
    const mx::array& new_keys,
    const mx::array& new_values) {
  const int count = new_keys.shape(2);
  reserve(count);
  auto append = [&](QuantizedRows& rows, const mx::array& added) {
    const QuantizedRows packed = quantized(added, bits, group_size);
    rows.words = written(rows.words, packed.words, offset);
    rows.scales = written(rows.scales, packed.scales, offset);
    rows.biases = written(rows.biases, packed.biases, offset);
  };
  append(keys, new_keys);
  append(values, new_values);
  offset += count;
  auto held = std::pair(keys, values);
  for (auto* rows : {&held.first, &held.second}) {
    change_all(*rows, [&](const mx::array& array) {
      return first_tokens(array, offset);
    });
  }
  return held;
}

std::vector<mx::array> QuantizedKVCache::state() const {
  auto arrays = keys.arrays();
  for (auto& array : values.arrays()) {
    arrays.push_back(std::move(array));
  }
  return arrays;
}

void check(const KVQuantization& options) {
  constexpr int kBits[] = {2, 3, 4, 5, 6, 8}, kGroups[] = {32, 64, 128};
  if (std::find(std::begin(kBits), std::end(kBits), options.bits) ==
      std::end(kBits)) {
    invalid(kOp, "kv_bits must be 2, 3, 4, 5, 6 or 8, got ", options.bits, '.');
  }
  if (std::find(std::begin(kGroups), std::end(kGroups), options.group_size) ==
      std::end(kGroups)) {
    invalid(
        kOp,
        "kv_group_size must be 32, 64 or 128, got ",
        options.group_size,
        '.');
  }
  if (options.start < 0) {
    invalid(
        kOp, "quantized_kv_start must be at least 0, got ", options.start, '.');
  }
}

void quantize(Cache& cache, const KVQuantization& options) {
  if (options.bits == 0) {
    return;
  }
  for (auto& layer : cache) {
    const auto* kv = dynamic_cast<const KVCache*>(layer.get());
    if (kv && kv->keys && kv->offset >= std::max(1, options.start)) {
      layer = std::make_unique<QuantizedKVCache>(
          *kv, options.bits, options.group_size);
    }
  }
}

} // namespace zmlx
