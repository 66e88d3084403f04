// SPDX-License-Identifier: MIT
// The catalog's entries of combine.h.
#pragma once

#include "zmlx/authoring/registry.h"

namespace zmlx::kernels {

void register_combine(Registry& registry);

} // namespace zmlx::kernels
