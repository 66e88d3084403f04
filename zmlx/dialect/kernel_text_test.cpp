// SPDX-License-Identifier: MIT
#include "zmlx/dialect/kernel_text.h"

#include <gtest/gtest.h>

#include "zmlx/dialect/kernel_rewrite.h"
#include "zmlx/dialect/kernel_tokens.h"

namespace zmlx::dialect {
namespace {

std::string rewritten(KernelTarget target, std::string_view text) {
  const auto tokens = kernel_tokens(text, "k");
  KernelRewriter rewriter(target, "k");
  rewriter.learn_members(tokens);
  return rewriter.rewrite(tokens);
}

std::string host(std::string_view text) {
  return rewritten(KernelTarget::Host, text);
}

std::string checked(std::string_view text) {
  return rewritten(KernelTarget::Checked, text);
}

TEST(KernelTokens, GiveTheTextBack) {
  const std::string text =
      "#define A(x) \\\n  (x + 1)\n/* two\nlines */ a->b <<= 0x1Fu; // end\n"
      "  'c' \"s\\\"t\" 1.5e-3f .5h x>>=2 /* last */\n";
  const auto tokens = kernel_tokens(text, "k");
  EXPECT_EQ(tokens.text(), text);
  EXPECT_EQ(tokens.tokens[0].kind, TokenKind::Directive);
  EXPECT_EQ(tokens.tokens[1].text, "a");
  EXPECT_EQ(tokens.tokens[1].line, 4);
  EXPECT_EQ(kernel_tokens("", "k").tokens.size(), 0u);
  EXPECT_THROW(kernel_tokens("\"open", "k"), std::invalid_argument);
}

TEST(KernelRewrite, DropsAddressSpacesOfPointers) {
  EXPECT_EQ(host("const device float* p = x;"), "const float* p = x;");
  EXPECT_EQ(host("device const float* p"), "const float* p");
  EXPECT_EQ(
      host("f(constant int& n, constant T* t)"), "f(const int& n, const T* t)");
  EXPECT_EQ(host("thread float* p"), "float* p");
  EXPECT_EQ(host("void next() thread {"), "void next()  {");
  EXPECT_EQ(host("(device uint8_t*)w"), "(uint8_t*)w");
  EXPECT_EQ(host("vec<T, 4> threadgroup_x;"), "vec<T, 4> threadgroup_x;");
}

TEST(KernelRewrite, PlacesThreadgroupVariables) {
  EXPECT_EQ(
      host("threadgroup float a[N + 1][2], b;"),
      "auto& a = metal::zm_threadgroup<float[(N + 1)][(2)]>(0);"
      "auto& b = metal::zm_threadgroup<float>(1);");
  EXPECT_EQ(
      rewritten(KernelTarget::Cuda, "threadgroup vec<T, 2> a[4];"),
      "__shared__ vec<T, 2> a[(4)];");
  EXPECT_EQ(host("f(threadgroup float* a)"), "f(float* a)");
}

TEST(KernelRewrite, KeepsConstantsAtTheirPlace) {
  EXPECT_EQ(
      host("constant float t[2] = {1, 2};"),
      "static constexpr float t[2] = {1, 2};");
  EXPECT_EQ(
      rewritten(KernelTarget::Cuda, "constant float t[2] = {1, 2};"),
      "static __constant__ const float t[2] = {1, 2};");
  EXPECT_EQ(
      rewritten(KernelTarget::Cuda, "constexpr constant int t[1] = {1};"),
      "static __device__ constexpr int t[1] = {1};");
  EXPECT_EQ(
      host("struct A { static const constant float x = 2; };"),
      "struct A { static constexpr float x = 2; };");
  EXPECT_EQ(
      host("struct A { static constexpr constant int n = 2; };"),
      "struct A { static constexpr int n = 2; };");
}

TEST(KernelRewrite, TurnsSwizzlesIntoCalls) {
  EXPECT_EQ(host("a = b.wx;"), "a = b.zm(metal::zm_swizzle<3, 0>());");
  EXPECT_EQ(host("b.rgb = a;"), "b.zm_ref(metal::zm_swizzle<0, 1, 2>()) = a;");
  EXPECT_EQ(host("b.xy == a"), "b.zm(metal::zm_swizzle<0, 1>()) == a");
  EXPECT_EQ(
      host("b.x + b.r + b.xyzwx + b.size"), "b.x + b.x + b.xyzwx + b.size");
  EXPECT_EQ(
      host("struct P { float xy; }; p.xy = 1;"),
      "struct P { float xy; }; p.xy = 1;");
  EXPECT_EQ(
      host("float2 xy = v.xy;"),
      "float2 xy = v.zm(metal::zm_swizzle<0, 1>());");
}

TEST(KernelRewrite, WritesHalfLiteralsAndDropsAttributes) {
  EXPECT_EQ(host("1.5h + 0x1h"), "metal::half(1.5f) + 0x1h");
  EXPECT_EQ(host("uint i [[thread_position_in_grid]];"), "uint i ;");
  EXPECT_EQ(host("#include <metal_stdlib>\nx[i]"), "\nx[i]");
}

TEST(KernelRewrite, ChecksPointersAndSubscripts) {
  EXPECT_EQ(
      checked("const device T* p = x + 1;"),
      "metal::zm_pointer<const T> p = x + 1;");
  EXPECT_EQ(
      checked("p[i] = q[j];"), "p[metal::zm_to(i)] = q[metal::zm_at(j)];");
  EXPECT_EQ(checked("p[i].x = 1"), "p[metal::zm_to(i)].x = 1");
  EXPECT_EQ(checked("p[i] == 1"), "p[metal::zm_at(i)] == 1");
  EXPECT_EQ(checked("f(&p[i])"), "f((p + (i)))");
  EXPECT_EQ(checked("a & p[i]"), "a & p[metal::zm_at(i)]");
  EXPECT_EQ(checked("[&](int i) { return i; }"), "[&](int i) { return i; }");
  EXPECT_EQ(
      checked("threadgroup float s; s = s + 1; f(&s);"),
      "const auto s = metal::zm_checked_threadgroup<float[(1)]>(0, \"s\");"
      " s[metal::zm_to(0)] = s[metal::zm_at(0)] + 1; f((s + 0));");
}

TEST(KernelText, NamesWhatABodyUses) {
  KernelText text;
  text.body = "out[thread_position_in_grid.x] = x_shape[0];";
  auto use = kernel_use(text);
  EXPECT_EQ(
      use.attributes, std::vector<std::string>{"thread_position_in_grid"});
  EXPECT_FALSE(use.threads_meet);
  EXPECT_FALSE(use.sees_threadgroups);
  text.header = "#define SUM(x) simd_sum(x)";
  use = kernel_use(text);
  EXPECT_TRUE(use.threads_meet);
}

TEST(KernelText, KeepsTheAuthorsLines) {
  KernelText text;
  text.name = "k";
  text.header = "int f();";
  text.body = "first;\nsecond;";
  text.outputs = {{"out", "float"}};
  const auto host = host_kernel_text(text, false);
  EXPECT_NE(host.find("#line 1000001 \"header\"\nint f();"), std::string::npos);
  EXPECT_NE(host.find("#line 1 \"body\"\nfirst;\nsecond;"), std::string::npos);
  const auto cuda = cuda_kernel_text(text, true);
  EXPECT_NE(cuda.header.find("#line 1 \"body\"\nfirst;"), std::string::npos);
  EXPECT_NE(cuda.source.find("zm_body(\n    (float*)out)"), std::string::npos)
      << cuda.source;
}

} // namespace
} // namespace zmlx::dialect
