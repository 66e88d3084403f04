// SPDX-License-Identifier: MIT
// Normalisations over the last axis.
#pragma once

#include "zmlx/kernels/norms/rms_norm.h"
