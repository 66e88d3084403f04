// SPDX-License-Identifier: MIT
// The parser behind parse.h: recursive descent, which builds nodes as it goes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "zmlx/dialect/parse.h"

namespace zmlx::dialect {

/// What a text may cost, so that no text hangs the caller.
struct ParseBudget {
  int depth = 0; // nesting now, at most kMaxDepth
  int steps = 0; // statements and calls so far, at most kMaxSteps
};
inline constexpr int kMaxDepth = 200;
inline constexpr int kMaxSteps = 100'000;
inline constexpr int kMaxNodes = 100'000;

/// The spelling of a type name, if it is one that expressions have.
std::optional<Spelling> find_type(std::string_view name);

/// Whether a name is a type of Metal that expressions do not have.
bool is_foreign_type(std::string_view name);

/// Whether a name is a word of the language.
bool is_keyword(std::string_view name);

class Parser {
 public:
  using Id = Graph::Id;

  Parser(
      Graph& graph,
      const Source& source,
      const std::vector<Token>& tokens,
      const Functions& helpers,
      ParseBudget& budget,
      size_t position = 0)
      : graph_(graph),
        source_(source),
        tokens_(tokens),
        helpers_(helpers),
        budget_(budget),
        position_(position) {}

  void bind(std::string name, Spelling type, Id value, bool constant);

  /// Statements up to the end of the text; the value of the last.
  Id parse_text();

  /// Statements up to the brace that closes a function; what it returns.
  Id parse_function_body(Spelling result);

 private:
  struct Variable {
    std::string name;
    Spelling type;
    Id value;
    bool constant;
  };
  /// Variables, and under which condition a value has been returned.
  struct State {
    std::vector<Variable> variables;
    Id returned; // Bool
    Id result = -1; // meaningful where returned
  };
  class Nested;

  // Words.
  const Token& peek(size_t ahead = 0) const;
  bool accept(std::string_view symbol);
  void expect(std::string_view symbol);
  [[noreturn]] void fail(
      const Token& token,
      std::string_view what,
      std::string_view hint = "") const;
  bool at_type() const;
  Spelling parse_type();
  std::string parse_new_name();

  // Expressions, from the loosest binding to the tightest.
  Id parse_value();
  Id parse_condition();
  Id parse_binary(int level);
  Id parse_unary();
  Id parse_primary();
  Id parse_number();
  Id parse_name();
  Id parse_call(const Token& name);
  std::vector<Id> parse_arguments();
  Id call_helper(
      const Functions::Function& function,
      const Token& name,
      const std::vector<Id>& args);
  Id binary(const Token& op, Id a, Id b);
  Id shaped(Id value, Spelling type);
  void common(Id& a, Id& b);
  [[noreturn]] void unknown(const Token& name, bool function) const;

  // Statements.
  void start();
  std::optional<Id> parse_statement();
  void parse_block();
  void parse_declaration();
  void parse_if();
  void parse_for();
  void parse_return();
  bool at_assignment() const;
  void parse_assignment();
  void skip_statement();
  void return_value(Id value);
  void merge(Id condition, const State& yes, const State& no);
  Variable* find(std::string_view name);
  void spend(const Token& token);

  Graph& graph_;
  const Source& source_;
  const std::vector<Token>& tokens_;
  const Functions& helpers_;
  ParseBudget& budget_;
  size_t position_;
  State state_{{}, -1, -1};
};

/// Counts a level of nesting for as long as it lives.
class Parser::Nested {
 public:
  Nested(const Parser& parser, const Token& token);
  ~Nested() {
    --budget_.depth;
  }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  ParseBudget& budget_;
};

} // namespace zmlx::dialect
