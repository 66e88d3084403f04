// SPDX-License-Identifier: MIT
// Metal's 8 by 8 matrices, which lie spread over the threads of a SIMD-group:
// two neighbours of a row in each, in the places where Apple's GPUs have them.
#pragma once

namespace metal {

ZM_INLINE int zm_lane();

template <class T, int Columns = 8, int Rows = 8>
struct simdgroup_matrix {
  static_assert(Columns == 8 && Rows == 8, "matrices are 8 by 8");
  vec<T, 2> zm_elements;

  simdgroup_matrix() = default;
  ZM_INLINE explicit simdgroup_matrix(T diagonal);
  ZM_INLINE vec<T, 2>& thread_elements() {
    return zm_elements;
  }
  ZM_INLINE const vec<T, 2>& thread_elements() const {
    return zm_elements;
  }
};
using simdgroup_float8x8 = simdgroup_matrix<float>;
using simdgroup_half8x8 = simdgroup_matrix<half>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat>;

// Row and first column of what a thread holds, and the thread that holds them.
ZM_INLINE constexpr int zm_matrix_row(int lane) {
  return (lane >> 2 & 4) | (lane >> 1 & 3);
}
ZM_INLINE constexpr int zm_matrix_column(int lane) {
  return (lane >> 1 & 4) | (lane << 1 & 2);
}
ZM_INLINE constexpr int zm_matrix_lane(int row, int column) {
  return (row << 2 & 16) | (column << 1 & 8) | (row << 1 & 6) |
      (column >> 1 & 1);
}

template <class T, int Columns, int Rows>
ZM_INLINE simdgroup_matrix<T, Columns, Rows>::simdgroup_matrix(T diagonal) {
  const int row = zm_matrix_row(zm_lane()),
            column = zm_matrix_column(zm_lane());
  zm_elements.x = row == column ? diagonal : T(0);
  zm_elements.y = row == column + 1 ? diagonal : T(0);
}

template <class T, int Columns = 8, int Rows = 8>
ZM_INLINE simdgroup_matrix<T, Columns, Rows> make_filled_simdgroup_matrix(
    T value) {
  simdgroup_matrix<T, Columns, Rows> matrix;
  matrix.zm_elements = vec<T, 2>(value);
  return matrix;
}

// Where element i of a thread lies in memory.
ZM_INLINE long
zm_matrix_place(int i, ulong elements_per_row, ulong2 origin, bool transposed) {
  const int row = zm_matrix_row(zm_lane());
  const int column = zm_matrix_column(zm_lane()) + i;
  const ulong y = origin.y + (transposed ? column : row);
  const ulong x = origin.x + (transposed ? row : column);
  return long(y * elements_per_row + x);
}

template <class T, class Pointer>
ZM_INLINE void simdgroup_load(
    simdgroup_matrix<T>& matrix,
    Pointer from,
    ulong elements_per_row = 8,
    ulong2 origin = ulong2(0, 0),
    bool transposed = false) {
  for (int i = 0; i < 2; ++i)
    matrix.zm_elements[i] =
        from[zm_matrix_place(i, elements_per_row, origin, transposed)];
}

template <class T, class Pointer>
ZM_INLINE void simdgroup_store(
    const simdgroup_matrix<T>& matrix,
    Pointer to,
    ulong elements_per_row = 8,
    ulong2 origin = ulong2(0, 0),
    bool transposed = false) {
  for (int i = 0; i < 2; ++i)
    to[zm_matrix_place(i, elements_per_row, origin, transposed)] =
        matrix.zm_elements[i];
}

// What a product needs of a thread: its parts of a, b and c.
struct zm_matrix_parts {
  float2 a, b, c;
};

} // namespace metal
