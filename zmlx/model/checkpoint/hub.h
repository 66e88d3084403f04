// SPDX-License-Identifier: MIT
// Finds a model by name in the local Hugging Face cache.
#pragma once

#include <string>
#include <vector>

namespace zmlx {

/// The folder of a model: an existing folder as it is, else the snapshot of a
/// Hugging Face id ("org/name") in the local cache: the one that refs/main
/// names, or else the newest that holds config.json. Nothing is downloaded.
/// Throws std::invalid_argument for what is neither a folder nor an id,
/// FileError when the cache lacks the model; that error shows the command that
/// downloads it.
std::string resolve_model(const std::string& name_or_path);

/// The cache's folder: $HF_HUB_CACHE, $HF_HOME/hub,
/// $XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub.
std::string hub_cache_folder();

/// "org/name" of the cache's folder "models--org--name"; "" of any other name.
std::string hub_id(const std::string& folder_name);

/// Ids of the models in the cache that hold a config.json, sorted.
std::vector<std::string> cached_models();

} // namespace zmlx
