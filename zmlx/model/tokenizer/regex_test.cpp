// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/regex.h"

#include <gtest/gtest.h>

#include "zmlx/model/tokenizer/pre_tokenizer.h"
#include "zmlx/model/tokenizer/unicode.h"

namespace zmlx {
namespace {

std::string shown(
    std::string_view text,
    const std::vector<Stretch>& stretches) {
  std::string out;
  for (const auto& [begin, end, matched] : stretches) {
    out += matched ? "[" : "(";
    out += text.substr(begin, end - begin);
    out += matched ? "]" : ")";
  }
  return out;
}

std::string cut(std::string_view pattern, std::string_view text) {
  return shown(text, Regex(pattern).cut(text));
}

TEST(Regex, CutsTextAtMatches) {
  EXPECT_EQ(cut("b+", "abbcb"), "(a)[bb](c)[b]");
  EXPECT_EQ(cut("x", "abc"), "(abc)");
  EXPECT_EQ(cut("x", ""), "");
  EXPECT_EQ(cut("a*", "baac"), "[](b)[aa](c)[]");
}

TEST(Regex, ReadsLineAnchorsAsRubyDoes) {
  EXPECT_EQ(cut("^a|b$", "a\nab\nb"), "[a](\n)[a][b](\n)[b]");
  EXPECT_EQ(cut("a.", "a\n"), "(a\n)");
}

TEST(Regex, RepeatsARepetition) {
  EXPECT_EQ(cut(R"(\d{1,3}+x)", "12345x"), "[12345x]");
  EXPECT_EQ(cut(R"((?:ab){,2}+c)", "abababc"), "[abababc]");
  EXPECT_EQ(
      cut("(\u00E9{1,2}+z)", "\u00E9\u00E9\u00E9z"), "[\u00E9\u00E9\u00E9z]");
  EXPECT_EQ(cut(R"(\d++1)", "111"), "(111)"); // possessive in both
}

TEST(Regex, RejectsWhatHasAnotherMeaningInPcre2) {
  for (const char* pattern :
       {R"([a-z&&[^c]])", R"([a[b]])", R"([[:alpha:]])", R"(\h)",
        R"(\X)",          R"(\bword)", R"(a(?i)b|c)",    R"((?m).)",
        R"((?<n>a))",     R"(\k<n>)",  R"([\W])",        R"(\xE9)",
        R"(\pL)",         R"(a{x})",   R"((*UTF)a)",     R"([])",
        R"([a)",          R"(a\)",     R"(\p{Odd})",     R"(\u12)",
        R"(\1)",          R"((a)",     R"(*a)"}) {
    EXPECT_THROW(Regex{pattern}, std::invalid_argument) << pattern;
  }
}

TEST(Regex, MergesStretchesAsEachBehaviorSays) {
  const std::string text = "the-final--countdown";
  const auto stretches = cut_at_literal(text, "-");
  const auto merged = [&](Behavior behavior) {
    std::string out;
    for (const auto& [begin, end, matched] : merge(stretches, behavior)) {
      out += text.substr(begin, end - begin) + "|";
    }
    return out;
  };
  EXPECT_EQ(merged(Behavior::kIsolated), "the|-|final|-|-|countdown|");
  EXPECT_EQ(merged(Behavior::kContiguous), "the|-|final|--|countdown|");
  EXPECT_EQ(merged(Behavior::kMergedWithPrevious), "the-|final-|-|countdown|");
  EXPECT_EQ(merged(Behavior::kMergedWithNext), "the|-final|-|-countdown|");
}

TEST(Unicode, NormalizesToTheFourForms) {
  using unicode::Form;
  const std::string text = "\u1E9B\u0323 \uFB01 \uAC01"; // of Unicode TR 15
  EXPECT_EQ(unicode::normalize(text, Form::kNfc), text);
  EXPECT_EQ(
      unicode::normalize(text, Form::kNfd),
      "\u017F\u0323\u0307 \uFB01 \u1100\u1161\u11A8");
  EXPECT_EQ(unicode::normalize(text, Form::kNfkc), "\u1E69 fi \uAC01");
  EXPECT_EQ(
      unicode::normalize(text, Form::kNfkd),
      "s\u0323\u0307 fi \u1100\u1161\u11A8");
}

TEST(Unicode, SortsALongRunOfMarksInGoodTime) {
  std::string marks = "e", sorted = "e";
  for (int i = 0; i < 200000; ++i) {
    marks += "\u0301\u0323"; // above, below
    sorted += "\u0323";
  }
  for (int i = 0; i < 200000; ++i) {
    sorted += "\u0301";
  }
  EXPECT_EQ(unicode::normalize(marks, unicode::Form::kNfd), sorted);
}

} // namespace
} // namespace zmlx
