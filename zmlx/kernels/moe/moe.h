// SPDX-License-Identifier: MIT
// Mixtures of experts and the gated layers that they are made of.
#pragma once

#include "zmlx/kernels/moe/combine.h"
#include "zmlx/kernels/moe/gating.h"
#include "zmlx/kernels/moe/moe_mlp.h"
#include "zmlx/kernels/moe/router.h"
