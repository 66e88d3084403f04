// SPDX-License-Identifier: MIT
// Every kernel of the library, with its contract, reference and cases.
#pragma once

#include "zmlx/authoring/registry.h"

namespace zmlx {

/// Filled on first use by the register_<family>() of each family that
/// kernels/CMakeLists.txt names.
const Registry& catalog();

} // namespace zmlx
