// SPDX-License-Identifier: MIT
#include "zmlx/authoring/gpu_program.h"

#include "zmlx/authoring/program.h"
#include "zmlx/authoring/rows.h"
#include "zmlx/base/error.h"

namespace zmlx {

void run_on_gpu(
    const Program& program,
    const std::vector<mx::array>&,
    std::vector<mx::array>&,
    const mx::Stream&) {
  throw BackendError(concat("[", program.name(), "] runs on the CPU only."));
}

void run_on_gpu(
    const Rows& rows,
    int,
    const std::vector<mx::array>&,
    std::vector<mx::array>&,
    const mx::Stream&) {
  throw BackendError(concat("[", rows.name(), "] runs on the CPU only."));
}

} // namespace zmlx
