// SPDX-License-Identifier: MIT
// Products with weights in MLX's packings.
#pragma once

#include "zmlx/kernels/common/quantized_arrays.h"
#include "zmlx/kernels/quant/norm_qkv.h"
#include "zmlx/kernels/quant/quantized_matmul.h"
