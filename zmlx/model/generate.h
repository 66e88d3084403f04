// SPDX-License-Identifier: MIT
// Text generation: samplers, prefill in chunks, and a stream of pieces.
#pragma once

#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "zmlx/model/model.h"
#include "zmlx/model/quantized_cache.h"
#include "zmlx/model/sampler.h"

namespace zmlx {

struct GenerateOptions {
  int max_tokens = 100;
  SamplerOptions sampler = {};
  /// The cache of keys and values in fewer bits.
  KVQuantization kv = {};
  /// Tokens a prefill step.
  int prefill_step = 512;
  /// Use no chat template, even if the model has one.
  bool raw = false;
  /// Stop at the model's end tokens.
  bool stop_at_eos = true;
  /// Called with (done, total) prompt tokens.
  std::function<void(int, int)> progress = {};
};

/// One token of the answer.
struct Piece {
  int token = 0;
  std::string text; // whole UTF-8 characters only; may be empty
  /// "" while going on, then "stop" (end token) or "length".
  std::string finish_reason;
  int prompt_tokens = 0;
  int generated_tokens = 0;
  double prompt_seconds = 0; // prefill, first token included
  double generation_seconds = 0; // since the first token
};

/// Pieces as they come; ends after finish_reason. Throws std::invalid_argument
/// on bad options or a prompt longer than the model's context.
class Generation {
 public:
  Generation(Model& model, std::vector<int> prompt, GenerateOptions options);
  Generation(Generation&&) noexcept;
  ~Generation();

  /// The next piece, or false at the end.
  bool next(Piece& piece);

  struct End {};
  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Piece;
    using difference_type = std::ptrdiff_t;
    explicit Iterator(Generation* generation) : generation_(generation) {
      ++*this;
    }
    const Piece& operator*() const {
      return piece_;
    }
    const Piece* operator->() const {
      return &piece_;
    }
    Iterator& operator++() {
      done_ = !generation_->next(piece_);
      return *this;
    }
    bool operator==(End) const {
      return done_;
    }

   private:
    Generation* generation_;
    Piece piece_;
    bool done_ = false;
  };
  Iterator begin() {
    return Iterator(this);
  }
  End end() const {
    return {};
  }

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The ids of a prompt: chat template (unless raw or none), then the tokenizer.
std::vector<int>
encode_prompt(const Model& model, const std::string& prompt, bool raw);

/// Generates from a text prompt; the model needs a tokenizer.
Generation
generate(Model& model, const std::string& prompt, GenerateOptions options = {});

/// Generates from token ids; pieces have no text if the model has no tokenizer.
Generation
generate(Model& model, std::vector<int> prompt, GenerateOptions options = {});

/// Feeds tokens (length,) through the model in chunks and evaluates the cache,
/// quantising it after each as `kv` says. Returns logits (vocab,) float32 after
/// the last token.
mx::array prefill(
    Model& model,
    Cache& cache,
    const std::vector<int>& tokens,
    int step = 512,
    const std::function<void(int, int)>& progress = {},
    const KVQuantization& kv = {});

} // namespace zmlx
