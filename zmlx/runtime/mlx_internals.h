// SPDX-License-Identifier: MIT
// The only file that includes MLX's backend headers: how a primitive of ours
// puts its work on a CPU stream.
#pragma once

#include "mlx/backend/cpu/encoder.h"
#include "mlx/mlx.h"
#include "mlx/primitives.h"
