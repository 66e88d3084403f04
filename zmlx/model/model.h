// SPDX-License-Identifier: MIT
// A language model: its network, tokenizer and configuration, and load().
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "zmlx/model/backbone.h"
#include "zmlx/model/cache.h"
#include "zmlx/model/module.h"

namespace zmlx {

class ChatTemplate;
class Checkpoint;
class Tokenizer;

/// The network of a causal language model.
class Network : public Module {
 public:
  /// Logits of tokens (batch, length) int32: (batch, length, vocab), or with
  /// last_only (batch, 1, vocab). The cache is advanced by length; an empty
  /// one (no entries) means that tokens are the whole sequence.
  virtual mx::array
  forward(const mx::array& tokens, Cache& cache, bool last_only = false) = 0;

  virtual Cache make_cache() const = 0;

  /// The network as residual blocks, if it is made of such.
  virtual std::optional<Backbone> backbone() const {
    return std::nullopt;
  }
};

/// What every family's configuration has in common.
struct ModelInfo {
  std::string family; // "lfm2_moe"
  int vocab_size = 0;
  int num_layers = 0;
  int width = 0; // hidden size
  int max_positions = 0; // the longest context that the model was made for
  uint64_t num_parameters = 0;
  uint64_t weight_bytes = 0; // as stored
  uint64_t active_bytes = 0; // weight bytes that one decoded token reads
  double active_expert_fraction = 1; // of each block's experts
  std::string quantization; // "affine 4 bit, group 64", or "none"
  std::vector<int> eos_ids;
};

/// How to load.
struct LoadOptions {
  /// Activation type: float32, float16 or bfloat16. By default float32 on CPU
  /// and the checkpoint's own type on a GPU.
  std::optional<mx::Dtype> dtype;
  /// Fail when the folder has no tokenizer.json, instead of going without.
  bool need_tokenizer = false;
  /// Keep weights in memory of huge pages on CPU once fused modules read them,
  /// which makes decoding faster and loading slower; otherwise they are mapped,
  /// and shared with other processes. ZMLX_HUGE_PAGES=0 turns it off.
  bool huge_pages = true;
  /// Leave the tokenizer and the chat template out, whatever the folder has.
  bool skip_tokenizer = false;
};

/// A loaded model. Move-only; one thread at a time.
class Model {
 public:
  ModelInfo info;
  std::string folder; // where it was read from
  mx::Dtype dtype = mx::float32; // of activations
  std::unique_ptr<Network> network;
  std::shared_ptr<const Tokenizer> tokenizer; // null when the folder has none
  std::shared_ptr<const ChatTemplate> chat_template; // null when it has none
  /// Why the folder's chat template cannot be used, or "". It matters only to
  /// who needs it: raw prompts and token ids go without.
  std::string chat_template_error;
  std::shared_ptr<const Checkpoint> checkpoint;
};

/// Loads a checkpoint in MLX or Hugging Face layout. name: a folder, or a
/// Hugging Face id found in the local hub cache. See
/// LoadOptions::huge_pages for where weights are then.
/// Throws FileError (a bad file), std::invalid_argument (an unknown family or
/// dtype), or BackendError when memory will not do.
std::unique_ptr<Model> load(
    const std::string& name,
    const LoadOptions& options = {});

/// The dtype named "float32", "float16" or "bfloat16"; throws with the list.
mx::Dtype dtype_from_name(const std::string& name);
std::string name_of(mx::Dtype dtype);

} // namespace zmlx
