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

// Kernels from text.
#include "zmlx/authoring/elementwise.h"
#include "zmlx/authoring/kernel.h"
#include "zmlx/authoring/reduce.h"

// Checking, timing, tuning and listing kernels.
#include "zmlx/authoring/autotune_kernel.h"
#include "zmlx/authoring/bench.h"
#include "zmlx/authoring/registry.h"
#include "zmlx/authoring/testing.h"
#include "zmlx/authoring/verify.h"

// Kernels.
#include "zmlx/kernels/activations/activations.h"
#include "zmlx/kernels/attention/attention.h"
#include "zmlx/kernels/catalog.h"
#include "zmlx/kernels/conv/conv.h"
#include "zmlx/kernels/dense/dense.h"
#include "zmlx/kernels/fused/fused.h"
#include "zmlx/kernels/loss/loss.h"
#include "zmlx/kernels/moe/moe.h"
#include "zmlx/kernels/norms/norms.h"
#include "zmlx/kernels/quant/quant.h"
#include "zmlx/kernels/softmax/softmax.h"
#include "zmlx/kernels/transformer/transformer.h"

// Models: load, patch, generate.
#include "zmlx/model/cache.h"
#include "zmlx/model/generate.h"
#include "zmlx/model/model.h"
#include "zmlx/model/module.h"
#include "zmlx/model/patch/patch.h"
