// SPDX-License-Identifier: MIT
// The fidelity ladder, verdict, texts and capsules of zmlx/measure, fed with
// what Python ran.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "python/bindings/bind.h"
#include "zmlx/measure/capsule.h"
#include "zmlx/measure/prompts.h"
#include "zmlx/measure/report.h"
#include "zmlx/measure/router_ties.h"
#include "zmlx/measure/stepper.h"
#include "zmlx/measure/validate_report.h"
#include "zmlx/measure/verdict.h"
#include "zmlx/model/checkpoint/checkpoint.h"
#include "zmlx/runtime/thread_team.h"

namespace measure = zmlx::measure;

namespace {

/// One step's logits as contiguous float32.
class Logits {
 public:
  explicit Logits(const mx::array& logits)
      : array_(
            mx::contiguous(
                mx::reshape(mx::astype(logits, mx::float32), {-1}))) {
    array_.eval();
  }
  std::span<const float> values() const {
    return {array_.data<float>(), array_.size()};
  }

 private:
  mx::array array_;
};

/// A ValidateResult that fills up.
class Validation {
 public:
  Validation(
      std::string model,
      const std::string& dtype,
      const std::string& quantization,
      int max_tokens,
      int runs,
      bool has_oracle) {
    result_.model = std::move(model);
    result_.model_hash = zmlx::Checkpoint::open(result_.model).hash();
    result_.dtype = zmlx::dtype_from_name(dtype);
    result_.info.quantization = quantization;
    result_.max_tokens = max_tokens;
    result_.runs = runs;
    result_.threads = zmlx::num_threads();
    if (has_oracle) {
      result_.oracle.emplace();
    }
  }

  int add_prompt(std::string text, std::vector<int> ids) {
    measure::PromptResult prompt;
    prompt.text = std::move(text);
    prompt.prompt = std::move(ids);
    result_.prompts.push_back(std::move(prompt));
    return static_cast<int>(result_.prompts.size()) - 1;
  }

  /// Whether patched's most likely token is stock's.
  bool compare(
      int prompt,
      int step,
      const mx::array& stock,
      const mx::array& patched,
      const std::optional<mx::array>& oracle) {
    const Logits ours(patched), theirs(stock);
    const auto difference =
        measure::compare_step(theirs.values(), ours.values());
    int truth = -1;
    if (oracle) {
      const Logits exact(*oracle);
      truth = measure::most_likely(exact.values());
      result_.oracle->add(exact.values(), theirs.values(), ours.values());
    }
    result_.prompts.at(static_cast<size_t>(prompt))
        .closeness.add(prompt, step, difference, truth);
    result_.closeness.add(prompt, step, difference, truth);
    return difference.stock_token == difference.patched_token;
  }

  void
  set_tokens(int prompt, std::vector<int> stock, std::vector<int> patched) {
    auto& result = result_.prompts.at(static_cast<size_t>(prompt));
    result.stock = std::move(stock);
    result.patched = std::move(patched);
    result.match_tokens();
  }

  void repeat(const mx::array& first, const mx::array& again, bool one_thread) {
    const Logits a(first), b(again);
    if (one_thread && !result_.one_thread) {
      result_.one_thread.emplace();
    }
    auto& repetition = one_thread ? *result_.one_thread : result_.repeat;
    ++repetition.steps;
    repetition.equal_steps +=
        std::memcmp(
            a.values().data(), b.values().data(), a.values().size_bytes()) == 0;
  }

  /// The first step that parts and would fail at float32, or -1.
  int departure(int prompt) const {
    return result_.oracle
        ? -1
        : measure::departure(result_.prompts.at(static_cast<size_t>(prompt)));
  }
  void set_tie(int prompt, int step, double gap) {
    result_.prompts.at(static_cast<size_t>(prompt)).tie =
        measure::RouterTie{step, gap};
  }

