// SPDX-License-Identifier: MIT
#include "zmlx/model/generate.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <limits>
#include <optional>
#include <utility>

#include "zmlx/base/error.h"
#include "zmlx/model/decode/fused_network.h"
#include "zmlx/model/tokenizer/chat_template.h"
#include "zmlx/model/tokenizer/tokenizer.h"

namespace zmlx {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

void check_prompt(const ModelInfo& info, const std::vector<int>& tokens) {
  if (tokens.empty()) {
    invalid("generate", "the prompt must have at least one token, got none.");
  }
  if (info.max_positions > 0 && tokens.size() > size_t(info.max_positions)) {
    invalid(
        "generate",
        "the prompt must fit the model's context of ",
        info.max_positions,
        " tokens, got ",
        tokens.size(),
        '.');
  }
  for (const int token : tokens) {
    if (token < 0 || (info.vocab_size > 0 && token >= info.vocab_size)) {
      invalid(
          "generate",
          "token ids must be in 0..",
          info.vocab_size - 1,
          ", got ",
          token,
          '.');
    }
  }
}

// How many tokens can follow: the last one need not be fed back, so that one
// more than the context holds can be made.
int room_for(const ModelInfo& info, size_t prompt_size, int wanted) {
  if (info.max_positions <= 0) {
    return wanted;
  }
  return std::min(wanted, info.max_positions - int(prompt_size) + 1);
}

// Tokens for which caches make room from the start; most texts end earlier.
constexpr int kMostExpected = 1024;

} // namespace

mx::array prefill(
    Model& model,
    Cache& cache,
    const std::vector<int>& tokens,
    int step,
    const std::function<void(int, int)>& progress,
    const KVQuantization& kv) {
  if (step < 1) {
    invalid("generate", "prefill_step must be at least 1, got ", step, '.');
  }
  check_prompt(model.info, tokens);
  const int total = int(tokens.size());
  std::optional<mx::array> logits;
  if (progress) {
    progress(0, total);
  }
  for (int done = 0; done < total;) {
    const int count = std::min(step, total - done);
    const mx::array chunk(tokens.begin() + done, {1, count}, mx::int32);
    logits = model.network->forward(chunk, cache, /* last_only= */ true);
    done += count;
    if (done == total) {
      logits = mx::astype(mx::reshape(*logits, {-1}), mx::float32);
      mx::eval(*logits);
    }
    quantize(cache, kv);
    // Each chunk's activations go before the next one starts.
    eval(cache);
    mx::clear_cache();
    if (progress) {
      progress(done, total);
    }
  }
  return *logits;
}

struct Generation::State {
  Model& model;
  std::vector<int> prompt;
  GenerateOptions options;
  Sampler sampler;
  Cache cache;
  std::optional<StreamDecoder> decoder;
  int limit;
  int generated = 0;
  bool done = false;
  // Tokens (count,) that are being computed; none before the first and at the
  // end.
  std::optional<mx::array> pending;
  int started = 0; // tokens whose computation has begun
  std::vector<int> ready; // computed, of which `handed` have been handed out
  size_t handed = 0;
  Clock::time_point first_token_at;
  double prompt_seconds = 0;

  State(Model& model, std::vector<int> prompt, GenerateOptions options);
  ~State();
  void sample(const mx::array& logits);
  void start();
  void run_ahead();
  void collect();
  void fill(Piece& piece, int token);
};

Generation::State::State(
    Model& model_,
    std::vector<int> prompt_,
    GenerateOptions options_)
    : model(model_),
      prompt(std::move(prompt_)),
      options(std::move(options_)),
      sampler(options.sampler),
      cache(model.network->make_cache()) {
  if (options.max_tokens < 1) {
    invalid(
        "generate",
        "max_tokens must be at least 1, got ",
        options.max_tokens,
        '.');
  }
  if (options.prefill_step < 1) {
    invalid(
        "generate",
        "prefill_step must be at least 1, got ",
        options.prefill_step,
        '.');
  }
  if (options.kv.bits != 0) {
    check(options.kv);
  }
  check_prompt(model.info, prompt);
  limit = room_for(model.info, prompt.size(), options.max_tokens);
  expect(cache, int(prompt.size()) + std::min(limit, kMostExpected));
  if (model.tokenizer) {
    decoder.emplace(model.tokenizer);
  }
}

// A step may still be running ahead; it must not outlive what it computes with.
Generation::State::~State() {
  if (pending) {
    try {
      pending->wait();
    } catch (const std::exception&) {
      // Nobody is left to hear of it.
    }
  }
}

