// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/tokenizer.h"

#include <filesystem>

#include <gtest/gtest.h>
#include <unistd.h>

#include "zmlx/base/error.h"
#include "zmlx/base/json.h"
#include "zmlx/model/tokenizer/byte_alphabet.h"
#include "zmlx/model/tokenizer/chat_template.h"

namespace zmlx {
namespace {

using Ids = std::vector<TokenId>;

// A folder of its own, removed at the end.
class TokenizerFolder : public testing::Test {
 protected:
  TokenizerFolder()
      : folder_(
            std::filesystem::temp_directory_path() /
            concat("zmlx_tokenizer_", ::getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~TokenizerFolder() override {
    std::filesystem::remove_all(folder_);
  }

  void write(const char* file, const Json& json) {
    write_file(folder_ / file, json.dump());
  }
  std::shared_ptr<const Tokenizer> load(const Json& json) {
    write("tokenizer.json", json);
    return Tokenizer::load(folder_);
  }
  std::string error_of(const Json& json) {
    try {
      load(json);
    } catch (const FileError& error) {
      return error.what();
    }
    return "";
  }

  std::filesystem::path folder_;
};

Json added(int id, const char* content, bool special = true) {
  return {
      {"id", id},
      {"content", content},
      {"special", special},
      {"normalized", false},
      {"lstrip", false},
      {"rstrip", false},
      {"single_word", false}};
}

// Bytes 0 to 255 as tokens, "ab" (256) and "abc" (257), <|end|> (258).
Json byte_level() {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[to_byte_alphabet(std::string(1, static_cast<char>(byte)))] = byte;
  }
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  return {
      {"version", "1.0"},
      {"added_tokens", {added(258, "<|end|>")}},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "ByteLevel"},
        {"add_prefix_space", false},
        {"use_regex", true}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"},
        {"vocab", vocab},
        {"merges", {"a b", Json::array({"ab", "c"})}}}}};
}

// The decoder of Llama 2 over byte tokens (id of byte b: 3 + b).
Json byte_fallback() {
  Json vocab = {{"<unk>", 0}, {"x", 1}, {"\u2581y", 2}};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    vocab[name] = 3 + byte;
  }
  const Json decoders = {
      {{"type", "Replace"},
       {"pattern", {{"String", "\u2581"}}},
       {"content", " "}},
      {{"type", "ByteFallback"}},
      {{"type", "Fuse"}},
      {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 1}}};
  return {
      {"decoder", {{"type", "Sequence"}, {"decoders", decoders}}},
      {"model",
       {{"type", "BPE"},
        {"byte_fallback", true},
        {"unk_token", "<unk>"},
        {"vocab", vocab},
        {"merges", Json::array()}}}};
}

TEST_F(TokenizerFolder, MergesByRankAndFindsAddedTokens) {
  const auto tokenizer = load(byte_level());
  EXPECT_EQ(tokenizer->encode("abcab<|end|>a"), (Ids{257, 256, 258, 'a'}));
  EXPECT_EQ(tokenizer->encode(""), Ids{});
  EXPECT_EQ(tokenizer->vocab_size(), 259);
  EXPECT_EQ(tokenizer->token_to_id("<|end|>"), 258);
  EXPECT_EQ(tokenizer->token_to_id("nothing"), std::nullopt);
  EXPECT_EQ(tokenizer->id_to_token(257), "abc");
  EXPECT_EQ(tokenizer->id_to_token(-1), "");
  EXPECT_TRUE(tokenizer->is_special(258));
  EXPECT_FALSE(tokenizer->is_special(257));
}