  void set_patched(
      const std::vector<std::tuple<std::string, std::string>>& installed) {
    result_.patched = {};
    for (const auto& [path, pattern] : installed) {
      result_.patched.installed.push_back({path, pattern, 0});
    }
  }

  void time(bool patched, double prefill, double decode, uint64_t peak_bytes) {
    auto& speed = patched ? result_.patched_speed : result_.stock_speed;
    speed.prefill_tok_s.push_back(prefill);
    speed.decode_tok_s.push_back(decode);
    speed.peak_memory_bytes = std::max(speed.peak_memory_bytes, peak_bytes);
  }

  void set_timed(int prompt_tokens, int tokens) {
    result_.timed_prompt_tokens = prompt_tokens;
    result_.timed_tokens = tokens;
  }

  std::vector<std::string> finish() {
    result_.failures = measure::broken_rules(result_);
    return result_.failures;
  }
  std::string text() const {
    return measure::to_text(result_);
  }
  void write_capsule(
      const std::string& path,
      const std::string& command,
      const std::string& python) const {
    auto capsule = measure::to_capsule(result_, command);
    capsule.meta.python = python;
    measure::write_capsule(path, capsule);
  }

 private:
  measure::ValidateResult result_;
};

} // namespace

void bind_validation(nb::module_& m) {
  nb::class_<Validation>(m, "Validation")
      .def(
          nb::init<
              std::string,
              const std::string&,
              const std::string&,
              int,
              int,
              bool>(),
          nb::arg("model"),
          nb::arg("dtype"),
          nb::arg("quantization"),
          nb::arg("max_tokens"),
          nb::arg("runs"),
          nb::arg("has_oracle"))
      .def(
          "add_prompt",
          &Validation::add_prompt,
          nb::arg("text"),
          nb::arg("ids"))
      .def(
          "compare",
          &Validation::compare,
          nb::arg("prompt"),
          nb::arg("step"),
          nb::arg("stock"),
          nb::arg("patched"),
          nb::arg("oracle").none())
      .def(
          "set_tokens",
          &Validation::set_tokens,
          nb::arg("prompt"),
          nb::arg("stock"),
          nb::arg("patched"))
      .def(
          "repeat",
          &Validation::repeat,
          nb::arg("first"),
          nb::arg("again"),
          nb::arg("one_thread"))
      .def("departure", &Validation::departure, nb::arg("prompt"))
      .def(
          "set_tie",
          &Validation::set_tie,
          nb::arg("prompt"),
          nb::arg("step"),
          nb::arg("gap"))
      .def("set_patched", &Validation::set_patched, nb::arg("installed"))
      .def(
          "time",
          &Validation::time,
          nb::arg("patched"),
          nb::arg("prefill"),
          nb::arg("decode"),
          nb::arg("peak_bytes"))
      .def(
          "set_timed",
          &Validation::set_timed,
          nb::arg("prompt_tokens"),
          nb::arg("tokens"))
      .def("finish", &Validation::finish)
      .def("text", &Validation::text)
      .def(
          "write_capsule",
          &Validation::write_capsule,
          nb::arg("path"),
          nb::arg("command"),
          nb::arg("python"));
  m.def(
      "least_router_gap",
      &measure::least_router_gap,
      nb::arg("spec"),
      nb::arg("logits"),
      nb::arg("bias").none(),
      "How near rows of logits come to a choice of other experts: by what part "
      "of a row's largest logit two must move towards one another.");
  m.def("default_prompts", &measure::default_prompts);
  m.def(
      "random_tokens",
      &measure::random_tokens,
      nb::arg("count"),
      nb::arg("vocab_size"),
      nb::arg("seed"));
  m.def(
      "report_text",
      [](const std::string& path) {
        return measure::report_text(measure::read_capsule(path));
      },
      nb::arg("path"));
  m.def("num_threads", &zmlx::num_threads);
  m.def("set_num_threads", &zmlx::set_num_threads, nb::arg("threads"));
}
