// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdexcept>

#include "zmlx/base/error.h"
#include "zmlx/model/tokenizer/unicode.h"

namespace zmlx {
namespace {

// One match of a pattern on a few MB takes far less; a pattern that explodes
// stops within seconds.
constexpr uint32_t kMaxSteps = 50'000'000;
constexpr uint32_t kMaxDepth = 1'000'000;
constexpr uint32_t kMaxHeapKib = 256 * 1024;
constexpr size_t kMaxJitStack = 8u << 20;

template <class T, void (*free)(T*)>
struct Free {
  void operator()(T* pointer) const {
    free(pointer);
  }
};

template <class T, void (*free)(T*)>
using Owned = std::unique_ptr<T, Free<T, free>>;

using CompileContext = Owned<pcre2_compile_context, pcre2_compile_context_free>;
using MatchContext = Owned<pcre2_match_context, pcre2_match_context_free>;
using MatchData = Owned<pcre2_match_data, pcre2_match_data_free>;
using JitStack = Owned<pcre2_jit_stack, pcre2_jit_stack_free>;

template <class T>
T* allocated(T* pointer) {
  if (!pointer) {
    throw std::bad_alloc();
  }
  return pointer;
}

std::string message_of(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, std::size(text));
  return reinterpret_cast<const char*>(text);
}

PCRE2_SPTR units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

// What one thread needs to match one pattern.
class Matcher {
 public:
  Matcher(const pcre2_code* code, std::string_view pattern)
      : code_(code),
        pattern_(pattern),
        data_(allocated(pcre2_match_data_create_from_pattern(code, nullptr))),
        context_(allocated(pcre2_match_context_create(nullptr))) {
    pcre2_set_match_limit(context_.get(), kMaxSteps);
    pcre2_set_depth_limit(context_.get(), kMaxDepth);
    pcre2_set_heap_limit(context_.get(), kMaxHeapKib);
  }

  bool find(std::string_view text, size_t from, size_t& begin, size_t& end) {
    int count = match(text, from);
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) { // 32 KiB: mostly enough
      stack_.reset(
          allocated(pcre2_jit_stack_create(64 << 10, kMaxJitStack, nullptr)));
      pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
      count = match(text, from);
    }
    if (count == PCRE2_ERROR_NOMATCH) {
      return false;
    }
    if (count < 0) {
      throw std::runtime_error(concat(
          "[tokenizer] the pattern '",
          pattern_,
          "' must match within ",
          kMaxSteps,
          " steps and ",
          kMaxJitStack >> 20,
          " MiB of stack, got: ",
          message_of(count),
          "."));
    }
    const PCRE2_SIZE* const bounds = pcre2_get_ovector_pointer(data_.get());
    begin = bounds[0];
    end = bounds[1];
    return true;
  }

 private:
  int match(std::string_view text, size_t from) {
    return pcre2_match(
        code_,
        units(text),
        text.size(),
        from,
        PCRE2_NO_UTF_CHECK,
        data_.get(),
        context_.get());
  }

  const pcre2_code* code_;
  std::string_view pattern_;
  MatchData data_;
  MatchContext context_;
  JitStack stack_;
};

} // namespace

Regex::Regex(std::string_view pattern) : pattern_(pattern) {
  const std::string text = to_pcre2(pattern);
  CompileContext context(allocated(pcre2_compile_context_create(nullptr)));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* const code = pcre2_compile(
      units(text),
      text.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE,
      &error,
      &offset,
      context.get());
  if (!code) {
    throw std::invalid_argument(
        concat(message_of(error), " (in '", pattern, "')"));
  }
  code_.reset(code, [](pcre2_code* owned) { pcre2_code_free(owned); });
  // Without a JIT on this machine, matching falls back to the interpreter.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
}

std::vector<Stretch> Regex::cut(std::string_view text) const {
  const std::string subject = unicode::with_stand_ins(text);
  Matcher matcher(static_cast<const pcre2_code*>(code_.get()), pattern_);
  std::vector<Stretch> out;
  constexpr size_t kNone = std::string::npos;
  size_t from = 0, done = 0, last_end = kNone, begin = 0, end = 0;
  while (from <= subject.size() && matcher.find(subject, from, begin, end)) {
    if (begin == end && end == last_end) {
      if (from == subject.size()) {
        break;
      }
      unicode::next(subject, from);
      continue;
    }
    if (done != begin) {
      out.push_back({done, begin, false});
    }
    out.push_back({begin, end, true});
    from = done = last_end = end;
  }
  if (done != text.size()) {
    out.push_back({done, text.size(), false});
  }
  return out;
}

std::vector<Stretch> cut_at_literal(
    std::string_view text,
    std::string_view literal) {
  std::vector<Stretch> out;
  size_t done = 0;
  for (size_t at = text.find(literal); at != text.npos;
       at = text.find(literal, done)) {
    if (done != at) {
      out.push_back({done, at, false});
    }
    done = at + literal.size();
    out.push_back({at, done, true});
  }
  if (done != text.size()) {
    out.push_back({done, text.size(), false});
  }
  return out;
}

} // namespace zmlx
