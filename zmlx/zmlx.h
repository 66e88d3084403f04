// SPDX-License-Identifier: MIT
// Everything public, as a table of contents: each part may use those above it.
// What these headers reach is what gets installed.
#pragma once

#include "zmlx/version.h"

// Errors.
#include "zmlx/base/error.h"

// Running work of one's own on MLX arrays.
#include "zmlx/runtime/cpu_op.h"
#include "zmlx/runtime/thread_team.h"

// Writing kernels.
#include "zmlx/authoring/elementwise.h"
#include "zmlx/authoring/kernel.h"

// Kernels.
#include "zmlx/kernels/attention/attention.h"
#include "zmlx/kernels/conv/short_conv.h"
#include "zmlx/kernels/moe/moe_mlp.h"
#include "zmlx/kernels/moe/router.h"
#include "zmlx/kernels/norms/rms_norm.h"
#include "zmlx/kernels/quant/quantized_matmul.h"

// Models: load, patch, generate.
#include "zmlx/model/cache.h"
#include "zmlx/model/generate.h"
#include "zmlx/model/model.h"
#include "zmlx/model/module.h"
#include "zmlx/model/patch/patch.h"
