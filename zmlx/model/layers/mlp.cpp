// SPDX-License-Identifier: MIT
#include "zmlx/model/layers/mlp.h"

namespace zmlx {

mx::array swiglu(const mx::array& gate, const mx::array& up) {
  return mx::multiply(mx::multiply(gate, mx::sigmoid(gate)), up);
}

} // namespace zmlx
