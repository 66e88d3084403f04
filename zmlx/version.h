// SPDX-License-Identifier: MIT
// The only place that holds the version; CMake and Python read it here.
#pragma once

#define ZMLX_VERSION "0.1.0"
