// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/normalizer.h"

#include <map>

#include "zmlx/model/tokenizer/unicode.h"

namespace zmlx {
namespace {

using Step = std::function<std::string(std::string)>;

Step replace(const Part& part) {
  return [pattern = Pattern(part.at("pattern")),
          content = part.text("content")](std::string text) {
    std::string out;
    for (const auto& stretch : pattern.cut(text)) {
      out += stretch.matched ? std::string_view(content)
                             : std::string_view(text).substr(
                                   stretch.begin, stretch.end - stretch.begin);
    }
    return out;
  };
}

Step prepend(const Part& part) {
  return [prefix = part.text("prepend")](std::string text) {
    return text.empty() ? text : prefix + text;
  };
}

Step strip(const Part& part) {
  return [left = part.flag("strip_left"),
          right = part.flag("strip_right")](std::string text) {
    size_t begin = 0, end = text.size();
    for (size_t at = 0; left && at < text.size();) {
      if (!unicode::is_space(unicode::next(text, at))) {
        break;
      }
      begin = at;
    }
    while (right && end > begin) {
      const size_t last = unicode::previous(text, end);
      size_t at = last;
      if (!unicode::is_space(unicode::next(text, at))) {
        break;
      }
      end = last;
    }
    return text.substr(begin, end - begin);
  };
}

Step step_of(const std::string& type, const Part& part) {
  using unicode::Form;
  static const std::map<std::string, Form> kForms = {
      {"NFC", Form::kNfc},
      {"NFD", Form::kNfd},
      {"NFKC", Form::kNfkc},
      {"NFKD", Form::kNfkd}};
  if (const auto form = kForms.find(type); form != kForms.end()) {
    return [form = form->second](std::string text) {
      return unicode::normalize(text, form);
    };
  }
  if (type == "Replace") {
    return replace(part);
  }
  if (type == "Prepend") {
    return prepend(part);
  }
  if (type == "Strip") {
    return strip(part);
  }
  part.fail(
      "is not supported; normalizers that are: NFC, NFD, NFKC, NFKD, Prepend, "
      "Replace, Strip, Sequence.");
}

} // namespace

Normalizer::Normalizer(const Part& part) {
  for (const auto& [type, step] : flatten(part, "normalizers")) {
    steps_.push_back(step_of(type, step));
  }
}

std::string Normalizer::apply(std::string text) const {
  for (const auto& step : steps_) {
    text = step(std::move(text));
  }
  return text;
}

} // namespace zmlx
