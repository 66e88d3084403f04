// SPDX-License-Identifier: MIT
// Runs the tokenizer for the pytest files: JSON on stdin, JSON on stdout.
#include <iostream>
#include <iterator>

#include "zmlx/base/error.h"
#include "zmlx/base/json.h"
#include "zmlx/model/tokenizer/tokenizer.h"

namespace {

using zmlx::Json;
using zmlx::TokenId;

Json run(
    const std::string& mode, const std::string& folder, const Json& input) {
  const auto tokenizer = zmlx::Tokenizer::load(folder);
  Json out = Json::array();
  for (const auto& item : input) {
    if (mode == "encode" || mode == "encode-special") {
      out.push_back(tokenizer->encode(
          item.get<std::string>(), mode == "encode-special"));
    } else if (mode == "encode-plain") {
      const zmlx::TextSpan span{item.get<std::string>(), false};
      out.push_back(tokenizer->encode({&span, 1}));
    } else if (mode == "decode" || mode == "decode-skip") {
      out.push_back(tokenizer->decode(
          item.get<std::vector<TokenId>>(), mode == "decode-skip"));
    } else if (mode == "stream") {
      zmlx::StreamDecoder stream(tokenizer);
      std::string text;
      for (const auto& id : item) {
        text += stream.push(id.get<TokenId>());
      }
      out.push_back(text + stream.finish());
    } else {
      zmlx::invalid("tokenizer_driver", "unknown mode '", mode, "'.");
    }
  }
  return out;
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: tokenizer_driver MODE FOLDER <JSON\n";
    return 2;
  }
  try {
    const std::string text(std::istreambuf_iterator<char>(std::cin), {});
    std::cout << run(argv[1], argv[2], zmlx::parse_json(text, "stdin")).dump();
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
