// SPDX-License-Identifier: MIT
// The extension module zmlx._core. MLX's types come from mlx.core, whose
// nanobind domain it shares.
#include "python/bindings/bind.h"
#include "zmlx/base/error.h"
#include "zmlx/version.h"

NB_MODULE(_core, m) {
  nb::module_::import_("mlx.core");
  m.doc() = "zmlx's C++ library on arrays of mlx.core.";
  m.attr("__version__") = ZMLX_VERSION;
  nb::exception<zmlx::FileError>(m, "FileError", PyExc_RuntimeError);
  nb::exception<zmlx::BackendError>(m, "BackendError", PyExc_RuntimeError);
  nb::exception<zmlx::CompileError>(m, "CompileError", PyExc_RuntimeError);
  bind_decode(m);
  bind_expressions(m);
  bind_validation(m);
  bind_moe(m);
  bind_norm_qkv(m);
  bind_packed_rows(m);
  bind_kernels(m);
  bind_raw_kernel(m);
  bind_witness(m);
}
