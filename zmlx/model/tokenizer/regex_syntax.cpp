// SPDX-License-Identifier: MIT
// Rewrites Oniguruma's Ruby syntax where PCRE2 would read something else.
#include <array>
#include <stdexcept>
#include <vector>

#include "zmlx/base/error.h"
#include "zmlx/model/tokenizer/regex.h"

namespace zmlx {
namespace {

// \w of Oniguruma; PCRE2's leaves out marks, connectors and enclosed letters.
// Outside a class, Oniguruma adds the small digits and fractions of Latin-1.
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24B6}-\x{24E9})"
    R"(\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})";
constexpr std::string_view kSmallDigits = R"(\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";

bool is_general_category(std::string_view name) {
  constexpr std::string_view kMajor = "CLMNPSZ";
  constexpr std::string_view kMinor = "cfnosultmodepik"; // second letters
  return name == "Any" ||
      (!name.empty() && kMajor.find(name[0]) != name.npos &&
       (name.size() == 1 ||
        (name.size() == 2 && kMinor.find(name[1]) != name.npos)));
}

class Rewriter {
 public:
  explicit Rewriter(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    while (at_ < in_.size()) {
      step();
    }
    if (in_class_) {
      fail("a class '[' is not closed");
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(std::string_view why) const {
    throw std::invalid_argument(
        concat(why, " (at byte ", at_, " of '", in_, "')"));
  }

  bool sees(std::string_view text) const {
    return in_.substr(at_, text.size()) == text;
  }

  void copy(size_t count) {
    out_ += in_.substr(at_, count);
    at_ += count;
  }

  void step() {
    const char c = in_[at_];
    if (c == '\\') {
      begin_atom();
      escape();
    } else if (in_class_) {
      class_member(c);
    } else if (c == '[') {
      begin_atom();
      open_class();
    } else if (c == '(') {
      open_group();
    } else if (c == ')') {
      if (!groups_.empty()) {
        atom_ = groups_.back();
        groups_.pop_back();
      }
      copy(1);
    } else if (c == '{') {
      interval();
    } else if (c == '?' || c == '*' || c == '+' || c == '|') {
      copy(1);
    } else {
      if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) {
        begin_atom(); // a character of several bytes is one atom
      }
      copy(1);
    }
  }

  void begin_atom() {
    if (!in_class_) {
      atom_ = out_.size();
    }
  }

  void open_class() {
    in_class_ = true;
    copy(sees("[^") ? 2 : 1);
    if (at_ < in_.size() && in_[at_] == ']') {
      fail("a class must not be empty or begin with ']'");
    }
  }

  void class_member(char c) {
    if (c == ']') {
      in_class_ = false;
    } else if (c == '[') {
      fail("classes within classes are not supported");
    } else if (sees("&&")) {
      fail("intersections of classes (&&) are not supported");
    }
    copy(1);
  }

  // Options in the middle of a branch reach further in PCRE2 than in Ruby.
  void open_group() {
    groups_.push_back(out_.size());
    constexpr std::array<std::string_view, 8> kAlike = {
        "(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:"};
    for (const auto opening : kAlike) {
      if (sees(opening)) {
        return copy(opening.size());
      }
    }
    if (at_ == 0 && sees("(?i)")) {
      groups_.pop_back();
      return copy(4);
    }
    if (sees("(?") || sees("(*")) {
      fail(
          "groups other than (, (?:, (?i:, (?-i:, (?>, look-around and a "
          "leading (?i) are not supported");
    }
    copy(1);
  }

  // {n,m}+ repeats the repetition in Ruby; PCRE2 takes it as possessive.
  void interval() {
    size_t end = at_ + 1;
    const auto digits = [&] {
      const size_t begin = end;
      while (end < in_.size() && in_[end] >= '0' && in_[end] <= '9') {
        ++end;
      }
      return end > begin;
    };
    const bool low = digits();
    const bool comma = end < in_.size() && in_[end] == ',';
    end += comma;
    const bool high = comma && digits();
    if ((!low && !high) || end == in_.size() || in_[end] != '}') {
      fail("'{' must be escaped or open a repetition {n}, {n,}, {,m}, {n,m}");
    }
    if (!low) {
      out_ += "{0";
      ++at_;
    }
    copy(end + 1 - at_);
    if (sees("+")) {
      out_.insert(atom_, "(?:");
      out_ += ")+";
      ++at_;
    }
  }

  void escape() {
    if (at_ + 1 == in_.size()) {
      fail("a pattern must not end in '\\'");
    }
    const char c = in_[at_ + 1];
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool is_digit = c >= '0' && c <= '9';
    if (c == 'p' || c == 'P') {
      property();
    } else if (c == 'w' || c == 'W') {
      word(c == 'W');
    } else if (c == 'u') {
      code_point();
    } else if (c == 'v') {
      out_ += "\\x0B"; // PCRE2: any vertical space
      at_ += 2;
    } else if (c == 'x') {
      hexadecimal();
    } else if (
        std::string_view("sSdDrntfeaAzZG").find(c) != in_.npos ||
        (!is_letter && !is_digit)) {
      copy(2);
    } else {
      fail(
          "of the escapes with a letter or digit, only \\s \\S \\d \\D \\w "
          "\\W \\p \\P \\r \\n \\t \\f \\v \\e \\a \\A \\z \\Z \\G \\x and "
          "\\u are supported");
    }
  }

  void word(bool negated) {
    if (in_class_ && negated) {
      fail("\\W within a class is not supported");
    }
    if (in_class_) {
      out_ += kWord;
    } else {
      out_ += concat(negated ? "[^" : "[", kWord, kSmallDigits, "]");
    }
    at_ += 2;
  }

  void code_point() {
    if (in_.size() < at_ + 6) {
      fail("\\u must have four hexadecimal digits");
    }
    out_ += concat("\\x{", in_.substr(at_ + 2, 4), "}");
    at_ += 6;
  }

  // Two digits of 80 and above are a byte to Oniguruma.
  void hexadecimal() {
    if (sees("\\x{")) {
      return copy(3);
    }
    if (at_ + 2 < in_.size() && (in_[at_ + 2] < '0' || in_[at_ + 2] > '7')) {
      fail("\\x must name an ASCII character (two digits) or use braces");
    }
    copy(2);
  }

  // A bare script name means script extensions to PCRE2 since 10.40.
  void property() {
    const size_t close = in_.find('}', at_);
    if (in_.substr(at_ + 2, 1) != "{" || close == in_.npos) {
      fail("a property must stand in braces: \\p{L}");
    }
    std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
    out_ += in_.substr(at_, 3);
    if (name.substr(0, 1) == "^") {
      out_ += '^';
      name.remove_prefix(1);
    }
    out_ += concat(is_general_category(name) ? "" : "sc:", name, "}");
    at_ = close + 1;
  }

  std::string_view in_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
  size_t atom_ = 0; // where the last atom begins in out_
  std::vector<size_t> groups_;
};

} // namespace

std::string to_pcre2(std::string_view pattern) {
  return Rewriter(pattern).run();
}

} // namespace zmlx
