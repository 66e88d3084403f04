// SPDX-License-Identifier: MIT
// Every environment variable that the library reads: nothing else of it calls
// getenv.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zmlx {

/// One variable, as `zmlx doctor` shows it.
struct EnvVariable {
  const char* name;
  const char* summary;
};

/// All of them.
const std::vector<EnvVariable>& env_variables();

/// The value of a variable of the list; none when unset or empty. Throws
/// std::invalid_argument for a name that is not in the list.
std::optional<std::string> env(std::string_view name);

/// ZMLX_CACHE_DIR: where compiled kernels are kept, by default zmlx below
/// XDG_CACHE_HOME or ~/.cache; relative only if there is no home.
std::string env_cache_dir();

} // namespace zmlx
