// SPDX-License-Identifier: MIT
// The dtype names of safetensors and the MLX types that hold them.
#pragma once

#include <string>
#include <string_view>

#include "mlx/mlx.h"

namespace zmlx {

struct SafetensorsDtype {
  const char* name;
  mlx::core::Dtype dtype;
};

/// The entry of a name, or null when it is none of the format's that MLX can
/// hold. Float8 types are read as uint8.
const SafetensorsDtype* find_safetensors_dtype(std::string_view name);

/// The name under which a dtype is written, or null for complex64.
const char* safetensors_dtype_name(mlx::core::Dtype dtype);

/// Every name, for an error: "F64, F32, ...".
std::string safetensors_dtype_names();

} // namespace zmlx
