// SPDX-License-Identifier: MIT
// Convolutions.
#pragma once

#include "zmlx/kernels/conv/short_conv.h"
