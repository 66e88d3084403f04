// SPDX-License-Identifier: MIT
#include "zmlx/base/json.h"

#include <gtest/gtest.h>

#include "zmlx/base/error.h"
#include "zmlx/base/text.h"

namespace zmlx {
namespace {

std::string message_of(const std::string& text) {
  try {
    parse_json(text, "f.json");
  } catch (const FileError& error) {
    return error.what();
  }
  return "";
}

TEST(Json, KeepsTheOrderOfKeys) {
  EXPECT_EQ(
      parse_json(R"({"b":1,"a":[true,null]})", "f").dump(),
      R"({"b":1,"a":[true,null]})");
}

TEST(Json, NamesLineAndColumnOfBadSyntax) {
  const auto what = message_of("{\n \"a\": ]}");
  EXPECT_NE(
      what.find("f.json: not valid JSON at line 2, column 7"),
      std::string::npos)
      << what;
}

TEST(Json, RejectsRepeatedKeysDeepNestingAndBadUtf8) {
  EXPECT_NE(
      message_of(R"({"a":1,"a":2})").find("'a' stands twice"),
      std::string::npos);
  EXPECT_NE(
      message_of(std::string(65, '[') + std::string(65, ']'))
          .find("deeper than 64"),
      std::string::npos);
  EXPECT_EQ(message_of(std::string(64, '[') + std::string(64, ']')), "");
  EXPECT_NE(message_of("\"\xff\""), "");
  EXPECT_NE(message_of(""), "");
}

TEST(Json, BuildsWhatTheDefaultParserBuilds) {
  for (
      const char* text :
      {R"({"b":[1,-2,3.5,"x",[],{}],"a":{"c":null,"d":{"e":[[false]]}},"z":1})",
       "[]",
       "{}",
       "-7",
       "\"s\"",
       "18446744073709551615",
       "[[[1],2],3]"}) {
    EXPECT_EQ(parse_json(text, "f"), Json::parse(text)) << text;
  }
}

TEST(Json, ReadsAsManyKeysAsALargeVocabulary) {
  std::string text = "{";
  for (int i = 0; i < 200000; ++i) {
    text += concat(i == 0 ? "" : ",", "\"", i, "\":", i);
  }
  const Json json = parse_json(text + "}", "f");
  EXPECT_EQ(json.size(), 200000u);
  EXPECT_EQ(json.back(), 199999);
}

TEST(Text, SuggestsTheNearestNameOnlyWhenNear) {
  EXPECT_EQ(nearest("rmsnrom", {"moe_mlp", "rmsnorm"}), "rmsnorm");
  EXPECT_EQ(nearest("xyz", {"moe_mlp", "rmsnorm"}), "");
  EXPECT_EQ(nearest("tahn", {"tan", "tanh"}), "tanh"); // letters swapped
  EXPECT_EQ(nearest("foo", {"cos", "pow"}), "");
  EXPECT_EQ(split("a,,b", ',').size(), 3u);
  EXPECT_EQ(human_bytes(4720000000), "4.72 GB");
}

} // namespace
} // namespace zmlx
