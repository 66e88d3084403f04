// SPDX-License-Identifier: MIT
// Which instruction sets the expression code is compiled for: AVX-512, AVX2,
// NEON and, for everything else, plain C++. Goes before any Highway header.
#pragma once

// Without FMA there is little to gain over plain C++, and vectors of unknown
// size cannot be kept in arrays.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
