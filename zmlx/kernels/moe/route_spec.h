// SPDX-License-Identifier: MIT
// The catalog's entry of the router.
#pragma once

#include "zmlx/authoring/kernel_spec.h"

namespace zmlx::kernels {

KernelSpec route_spec();

} // namespace zmlx::kernels
