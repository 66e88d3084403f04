// SPDX-License-Identifier: MIT
#include "zmlx/model/tokenizer/post_processor.h"

#include "zmlx/base/error.h"

namespace zmlx {
namespace {

using Ids = std::vector<TokenId>;

TokenId checked_id(const Part& part, const Json& json) {
  if (!json.is_number_unsigned() ||
      json.get<uint64_t>() >= static_cast<uint64_t>(kMaxTokenId)) {
    part.fail(concat(
        "must hold ids of 0 to ", kMaxTokenId - 1, ", got ", json.dump(), "."));
  }
  return json.get<TokenId>();
}

// {"id": "<s>", "ids": [1], "tokens": ["<s>"]}
Ids ids_of(const Part& tokens, const std::string& name) {
  const Part list = tokens.at(name).at("ids");
  if (!list.json().is_array()) {
    list.fail("must be an array.");
  }
  Ids ids;
  for (const auto& id : list.json()) {
    ids.push_back(checked_id(list, id));
  }
  return ids;
}

void read_template(const Part& part, Ids& before, Ids& after) {
  bool seen = false;
  for (const Part& piece : part.items("single")) {
    if (piece.has("Sequence")) {
      if (seen || piece.at("Sequence").text("id") != "A") {
        piece.fail("must be the only Sequence, and A.");
      }
      seen = true;
      continue;
    }
    const Ids ids =
        ids_of(part.at("special_tokens"), piece.at("SpecialToken").text("id"));
    auto& side = seen ? after : before;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (!seen) {
    part.at("single").fail("must hold the Sequence A.");
  }
}

// ["</s>", 2]
Ids pair_id(const Part& part) {
  if (!part.json().is_array() || part.json().size() != 2) {
    part.fail("must be [token, id].");
  }
  return {checked_id(part, part.json()[1])};
}

} // namespace

PostProcessor::PostProcessor(const Part& part) {
  for (const auto& [type, step] : flatten(part, "processors")) {
    Ids left, right;
    if (type == "TemplateProcessing") {
      read_template(step, left, right);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      left = pair_id(step.at("cls"));
      right = pair_id(step.at("sep"));
    } else if (type != "ByteLevel") {
      step.fail(
          "is not supported; post-processors that are: TemplateProcessing, "
          "BertProcessing, RobertaProcessing, ByteLevel, Sequence.");
    }
    before.insert(before.begin(), left.begin(), left.end());
    after.insert(after.end(), right.begin(), right.end());
  }
}

} // namespace zmlx
