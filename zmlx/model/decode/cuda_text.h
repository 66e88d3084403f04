// SPDX-License-Identifier: MIT
// The CUDA kernel's text, embedded by the build.
#pragma once

#include <string_view>

namespace zmlx::decode {

extern const std::string_view cuda_table, cuda_words, cuda_machine,
    cuda_exchange, cuda_multiply, cuda_small, cuda_produce, cuda_draw,
    cuda_inputs, cuda_outputs, cuda_stages, cuda_attend, cuda_kernel;

} // namespace zmlx::decode
