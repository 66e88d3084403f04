// SPDX-License-Identifier: MIT
#include "zmlx/measure/proof.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "zmlx/base/clock.h"
#include "zmlx/base/error.h"
#include "zmlx/measure/router_ties.h"
#include "zmlx/measure/stepper.h"
#include "zmlx/measure/verdict.h"

namespace zmlx::measure {
namespace {

// Logits kept between the passes over a group of prompts; a single prompt may
// take more.
constexpr size_t kGroupBytes = size_t{1} << 30;

// The logits of one prompt's steps: (steps, vocab).
class Rows {
 public:
  void push(std::span<const float> row) {
    width_ = row.size();
    values_.insert(values_.end(), row.begin(), row.end());
  }
  std::span<float> operator[](size_t step) {
    return {values_.data() + step * width_, width_};
  }

 private:
  size_t width_ = 0;
  std::vector<float> values_;
};

// Sets one thread, and all again in the end.
class OneThread {
 public:
  explicit OneThread(const Sides& sides) : sides_(sides) {
    sides_.set_threads(1);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;
  ~OneThread() {
    sides_.set_threads(sides_.threads);
  }

 private:
  const Sides& sides_;
};

class Proof {
 public:
  Proof(
      Model& model,
      const ValidateOptions& options,
      const Sides& sides,
      SideSwitch& side,
      ValidateResult& result)
      : model_(model),
        options_(options),
        sides_(sides),
        side_(side),
        result_(result) {}

  void run() {
    if (model_.dtype != mx::float32) {
      report("Loading the float32 oracle", 0, 1);
      oracle_ = sides_.load_oracle();
      result_.oracle.emplace();
    }
    if (options_.kv.bits != 0) {
      result_.packed_cache.emplace();
    }
    if (sides_.set_threads && sides_.threads > 1) {
      result_.one_thread.emplace();
    }
    const size_t bytes = sizeof(float) *
        static_cast<size_t>(model_.info.vocab_size) *
        static_cast<size_t>(options_.max_tokens);
    const size_t group =
        std::max<size_t>(1, kGroupBytes / std::max<size_t>(1, bytes));
    for (size_t i = 0; i < result_.prompts.size(); i += group) {
      run_group(i, std::min(i + group, result_.prompts.size()));
    }
  }

  /// Stock's decoding rate; infinite when it decoded nothing.
  double stock_tokens_per_second() const {
    return stock_seconds_ > 0 ? stock_steps_ / stock_seconds_
                              : std::numeric_limits<double>::infinity();
  }

 private:
  // All of the group on stock, then all of it patched, so that patch() and its
  // probe run once a group.
  void run_group(size_t begin, size_t end) {
    std::vector<Rows> rows(end - begin);
    side_.to(false);
    for (size_t i = begin; i < end; ++i) {
      run_stock(i, rows[i - begin]);
    }
    report("Patching and probing", 0, 1);
    side_.to(true);
    for (size_t i = begin; i < end; ++i) {
      run_patched(i, rows[i - begin]);
      compare_tokens(i);
    }
    for (size_t i = begin; i < end; ++i) {
      repeat("Patched again", i, rows[i - begin], result_.repeat);
    }
    if (result_.one_thread) {
      const OneThread while_it_lives(sides_);
      for (size_t i = begin; i < end; ++i) {
        repeat("Patched, one thread", i, rows[i - begin], *result_.one_thread);
      }
    }
    for (size_t i = begin; i < end && !result_.oracle; ++i) {
      PromptResult& prompt = result_.prompts[i];
      if (const int step = departure(prompt); step >= 0) {
        report("Stock again", i, 0, static_cast<size_t>(step));
        side_.to(false);
        prompt.tie = find_tie(model_, prompt, options_.kv, step);
      }
    }
  }

  void report(const std::string& phase, size_t done, size_t total) const {
    if (options_.progress) {
      options_.progress(
          phase, static_cast<long>(done), static_cast<long>(total));
    }
  }

  void report(const char* side, size_t prompt, size_t done, size_t total)
      const {
    if (options_.progress) {
      report(
          concat(side, ", prompt ", prompt + 1, " of ", result_.prompts.size()),
          done,
          total);
    }
  }

  // How many tokens may follow a prompt.
  size_t room_after(const PromptResult& prompt) const {
    const int room =
        model_.info.max_positions - static_cast<int>(prompt.prompt.size());
    const int tokens = model_.info.max_positions > 0
        ? std::min(options_.max_tokens, room)
        : options_.max_tokens;
    return static_cast<size_t>(std::max(1, tokens));
  }

  // Random prompts mean nothing to the model, so neither do its end tokens.
  bool ends(const PromptResult& prompt, int token) const {
    const auto& eos = model_.info.eos_ids;
    return !prompt.text.empty() &&
        std::find(eos.begin(), eos.end(), token) != eos.end();
  }

