// SPDX-License-Identifier: MIT
//
// How a view comes about. MLX offers array(void*, shape, dtype, deleter) for
// foreign memory, but its CPU allocator makes no buffer of it and copies. An
// array takes any allocator::Data, though, and finds its values at
// Buffer::raw_ptr(), which on CPU is the buffer's pointer plus the allocator's
// own header (a size_t, MLX 0.32.4). A Buffer that points that many bytes in
// front of a tensor therefore gives an array of the tensor itself. Such Data is
// not owned: MLX never frees it, never reuses it for an output, and calls our
// deleter, which lets go of the map. What MLX may read as the buffer's size are
// the bytes before the tensor: the file's header or an earlier tensor, always
// mapped, and used for accounting only.
#include "zmlx/model/checkpoint/mapped_array.h"

#include <cstdint>
#include <utility>

#include "zmlx/runtime/lazy_array.h"

namespace zmlx {
namespace {

ptrdiff_t probed_offset() {
  const mx::allocator::Data probe = mx::allocator::malloc(64);
  mx::allocator::Buffer buffer = probe.buffer();
  return reinterpret_cast<intptr_t>(buffer.raw_ptr()) -
      reinterpret_cast<intptr_t>(buffer.ptr());
}

size_t bytes_of(const mx::Shape& shape, mx::Dtype dtype) {
  size_t bytes = dtype.size();
  for (const auto dim : shape) {
    bytes *= static_cast<size_t>(dim);
  }
  return bytes;
}

class FileBytes : public ArraySource {
 public:
  explicit FileBytes(FilePlace place) : place(std::move(place)) {}

  void fill(mx::array& out) const override {
    place.file->read(place.offset, out.nbytes(), out.data<char>());
  }

  const FilePlace place;
};

// Null where MLX would not take them for the tensor's values.
std::optional<mx::array> view_of_map(
    const std::shared_ptr<const MappedFile>& file,
    size_t offset,
    const mx::Shape& shape,
    mx::Dtype dtype,
    size_t header_bytes) {
  char* const data = file->data() + offset;
  if (header_bytes > offset ||
      reinterpret_cast<uintptr_t>(data) % dtype.size() != 0) {
    return std::nullopt;
  }
  mx::allocator::Buffer buffer(data - header_bytes);
  if (buffer.raw_ptr() != data ||
      !mx::allocator::can_reuse_alien_buffer(buffer.ptr())) {
    return std::nullopt;
  }
  // Holding the map is all that the deleter is for.
  auto keep = [file](mx::allocator::Buffer) {};
  return mx::array(mx::allocator::Data(buffer, std::move(keep)), shape, dtype);
}

} // namespace

std::optional<size_t> usable_header_bytes(ptrdiff_t offset) {
  constexpr ptrdiff_t kMost = 64; // a header is a few words
  const bool known = offset >= 0 && offset <= kMost &&
      offset % static_cast<ptrdiff_t>(sizeof(size_t)) == 0;
  return known ? std::optional<size_t>(offset) : std::nullopt;
}

std::optional<size_t> buffer_header_bytes() {
  static const std::optional<size_t> bytes =
      mx::metal::is_available() || mx::cu::is_available()
      ? std::nullopt
      : usable_header_bytes(probed_offset());
  return bytes;
}

mx::array mapped_array(
    const std::shared_ptr<const MappedFile>& file,
    size_t offset,
    const mx::Shape& shape,
    mx::Dtype dtype,
    std::optional<size_t> header_bytes) {
  const size_t bytes = bytes_of(shape, dtype);
  if (bytes == 0) {
    return mx::array(mx::allocator::malloc(0), shape, dtype);
  }
  if (header_bytes) {
    auto view = view_of_map(file, offset, shape, dtype, *header_bytes);
    return view ? *std::move(view)
                : lazy_array(
                      shape,
                      dtype,
                      std::make_shared<FileBytes>(FilePlace{file, offset}));
  }
  char* const data = file->data() + offset;
  // The public constructor uses the memory where it can (Metal, whole pages)
  // and copies elsewhere; a copy's source is then dropped from memory, so that
  // loading does not hold the file twice.
  file->advise(MappedFile::Advice::kWillNeed, offset, bytes);
  const auto copied = std::make_shared<bool>(false);
  mx::array out(data, shape, dtype, [file, copied](void*) { *copied = true; });
  if (*copied) {
    file->advise(MappedFile::Advice::kDontNeed, offset, bytes);
  }
  return out;
}

std::optional<FilePlace> unread_bytes(const mx::array& array) {
  const auto* bytes = dynamic_cast<const FileBytes*>(source_of(array));
  return bytes ? std::optional(bytes->place) : std::nullopt;
}

} // namespace zmlx
