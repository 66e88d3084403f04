// SPDX-License-Identifier: MIT
// Steps of few instructions: arithmetic, comparison, selection, conversion and
// rounding.
#include "zmlx/runtime/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "zmlx/runtime/expression_plain.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"

#include "zmlx/runtime/expression_steps-inl.h"
#include "zmlx/runtime/simd_round-inl.h"

HWY_BEFORE_NAMESPACE();
namespace zmlx::cpu::HWY_NAMESPACE {

using dialect::Op;
using dialect::Type;
using DI = hn::RebindToSigned<D>;
using DU = hn::RebindToUnsigned<D>;
using VI = hn::Vec<DI>;
using hn::Abs;
using hn::Add;
using hn::And;
using hn::BitCast;
using hn::CopySign;
using hn::Div;
using hn::IfThenElse;
using hn::Mul;
using hn::Or;
using hn::Set;
using hn::Sub;
using hn::Xor;

HWY_INLINE VI ints(V x) {
  return BitCast(DI(), x);
}
HWY_INLINE V lanes(VI x) {
  return BitCast(D(), x);
}
template <class M>
HWY_INLINE V truth(M mask) {
  return hn::VecFromMask(D(), hn::RebindMask(D(), mask));
}

// Float.
V neg(D d, V x) {
  return Xor(x, hn::SignBit(d));
}
V abs(D, V x) {
  return Abs(x);
}
V add(D, V x, V y) {
  return Add(x, y);
}
V sub(D, V x, V y) {
  return Sub(x, y);
}
V mul(D, V x, V y) {
  return Mul(x, y);
}
V div(D, V x, V y) {
  return Div(x, y);
}
V min(D d, V x, V y) {
  return math::min_number(d, x, y);
}
V max(D d, V x, V y) {
  return math::max_number(d, x, y);
}
V less(D, V x, V y) {
  return truth(hn::Lt(x, y));
}
V less_equal(D, V x, V y) {
  return truth(hn::Le(x, y));
}
V equal(D, V x, V y) {
  return truth(hn::Eq(x, y));
}
V not_equal(D, V x, V y) {
  // Highway's Ne() is false of NaN on x86, where C's is true.
  return truth(hn::Not(hn::Eq(x, y)));
}
V select(D, V condition, V yes, V no) {
  return IfThenElse(hn::MaskFromVec(condition), yes, no);
}
V copy_sign(D, V x, V y) {
  return CopySign(x, y);
}
V sqrt(D, V x) {
  return hn::Sqrt(x);
}
// Highway's plain C++ loses the sign of zero.
V floor(D, V x) {
  return CopySign(hn::Floor(x), x);
}
V ceil(D, V x) {
  return CopySign(hn::Ceil(x), x);
}
V rint(D, V x) {
  return CopySign(hn::Round(x), x);
}
V trunc(D, V x) {
  return CopySign(hn::Trunc(x), x);
}
V round(D d, V x) {
  const auto whole = hn::Trunc(x);
  const auto up = hn::Ge(Abs(Sub(x, whole)), Set(d, 0.5f));
  const auto one = CopySign(Set(d, 1.0f), x);
  return CopySign(IfThenElse(up, Add(whole, one), whole), x);
}
V fract(D d, V x) {
  const auto rest = math::at_most(d, Sub(x, hn::Floor(x)), 0x1.fffffep-1f);
  return hn::IfThenZeroElse(hn::Eq(Abs(x), hn::Inf(d)), rest);
}
V sign(D d, V x) {
  const auto zero = hn::Zero(d);
  const auto one = CopySign(Set(d, 1.0f), x);
  const auto at_zero = hn::IfThenElseZero(hn::Eq(x, zero), x);
  return IfThenElse(Or(hn::Lt(x, zero), hn::Gt(x, zero)), one, at_zero);
}

V fma(D d, V x, V y, V z) {
#if HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR
  // MulAdd rounds twice there.
  HWY_ALIGN float a[kVector], b[kVector], c[kVector];
  hn::Store(x, d, a);
  hn::Store(y, d, b);
  hn::Store(z, d, c);
  for (int64_t i = 0; i < kVector; ++i) {
    a[i] = std::fma(a[i], b[i], c[i]);
  }
  return hn::Load(d, a);
#else
  (void)d;
  return hn::MulAdd(x, y, z);
#endif
}

V round_bfloat(D d, V x) {
  return math::round_bfloat(d, x);
}
V round_half(D d, V x) {
  return math::round_half(d, x);
}

V int_from_float(D d, V x) {
  // Out of range, conversions differ between processors.
  const DI di;
  const auto in_range =
      hn::And(hn::Lt(x, Set(d, 0x1p31f)), hn::Ge(x, Set(d, -0x1p31f)));
  const auto whole = hn::ConvertTo(di, hn::IfThenElseZero(in_range, x));
  const auto most = IfThenElse(
      hn::Gt(x, hn::Zero(d)),
      lanes(Set(di, INT32_MAX)),
      lanes(Set(di, INT32_MIN)));
  const auto saturated = IfThenElse(in_range, lanes(whole), most);
  return hn::IfThenZeroElse(hn::IsNaN(x), saturated);
}
V float_from_int(D d, V x) {
  return hn::ConvertTo(d, ints(x));
}
V float_from_bool(D d, V x) {
  return And(x, Set(d, 1.0f));
}
V int_from_bool(D, V x) {
  return lanes(And(ints(x), Set(DI(), 1)));
}

// Int.
V int_neg(D, V x) {
  return lanes(Sub(hn::Zero(DI()), ints(x)));
}
V int_abs(D, V x) {
  const auto n = ints(x);
  return lanes(
      IfThenElse(hn::Lt(n, hn::Zero(DI())), Sub(hn::Zero(DI()), n), n));
}
V int_add(D, V x, V y) {
  return lanes(Add(ints(x), ints(y)));
}
V int_sub(D, V x, V y) {
  return lanes(Sub(ints(x), ints(y)));
}
V int_mul(D, V x, V y) {
  // Unsigned in plain C++, where overflow is undefined.
  const DU du;
  return BitCast(D(), Mul(BitCast(du, x), BitCast(du, y)));
}
V int_min(D, V x, V y) {
  return lanes(hn::Min(ints(x), ints(y)));
}
V int_max(D, V x, V y) {
  return lanes(hn::Max(ints(x), ints(y)));
}
V int_less(D, V x, V y) {
  return truth(hn::Lt(ints(x), ints(y)));
}
V int_less_equal(D, V x, V y) {
  return truth(hn::Not(hn::Lt(ints(y), ints(x))));
}
V int_equal(D, V x, V y) {
  return truth(hn::Eq(ints(x), ints(y)));
}
V int_not_equal(D, V x, V y) {
  return truth(hn::Ne(ints(x), ints(y)));
}
V bit_and(D, V x, V y) {
  return lanes(And(ints(x), ints(y)));
}
V bit_or(D, V x, V y) {
  return lanes(Or(ints(x), ints(y)));
}
V bit_xor(D, V x, V y) {
  return lanes(Xor(ints(x), ints(y)));
}
V bit_not(D, V x) {
  return lanes(hn::Not(ints(x)));
}
V shift_left(D, V x, V y) {
  const DU du;
  const auto count = And(BitCast(du, y), Set(du, 31));
  return BitCast(D(), hn::Shl(BitCast(du, x), count));
}
V shift_right(D, V x, V y) {
  const DI di;
  return lanes(hn::Shr(ints(x), And(ints(y), Set(di, 31))));
}

// Few processors divide integers side by side.
template <class F>
HWY_INLINE V each_lane(D d, V x, V y, const F& f) {
  const DI di;
  HWY_ALIGN int32_t a[kVector], b[kVector];
  hn::Store(ints(x), di, a);
  hn::Store(ints(y), di, b);
  for (int64_t i = 0; i < kVector; ++i) {
    a[i] = f(a[i], b[i]);
  }
  return BitCast(d, hn::Load(di, a));
}
V int_div(D d, V x, V y) {
  return each_lane(d, x, y, [](int32_t a, int32_t b) {
    return b == 0 ? 0
        : b == -1 ? static_cast<int32_t>(0u - static_cast<uint32_t>(a))
                  : a / b;
  });
}
V int_rem(D d, V x, V y) {
  return each_lane(d, x, y, [](int32_t a, int32_t b) {
    return b == 0 || b == -1 ? 0 : a % b;
  });
}

template <V (*kFunction)(D, V)>
void step1(const StepArgs& args) {
  for_each_vector<1, kAtOnce>(
      args, [](D d, V x) HWY_ATTR { return kFunction(d, x); });
}
template <V (*kFunction)(D, V, V)>
void step2(const StepArgs& args) {
  for_each_vector<2, kAtOnce>(
      args, [](D d, V x, V y) HWY_ATTR { return kFunction(d, x, y); });
}
template <V (*kFunction)(D, V, V, V)>
void step3(const StepArgs& args) {
  for_each_vector<3, kAtOnce>(
      args, [](D d, V x, V y, V z) HWY_ATTR { return kFunction(d, x, y, z); });
}

StepFunction of_ints(Op op) {
  switch (op) {
    case Op::Neg:
      return step1<int_neg>;
    case Op::Abs:
      return step1<int_abs>;
    case Op::Add:
      return step2<int_add>;
    case Op::Sub:
      return step2<int_sub>;
    case Op::Mul:
      return step2<int_mul>;
    case Op::Div:
      return step2<int_div>;
    case Op::Rem:
      return step2<int_rem>;
    case Op::Min:
      return step2<int_min>;
    case Op::Max:
      return step2<int_max>;
    case Op::Shl:
      return step2<shift_left>;
    case Op::Shr:
      return step2<shift_right>;
    case Op::Less:
      return step2<int_less>;
    case Op::LessEqual:
      return step2<int_less_equal>;
    case Op::Equal:
      return step2<int_equal>;
    case Op::NotEqual:
      return step2<int_not_equal>;
    case Op::ToFloat:
      return step1<float_from_int>;
    default:
      return nullptr;
  }
}

StepFunction of_floats(Op op) {
  switch (op) {
    case Op::Neg:
      return step1<neg>;
    case Op::Abs:
      return step1<abs>;
    case Op::Add:
      return step2<add>;
    case Op::Sub:
      return step2<sub>;
    case Op::Mul:
      return step2<mul>;
    case Op::Div:
      return step2<div>;
    case Op::Min:
      return step2<min>;
    case Op::Max:
      return step2<max>;
    case Op::Less:
      return step2<less>;
    case Op::LessEqual:
      return step2<less_equal>;
    case Op::Equal:
      return step2<equal>;
    case Op::NotEqual:
      return step2<not_equal>;
    case Op::ToInt:
      return step1<int_from_float>;
    case Op::RoundHalf:
      return step1<round_half>;
    case Op::RoundBfloat:
      return step1<round_bfloat>;
    case Op::Fma:
      return step3<fma>;
    case Op::CopySign:
      return step2<copy_sign>;
    case Op::Sqrt:
      return step1<sqrt>;
    case Op::Floor:
      return step1<floor>;
    case Op::Ceil:
      return step1<ceil>;
    case Op::Round:
      return step1<round>;
    case Op::Rint:
      return step1<rint>;
    case Op::Trunc:
      return step1<trunc>;
    case Op::Fract:
      return step1<fract>;
    case Op::Sign:
      return step1<sign>;
    default:
      return nullptr;
  }
}

StepFunction FindPlain(Op op, Type type) {
  switch (op) {
    case Op::Select:
      return step3<select>;
    case Op::And:
      return step2<bit_and>;
    case Op::Or:
      return step2<bit_or>;
    case Op::Xor:
      return step2<bit_xor>;
    case Op::Not:
      return step1<bit_not>;
    default:
      break;
  }
  if (type == Type::Bool) {
    return op == Op::ToFloat ? step1<float_from_bool>
        : op == Op::ToInt    ? step1<int_from_bool>
                             : nullptr;
  }
  return type == Type::Int ? of_ints(op) : of_floats(op);
}

} // namespace zmlx::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace zmlx::cpu {

HWY_EXPORT(FindPlain);

StepFunction plain_step(dialect::Op op, dialect::Type type) {
  return HWY_DYNAMIC_DISPATCH(FindPlain)(op, type);
}

} // namespace zmlx::cpu
#endif // HWY_ONCE
