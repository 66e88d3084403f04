// SPDX-License-Identifier: MIT
#include "zmlx/base/hash.h"

#include <new>

#include <xxhash.h>

namespace zmlx {

struct Hash::State {
  XXH3_state_t* xxh3 = XXH3_createState();
  ~State() {
    XXH3_freeState(xxh3);
  }
};

Hash::Hash() : state_(std::make_unique<State>()) {
  if (!state_->xxh3) {
    throw std::bad_alloc();
  }
  XXH3_128bits_reset(state_->xxh3);
}

Hash::~Hash() = default;

void Hash::add(std::string_view bytes) {
  XXH3_128bits_update(state_->xxh3, bytes.data(), bytes.size());
}

std::string Hash::hex() const {
  XXH128_canonical_t digest;
  XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(state_->xxh3));
  std::string hex;
  for (const unsigned char byte : digest.digest) {
    hex += "0123456789abcdef"[byte >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  return hex;
}

} // namespace zmlx
