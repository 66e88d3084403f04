// SPDX-License-Identifier: MIT
// Arrays that look into a mapped file, without a copy where MLX allows it.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>

#include "mlx/mlx.h"

#include "zmlx/base/mapped_file.h"

namespace zmlx {

namespace mx = mlx::core;

/// The bytes that MLX's CPU allocator keeps in front of a buffer's data, found
/// from a buffer of its own; none where a foreign buffer cannot be used: with a
/// GPU, or when the offset is none that this code knows how to deal with.
std::optional<size_t> buffer_header_bytes();

/// What buffer_header_bytes() gives for data that starts `offset` bytes after
/// its buffer.
std::optional<size_t> usable_header_bytes(ptrdiff_t offset);

/// The tensor of this shape and dtype at byte `offset` of the file; the caller
/// has checked that it lies within. The array keeps the map alive. With
/// header_bytes it looks into the map where these fit in front of the tensor
/// and the tensor is aligned to its items; elsewhere it reads the file when it
/// is evaluated, see lazy_array(). Without, it is a copy where MLX makes one.
mx::array mapped_array(
    const std::shared_ptr<const MappedFile>& file,
    size_t offset,
    const mx::Shape& shape,
    mx::Dtype dtype,
    std::optional<size_t> header_bytes = buffer_header_bytes());

/// The bytes that an array reads when it is evaluated; none where it is, or is
/// not one that mapped_array() made.
std::optional<FilePlace> unread_bytes(const mx::array& array);

} // namespace zmlx
