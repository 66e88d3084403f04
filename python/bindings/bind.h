// SPDX-License-Identifier: MIT
// What the files of the extension share: one function a subject.
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <string_view>
#include <vector>

#include "mlx/mlx.h"

namespace mx = mlx::core;
namespace nb = nanobind;

/// Around calls that compile, build graphs or evaluate: other threads run
/// meanwhile. Arguments are converted before it, results after it.
using without_gil = nb::call_guard<nb::gil_scoped_release>;

/// The arrays of a Python call. Numbers become arrays of no dimension; throws
/// TypeError "[op] x must be an mx.array, got list." for the rest, with the
/// input's name where one is given, else "input 0".
std::vector<mx::array> arrays_of(
    nb::handle values,
    std::string_view op,
    const std::vector<std::string>& names = {});

void bind_decode(nb::module_& m);
void bind_expressions(nb::module_& m);
void bind_validation(nb::module_& m);
void bind_moe(nb::module_& m);
void bind_norm_qkv(nb::module_& m);
void bind_packed_rows(nb::module_& m);
void bind_kernels(nb::module_& m);
void bind_raw_kernel(nb::module_& m);
void bind_witness(nb::module_& m);
