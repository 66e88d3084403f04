// SPDX-License-Identifier: MIT
// The catalog's entries of gating.h.
#pragma once

#include "zmlx/authoring/registry.h"

namespace zmlx::kernels {

void register_gating(Registry& registry);

} // namespace zmlx::kernels