  void run_stock(size_t index, Rows& rows) {
    PromptResult& prompt = result_.prompts[index];
    const size_t room = room_after(prompt);
    report("Stock", index, 0, room);
    Stepper stepper(model_, prompt.prompt, options_.kv);
    const Stopwatch decoding;
    for (size_t step = 0; step < room; ++step) {
      if (step != 0) {
        stepper.feed(prompt.stock.back());
        stock_steps_ += 1;
      }
      rows.push(stepper.logits());
      prompt.stock.push_back(most_likely(stepper.logits()));
      report("Stock", index, step + 1, room);
      if (ends(prompt, prompt.stock.back())) {
        break;
      }
    }
    stock_seconds_ += decoding.seconds();
  }

  // Feeds stock's tokens to the patched side, and to the oracle beside it. The
  // kept logits become the patched ones, for the repetitions.
  void run_patched(size_t index, Rows& rows) {
    PromptResult& prompt = result_.prompts[index];
    const size_t steps = prompt.stock.size();
    report("Patched", index, 0, steps);
    Stepper patched(model_, prompt.prompt, options_.kv);
    std::optional<Stepper> oracle;
    if (oracle_) {
      oracle.emplace(*oracle_, prompt.prompt);
    }
    std::optional<Stepper> floats; // the same with the whole cache
    if (result_.packed_cache) {
      floats.emplace(model_, prompt.prompt);
    }
    for (size_t step = 0; step < steps; ++step) {
      if (step != 0) {
        patched.feed(prompt.stock[step - 1]);
        if (oracle) {
          oracle->feed(prompt.stock[step - 1]);
        }
        if (floats) {
          floats->feed(prompt.stock[step - 1]);
        }
      }
      const auto logits = patched.logits();
      const auto difference = compare_step(rows[step], logits);
      const int at = static_cast<int>(step);
      const int truth = oracle ? most_likely(oracle->logits()) : -1;
      const int number = static_cast<int>(index);
      prompt.closeness.add(number, at, difference, truth);
      result_.closeness.add(number, at, difference, truth);
      if (floats) {
        result_.packed_cache->add(
            number, at, compare_step(floats->logits(), logits), truth);
      }
      if (oracle) {
        result_.oracle->add(oracle->logits(), rows[step], logits);
      }
      std::copy(logits.begin(), logits.end(), rows[step].begin());
      report("Patched", index, step + 1, steps);
    }
  }

  // The greedy tokens of the patched side. As long as its most likely token
  // was stock's at every teacher-forced step, its own run would have fed the
  // same tokens and so, by induction, be the same; only after a flip must it
  // be run.
  void compare_tokens(size_t index) {
    PromptResult& prompt = result_.prompts[index];
    if (prompt.closeness.flips.empty()) {
      prompt.patched = prompt.stock;
    } else {
      run_freely(index);
    }
    prompt.match_tokens();
  }

  void run_freely(size_t index) {
    PromptResult& prompt = result_.prompts[index];
    const size_t room = room_after(prompt);
    Stepper stepper(model_, prompt.prompt, options_.kv);
    for (size_t step = 0; step < room; ++step) {
      if (step != 0) {
        stepper.feed(prompt.patched.back());
      }
      prompt.patched.push_back(most_likely(stepper.logits()));
      report("Patched, free", index, step + 1, room);
      if (ends(prompt, prompt.patched.back())) {
        return;
      }
    }
  }

  void
  repeat(const char* what, size_t index, Rows& rows, Repetition& repetition) {
    const PromptResult& prompt = result_.prompts[index];
    const size_t steps = prompt.stock.size();
    report(what, index, 0, steps);
    Stepper stepper(model_, prompt.prompt, options_.kv);
    for (size_t step = 0; step < steps; ++step) {
      if (step != 0) {
        stepper.feed(prompt.stock[step - 1]);
      }
      const auto logits = stepper.logits();
      repetition.equal_steps +=
          std::memcmp(logits.data(), rows[step].data(), logits.size_bytes()) ==
          0;
      ++repetition.steps;
      report(what, index, step + 1, steps);
    }
  }

  Model& model_;
  const ValidateOptions& options_;
  const Sides& sides_;
  SideSwitch& side_;
  ValidateResult& result_;
  std::unique_ptr<Model> oracle_;
  double stock_steps_ = 0, stock_seconds_ = 0;
};

} // namespace

double prove(
    Model& model,
    const ValidateOptions& options,
    const Sides& sides,
    SideSwitch& side,
    ValidateResult& result) {
  Proof proof(model, options, sides, side, result);
  proof.run();
  return proof.stock_tokens_per_second();
}

} // namespace zmlx::measure
