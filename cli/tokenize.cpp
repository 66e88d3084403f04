// SPDX-License-Identifier: MIT
// zmlx tokenize: text to token ids, or back.
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/output.h"
#include "zmlx/base/error.h"
#include "zmlx/base/json.h"
#include "zmlx/model/checkpoint/hub.h"
#include "zmlx/model/tokenizer/tokenizer.h"

namespace zmlx::cli {
namespace {

struct Flags {
  std::string model;
  bool decode = false;
  bool no_special = false;
};

std::vector<int> read_ids(const std::string& text) {
  const Json list = parse_json(text, "standard input");
  if (!list.is_array()) {
    bad_file("standard input", "must be a JSON list of ids.");
  }
  std::vector<int> ids;
  for (const auto& item : list) {
    if (!item.is_number_integer() || item < 0 || item > 0x7fffffff) {
      bad_file(
          "standard input",
          "ids must be whole numbers of 0 or more, got ",
          item.dump(),
          '.');
    }
    ids.push_back(item.get<int>());
  }
  return ids;
}

int run(const Flags& flags) {
  const auto tokenizer = Tokenizer::load(resolve_model(flags.model));
  const std::string text = read_stdin();
  if (flags.decode) {
    print(tokenizer->decode(read_ids(text), flags.no_special));
  } else {
    print(Json(tokenizer->encode(text, !flags.no_special)).dump() + '\n');
  }
  return kGood;
}

} // namespace

void add_tokenize(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  auto& command =
      *app.add_subcommand("tokenize", "Text on stdin to token ids, or back");
  command.add_option("M", flags->model, "Folder or Hugging Face id")
      ->type_name("")
      ->required();
  command.add_flag(
      "--decode", flags->decode, "A JSON list of ids on stdin to text");
  command.add_flag(
      "--no-special", flags->no_special, "Add (or print) no special tokens");
  command.callback([flags, exit_code] { *exit_code = run(*flags); });
}

} // namespace zmlx::cli