TEST_F(TokenizerFolder, ReplacesBytesThatAreNotUtf8AsRustDoes) {
  const auto tokenizer = load(byte_level());
  const auto round = [&](std::string_view text) {
    return tokenizer->decode(tokenizer->encode(text));
  };
  EXPECT_EQ(round("a\xFF z"), "a\uFFFD z");
  EXPECT_EQ(round("\xE2\x82"), "\uFFFD"); // unfinished: one
  EXPECT_EQ(round("\xE2\x28\xA1"), "\uFFFD(\uFFFD");
  EXPECT_EQ(round("\xF0\x9F\x98x"), "\uFFFDx");
  EXPECT_EQ(round("\xC0\xAF"), "\uFFFD\uFFFD"); // overlong: each byte
  EXPECT_EQ(round("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD"); // a surrogate
  EXPECT_EQ(round("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(round(std::string_view("\0\x7F", 2)), std::string("\0\x7F", 2));
}

TEST_F(TokenizerFolder, KeepsSpecialTokensOfAUserAsText) {
  const auto tokenizer = load(byte_level());
  const Ids as_text = {'<', '|', 'e', 'n', 'd', '|', '>'};
  const std::vector<TextSpan> user = {{"<|end|>", false}};
  EXPECT_EQ(tokenizer->encode(user), as_text);
  // Neither half of a token may come from a user.
  for (const bool first : {false, true}) {
    const std::vector<TextSpan> halves = {{"<|e", first}, {"nd|>", !first}};
    EXPECT_EQ(tokenizer->encode(halves), as_text);
  }
  const std::vector<TextSpan> mixed = {
      {"<|end|>", true}, {"<|end|>", false}, {"<|end|>", true}};
  Ids expected = {258};
  expected.insert(expected.end(), as_text.begin(), as_text.end());
  expected.push_back(258);
  EXPECT_EQ(tokenizer->encode(mixed), expected);
  // Words are still cut as in the joined text.
  const std::vector<TextSpan> word = {{"a", true}, {"bc", false}};
  EXPECT_EQ(tokenizer->encode(word), Ids{257});
}

TEST_F(TokenizerFolder, StreamsWholeCharactersOfBytes) {
  const auto tokenizer = load(byte_level());
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.push('a'), "a");
  EXPECT_EQ(stream.push(0xF0), "");
  EXPECT_EQ(stream.push(0x9F), "");
  EXPECT_EQ(stream.push(0x98), "");
  EXPECT_EQ(stream.push(0x80), "\U0001F600");
  EXPECT_EQ(stream.push(0xE2), "");
  EXPECT_EQ(stream.push('b'), "\uFFFDb");
  EXPECT_EQ(stream.push(999), ""); // no such token
  EXPECT_EQ(stream.push(0xC3), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  StreamDecoder skipping(tokenizer, true);
  EXPECT_EQ(skipping.push(258), "");
  EXPECT_EQ(skipping.push('c'), "c");
}

TEST_F(TokenizerFolder, StreamsRunsOfByteTokens) {
  const auto tokenizer = load(byte_fallback());
  const auto byte = [](int value) { return 3 + value; };
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.push(2), "y"); // the first space is stripped
  EXPECT_EQ(stream.push(2), " y");
  EXPECT_EQ(stream.push(byte(0xC3)), "");
  EXPECT_EQ(stream.push(byte(0xA9)), ""); // the run could still break
  EXPECT_EQ(stream.push(1), "\u00E9x");
  EXPECT_EQ(stream.push(byte(0xC3)), "");
  EXPECT_EQ(stream.push(byte(' ')), "");
  EXPECT_EQ(stream.push(1), "\uFFFD\uFFFDx"); // one a byte
  EXPECT_EQ(stream.push(byte(' ')), "");
  EXPECT_EQ(stream.push(1), " x");
  EXPECT_EQ(stream.push(byte(' ')), "");
  EXPECT_EQ(stream.finish(), ""); // the last space is stripped
  EXPECT_EQ(tokenizer->encode("x\u00E9"), (Ids{1, byte(0xC3), byte(0xA9)}));
  EXPECT_EQ(tokenizer->decode(Ids{}), "");
}

TEST_F(TokenizerFolder, HoldsBackWhatAStageAfterFuseMustSeeWhole) {
  Json json = byte_fallback();
  json["decoder"]["decoders"].push_back(
      {{"type", "Replace"}, {"pattern", {{"Regex", "x+$"}}}, {"content", "!"}});
  const auto tokenizer = load(json);
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.push(1) + stream.push(1), "");
  EXPECT_EQ(stream.finish(), "!");
  EXPECT_EQ(tokenizer->decode(Ids{1, 1}), "!");
}

TEST_F(TokenizerFolder, ReadsBosAndEosOfTheConfiguration) {
  write("tokenizer_config.json", {{"eos_token", {{"content", "<|end|>"}}}});
  write("special_tokens_map.json", {{"bos_token", "a"}, {"eos_token", "b"}});
  auto tokenizer = load(byte_level());
  EXPECT_EQ(tokenizer->bos_id(), 'a');
  EXPECT_EQ(tokenizer->eos_ids(), Ids{258});
  write("tokenizer_config.json", {{"eos_token", "<not there>"}});
  EXPECT_TRUE(load(byte_level())->eos_ids().empty());
  write("tokenizer_config.json", {{"eos_token", 3}});
  EXPECT_NE(
      error_of(byte_level()).find("eos_token must be a string, got number"),
      std::string::npos);
}

TEST_F(TokenizerFolder, TokenizesALongRunOfOneCharacter) {
  Json json = byte_level();
  auto& model = json["model"];
  std::string token = "q";
  for (int i = 0; i < 12; ++i) {
    model["merges"].push_back(token + " " + token);
    token += token;
    model["vocab"][token] = 259 + i;
  }
  json["added_tokens"][0]["id"] = 270;
  model["vocab"]["<|end|>"] = 270;
  model["vocab"][token] = 271;
  const auto ids = load(json)->encode(std::string(1 << 20, 'q'));
  EXPECT_EQ(ids, Ids(256, 271));
}

TEST_F(TokenizerFolder, StopsAPatternThatExplodes) {
  Json json = byte_level();
  json["pre_tokenizer"] = {
      {"type", "Split"},
      {"pattern", {{"Regex", "(?:a|aa)+[bc]"}}},
      {"behavior", "Isolated"},
      {"invert", false}};
  const auto tokenizer = load(json);
  try {
    tokenizer->encode(std::string(4000, 'a'));
    FAIL() << "no error";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(
        std::string(error.what()).find("must match within"), std::string::npos)
        << error.what();
  }
}

struct BadFile {
  const char* where; // JSON pointer
  Json value;
  const char* error;
};

TEST_F(TokenizerFolder, RejectsFilesThatItCannotHonour) {
  const std::vector<BadFile> cases = {
      {"/version", "2.0", "version must be 1.0, got '2.0'."},
      {"/model/type", "Unigram", "model must be of type BPE, got 'Unigram'."},
      {"/model/vocab", Json::array(), "model.vocab must be an object."},
      {"/model/vocab/a", -1, "must give 'a' an id of 0 to 9999999, got -1."},
      {"/model/vocab/a", 10000000, "id of 0 to 9999999, got 10000000."},
      {"/model/vocab/a", 1.5, "got 1.5."},
      {"/model/vocab/a", 'b', "its own id, got 98 for 'a' and 'b'."},
      {"/model/merges", 1, "model.merges must be an array."},
      {"/model/merges/0", "ab", "two tokens and one space each, entry 0"},
      {"/model/merges/0", "a b c", "one space each, entry 0 is 'a b c'."},
      {"/model/merges/1", Json::array({"ab", 3}), "entry 1 is [\"ab\",3]."},
      {"/model/merges/1", "a zz", "tokens of the vocabulary, entry 1 has 'zz'"},
      {"/model/merges/0", "b a", "entry 0 has 'ba'."},
      {"/model/unk_token", "?!", "model.unk_token must be in the vocabulary"},
      {"/model/dropout", 0.1, "model.dropout must be null"},
      {"/model/end_of_word_suffix", "</w>", "end_of_word_suffix must be null"},
      {"/model/continuing_subword_prefix", "##", "must be null"},
      {"/added_tokens/0/id", 300, "'<|end|>' must have the id 258, the next"},
      {"/added_tokens/0/content",
       "ab",
       "must have the id 256, as in the model"},
      {"/added_tokens/0/special", 1, "special must be true or false."},
      {"/added_tokens", 3, "added_tokens must be an array."},
      {"/normalizer",
       {{"type", "Lowercase"}},
       "normalizer 'Lowercase' is not supported; normalizers that are: NFC"},
      {"/pre_tokenizer",
       {{"type", "BertPreTokenizer"}},
       "pre_tokenizer 'BertPreTokenizer' is not supported"},
      {"/pre_tokenizer",
       {{"type", "Sequence"}, {"pretokenizers", {{{"type", "Odd"}}}}},
       "pre_tokenizer.pretokenizers[0] 'Odd' is not supported"},
      {"/pre_tokenizer",
       {{"type", "Split"},
        {"pattern", {{"Regex", "(a"}}},
        {"behavior", "Isolated"},
        {"invert", false}},
       "has a pattern that cannot be used: missing closing parenthesis"},
      {"/pre_tokenizer",
       {{"type", "Split"},
        {"pattern", {{"String", ""}}},
        {"behavior", "Isolated"},
        {"invert", false}},
       "must not be an empty string."},
      {"/pre_tokenizer",
       {{"type", "Split"},
        {"pattern", {{"String", "a"}}},
        {"behavior", "Gone"},
        {"invert", false}},
       "must have a behavior of Removed, Isolated"},
      {"/pre_tokenizer",
       {{"type", "Metaspace"},
        {"replacement", "_"},
        {"prepend_scheme", "often"}},
       "must have a prepend_scheme of always, first or never."},
      {"/pre_tokenizer", {{"use_regex", true}}, "must have a member 'type'."},
      {"/decoder", {{"type", "WordPiece"}}, "'WordPiece' is not supported"},
      {"/decoder",
       {{"type", "Strip"}, {"content", "ab"}, {"start", 1}, {"stop", 0}},
       "content must be one character."},
      {"/post_processor", {{"type", "Odd"}}, "'Odd' is not supported"},
      {"/post_processor",
       {{"type", "TemplateProcessing"},
        {"single", {{{"Sequence", {{"id", "B"}}}}}}},
       "must be the only Sequence, and A."},
      {"/post_processor",
       {{"type", "TemplateProcessing"},
        {"single", {{{"SpecialToken", {{"id", "<s>"}}}}}},
        {"special_tokens", Json::object()}},
       "special_tokens must have a member '<s>'."},
  };
  for (const auto& bad : cases) {
    Json json = byte_level();
    json[Json::json_pointer(bad.where)] = bad.value;
    const std::string what = error_of(json);
    EXPECT_NE(what.find(bad.error), std::string::npos)
        << bad.where << ": " << what;
    EXPECT_EQ(what.rfind(folder_.string() + "/tokenizer.json: ", 0), 0u)
        << what;
  }
  EXPECT_EQ(error_of(byte_level()), "");
  EXPECT_NE(
      error_of(Json::array()).find("must be an object."), std::string::npos);
}

TEST_F(TokenizerFolder, NamesAMissingFile) {
  try {
    Tokenizer::load(folder_);
    FAIL() << "no error";
  } catch (const FileError& error) {
    EXPECT_NE(
        std::string(error.what()).find("tokenizer.json: cannot be opened"),
        std::string::npos);
  }
}

TEST_F(TokenizerFolder, RefusesRolesAndDaysThatTemplatesDoNotHave) {
  write(
      "tokenizer_config.json",
      {{"chat_template",
        "{{ bos_token }}<|start_header_id|>{{ strftime_now('%d') }}"
        "Cutting Knowledge Date: <|eot_id|>{{ add_generation_prompt }}"}});
  const auto chat = ChatTemplate::detect(folder_);
  ASSERT_TRUE(chat);
  const std::vector<ChatMessage> user = {{"user", "\xFF hi \xFF"}};
  EXPECT_THROW(chat->apply({}), std::invalid_argument);
  const std::vector<ChatMessage> tool = {{"tool", "42"}};
  EXPECT_THROW(chat->apply(tool), std::invalid_argument);
  for (const char* day :
       {"yesterday", "2025-13-01", "2025-1-1", "2025-01-011"}) {
    EXPECT_THROW(chat->apply(user, {.date = day}), std::invalid_argument);
  }
  EXPECT_NE(
      chat->apply(user, {.date = "2025-07-04"})[0].text.find("04 Jul 2025"),
      std::string::npos);
  EXPECT_EQ(chat->apply(user)[1].text, "\xFF hi \xFF");
  EXPECT_FALSE(chat->apply(user)[1].special_tokens);
}

} // namespace
} // namespace zmlx