void Generation::State::sample(const mx::array& logits) {
  const auto index = static_cast<uint64_t>(started++);
  pending = mx::reshape(mx::astype(sampler(logits, index), mx::int32), {1});
  mx::async_eval(*pending);
}

void Generation::State::start() {
  const auto begin = Clock::now();
  const mx::array logits = prefill(
      model, cache, prompt, options.prefill_step, options.progress, options.kv);
  sample(logits);
  pending->wait();
  first_token_at = Clock::now();
  prompt_seconds = seconds_between(begin, first_token_at);
}

// Starts the steps after the pending tokens before these are looked at: the
// device works while the caller prints. Its result is the same either way.
void Generation::State::run_ahead() {
  const int count = static_cast<int>(pending->size());
  const mx::array token = mx::slice(*pending, {count - 1}, {count});
  const auto& drawing = sampler.options();
  if (auto* fused =
          decode::FusedNetwork::that_draws(*model.network, drawing, cache)) {
    const int drawn =
        std::min(limit - started, fused->most_drawn(drawing, cache));
    pending = fused->draw(
        token, cache, drawing, static_cast<uint64_t>(started), drawn);
    mx::async_eval(*pending);
    started += drawn;
    return;
  }
  const mx::array logits = model.network->forward(
      mx::reshape(token, {1, 1}), cache, /* last_only= */ true);
  quantize(cache, options.kv);
  sample(mx::astype(mx::reshape(logits, {-1}), mx::float32));
}

// Makes the pending tokens ready, with the next ones on their way.
void Generation::State::collect() {
  if (!pending) {
    start();
  }
  mx::array tokens = *pending;
  if (started < limit) {
    run_ahead();
  } else {
    pending.reset();
  }
  mx::eval(tokens);
  const int* ids = tokens.data<int>();
  ready.assign(ids, ids + tokens.size());
  if (*std::min_element(ready.begin(), ready.end()) < 0) {
    decode::FusedNetwork::throw_that_gave_up(*model.network);
  }
  handed = 0;
}

void Generation::State::fill(Piece& piece, int token) {
  const auto& eos = model.info.eos_ids;
  const bool stop = options.stop_at_eos &&
      std::find(eos.begin(), eos.end(), token) != eos.end();
  const bool last = stop || generated == limit;
  piece.token = token;
  piece.text.clear();
  if (decoder) {
    if (!stop) {
      piece.text = decoder->push(token);
    }
    if (last) {
      piece.text += decoder->finish();
    }
  }
  piece.finish_reason = stop ? "stop" : last ? "length" : "";
  piece.prompt_tokens = int(prompt.size());
  piece.generated_tokens = generated;
  piece.prompt_seconds = prompt_seconds;
  piece.generation_seconds = seconds_between(first_token_at, Clock::now());
}

Generation::Generation(
    Model& model,
    std::vector<int> prompt,
    GenerateOptions options)
    : state_(
          std::make_unique<State>(
              model,
              std::move(prompt),
              std::move(options))) {}
Generation::Generation(Generation&&) noexcept = default;
Generation::~Generation() = default;

bool Generation::next(Piece& piece) {
  State& state = *state_;
  if (state.done) {
    return false;
  }
  // What throws below ends the stream: the cache may be half a step ahead.
  state.done = true;
  if (state.handed == state.ready.size()) {
    state.collect();
  }
  const int id = state.ready[state.handed++];
  ++state.generated;
  state.fill(piece, id);
  state.done = !piece.finish_reason.empty();
  return true;
}

std::vector<int>
encode_prompt(const Model& model, const std::string& prompt, bool raw) {
  if (!model.tokenizer) {
    invalid(
        "generate",
        "a text prompt needs a tokenizer, but ",
        model.folder,
        " has no tokenizer.json. Try: token ids.");
  }
  if (!raw && !model.chat_template_error.empty()) {
    throw FileError(model.chat_template_error);
  }
  if (raw || !model.chat_template) {
    return model.tokenizer->encode(prompt, true);
  }
  const ChatMessage message{"user", prompt};
  return model.tokenizer->encode(
      model.chat_template->apply(std::span(&message, 1)));
}

Generation
generate(Model& model, const std::string& prompt, GenerateOptions options) {
  auto tokens = encode_prompt(model, prompt, options.raw);
  return Generation(model, std::move(tokens), std::move(options));
}

Generation
generate(Model& model, std::vector<int> prompt, GenerateOptions options) {
  return Generation(model, std::move(prompt), std::move(options));
}

} // namespace zmlx
