// SPDX-License-Identifier: MIT
// rms_norm_qkv() of few rows on a device that is not the CPU.
#pragma once

#include "zmlx/kernels/quant/norm_qkv.h"

namespace zmlx::quant {

/// Whether the kernel can read the matrices.
bool fits_kernel(const NormQkv& with);

/// One kernel of Metal's dialect, for checked arguments that fit.
std::vector<mx::array> norm_qkv_by_kernel(
    const mx::array& x,
    const NormQkv& with);

} // namespace zmlx::quant
