// SPDX-License-Identifier: MIT
// What printed statements call besides Metal's functions.
#include "zmlx/dialect/print.h"

namespace zmlx::dialect {

// expm1 and log1p are Kahan's quotients, exact where the sum rounds. erf and
// erfc are minimax fits: at most 3 and 6 ulp. The int functions have the edges
// that Op gives them. The narrow ones, for results of 16 bits, are wrong by
// 5e-6 of their value at most: series where the quick form would lose digits.
std::string_view expression_prelude() {
  return R"metal(
inline float kk_sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }
inline float kk_expm1(float x) {
  float u = exp(x);
  if (u == 1.0f) return x;
  float d = u - 1.0f;
  if (d == -1.0f || isinf(u) || isnan(u)) return d;
  return d * (x / log(u));
}
inline float kk_log1p(float x) {
  float u = 1.0f + x;
  if (u == 1.0f) return x;
  if (isinf(u)) return u;
  return log(u) * (x / (u - 1.0f));
}
inline float kk_tanpi(float x) {
  float r = fmod(x, 1.0f);
  if (r == 0.0f) return copysign(0.0f, x);
  return sinpi(r) / cospi(r);
}
inline float kk_fract(float x) {
  if (isnan(x)) return x;
  return isinf(x) ? 0.0f : fmin(x - floor(x), 0.99999994f);
}
inline float kk_sign(float x) {
  return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x == 0.0f ? x : 0.0f;
}
inline float kk_erf(float x) {
  float t = fabs(x);
  if (t < 0.92f) {
    float s = x * x;
    float p = fma(8.223981422e-05f, s, -8.108081529e-04f);
    p = fma(p, s, 5.197991617e-03f);
    p = fma(p, s, -2.685818635e-02f);
    p = fma(p, s, 1.128367409e-01f);
    p = fma(p, s, -3.761263192e-01f);
    return x * fma(p, s, 1.128379226f);
  }
  if (isnan(x)) return x;
  t = fmin(t, 4.0f);
  float p = fma(-5.222980235e-07f, t, -1.430588600e-05f);
  p = fma(p, t, 3.966763907e-04f);
  p = fma(p, t, -4.053402692e-03f);
  p = fma(p, t, 2.489512227e-02f);
  p = fma(p, t, -1.080118492e-01f);
  p = fma(p, t, -6.335435510e-01f);
  p = fma(p, t, -1.129434109f);
  p = fma(p, t, 1.603991113e-04f);
  return copysign(1.0f - exp(p), x);
}
inline float kk_erfc(float x) {
  float t = fabs(x);
  if (isnan(x)) return x;
  if (t > 10.1f) return x > 0.0f ? 0.0f : 2.0f;
  float u = (t - 2.0f) / (t + 2.0f);
  float p = fma(7.916307368e-05f, u, 1.688047050e-04f);
  p = fma(p, u, -4.008622200e-04f);
  p = fma(p, u, -1.420270884e-03f);
  p = fma(p, u, 1.252951799e-03f);
  p = fma(p, u, 8.708940819e-03f);
  p = fma(p, u, -8.030956611e-03f);
  p = fma(p, u, -5.421781167e-02f);
  p = fma(p, u, 1.640510559e-01f);
  p = fma(p, u, -1.660305262e-01f);
  p = fma(p, u, -9.276381880e-02f);
  p = fma(p, u, 1.276978374f);
  float s = t * t;
  float low = fma(t, t, -s);
  float e = exp(-s);
  float r = p / fma(2.0f, t, 1.0f) * fma(-e, low, e);
  return x < 0.0f ? 2.0f - r : r;
}
inline float kk_narrow_exp(float x) { return fast::exp(x); }
inline float kk_narrow_log(float x) {
  float d = x - 1.0f;
  float p = fma(d, fma(d, fma(d, 0.2f, -0.25f), 0.33333333f), -0.5f);
  float near = fma(d * d, p, d);
  float far = fast::log(x);
  return fabs(d) < 0.0625f ? near : far;
}
inline float kk_narrow_tanh(float x) {
  float s = x * x;
  float near = fma(x * s, fma(s, 0.13333333f, -0.33333333f), x);
  float far = 1.0f - fast::divide(2.0f, fast::exp(2.0f * x) + 1.0f);
  return s < 0.04f ? near : far;
}
inline float kk_narrow_div(float x, float y) {
  float t = fabs(y);
  float s = t > 0x1p64f ? 0x1p-64f : t < 0x1p-64f ? 0x1p64f : 1.0f;
  return x * s * fast::divide(1.0f, y * s);
}
inline float kk_narrow_sigmoid(float x) {
  return fast::divide(1.0f, 1.0f + fast::exp(-x));
}
inline int kk_int(float x) {
  if (isnan(x)) return 0;
  if (x >= 2147483648.0f) return 2147483647;
  return x <= -2147483648.0f ? -2147483647 - 1 : int(x);
}
inline int kk_div(int a, int b) {
  return b == 0 ? 0 : b == -1 ? int(0u - uint(a)) : a / b;
}
inline int kk_rem(int a, int b) { return b == 0 || b == -1 ? 0 : a % b; }
inline int kk_shl(int a, int b) { return int(uint(a) << (uint(b) & 31u)); }
inline int kk_shr(int a, int b) { return a >> (b & 31); }
inline float kk_half(float x) { return float(half(x)); }
inline float kk_bfloat(float x) { return float(bfloat16_t(x)); }
)metal";
}

} // namespace zmlx::dialect
