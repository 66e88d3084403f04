// SPDX-License-Identifier: MIT
// A kernel's text, cut up: its tokens and what it names of its thread.
#pragma once

#include <string_view>
#include <vector>

#include "zmlx/dialect/kernel_text.h"
#include "zmlx/dialect/kernel_tokens.h"

namespace zmlx::dialect {

/// What MLX passes to a Metal kernel whose body names it.
struct KernelAttribute {
  const char* name;
  const char* type;
  const char* host; // from `zm`, the zm_ids of the thread
  const char* cuda;
};

/// A kernel's text in tokens, and the attributes that its body names.
struct KernelParts {
  KernelTokens header, body;
  std::vector<const KernelAttribute*> attributes;
};
KernelParts parts_of(const KernelText& text);

/// Whether a word is there, in a directive too.
bool mentions(const KernelTokens& text, std::string_view word);

/// As kernel_use().
KernelUse use_of(const KernelParts& parts);

} // namespace zmlx::dialect
