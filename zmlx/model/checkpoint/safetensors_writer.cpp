// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/safetensors_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <unordered_set>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "zmlx/base/error.h"
#include "zmlx/model/checkpoint/safetensors_dtypes.h"

namespace zmlx {
namespace {

constexpr const char* kOp = "save_safetensors";
constexpr size_t kDataAlignment = 64;

std::string quoted(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    invalid(kOp, "names must be UTF-8, got ", shown_name(text), ".");
  }
}

// Offsets from the start of the data part; false if a tensor would start at
// what is no multiple of its item size.
bool place_in_order(std::vector<TensorInfo>& tensors) {
  uint64_t offset = 0;
  bool aligned = true;
  for (auto& tensor : tensors) {
    uint64_t bytes = tensor.dtype.size();
    for (const auto dim : tensor.shape) {
      bytes *= static_cast<uint64_t>(dim);
    }
    aligned = aligned && offset % tensor.dtype.size() == 0;
    tensor.begin = offset;
    tensor.end = offset += bytes;
  }
  return aligned;
}

std::vector<TensorInfo> check(const std::vector<TensorSpec>& specs) {
  std::vector<TensorInfo> tensors;
  std::unordered_set<std::string> names;
  for (const auto& spec : specs) {
    if (!names.insert(spec.name).second || spec.name == "__metadata__") {
      invalid(
          kOp,
          "each tensor must have a name of its own, got ",
          shown_name(spec.name),
          names.size() == tensors.size() ? " twice." : ".");
    }
    if (safetensors_dtype_name(spec.dtype) == nullptr) {
      invalid(
          kOp,
          "tensor ",
          shown_name(spec.name),
          " must have a dtype of ",
          safetensors_dtype_names(),
          ", got complex64.");
    }
    tensors.push_back({spec.name, spec.dtype, spec.shape, 0, 0});
  }
  return tensors;
}

std::string header_text(
    const std::vector<TensorInfo>& tensors,
    const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      text += text.back() == '{' ? "" : ",";
      text += concat(quoted(key), ':', quoted(value));
    }
    text += "}";
  }
  for (const auto& tensor : tensors) {
    text += text.size() == 1 ? "" : ",";
    text += concat(
        quoted(tensor.name),
        ":{\"dtype\":\"",
        safetensors_dtype_name(tensor.dtype),
        "\",\"shape\":[");
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      text += concat(i == 0 ? "" : ",", tensor.shape[i]);
    }
    text += concat("],\"data_offsets\":[", tensor.begin, ',', tensor.end, "]}");
  }
  text += "}";
  const size_t end =
      (8 + text.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
  text.append(end - 8 - text.size(), ' ');
  return text;
}

} // namespace

SafetensorsPlan plan_safetensors(
    const std::vector<TensorSpec>& tensors,
    const std::map<std::string, std::string>& metadata) {
  SafetensorsPlan plan;
  plan.tensors = check(tensors);
  if (!place_in_order(plan.tensors)) {
    std::stable_sort(
        plan.tensors.begin(),
        plan.tensors.end(),
        [](const auto& a, const auto& b) {
          return a.dtype.size() > b.dtype.size();
        });
    place_in_order(plan.tensors);
  }
  const std::string header = header_text(plan.tensors, metadata);
  for (int i = 0; i < 8; ++i) {
    plan.front += static_cast<char>(header.size() >> (8 * i) & 0xff);
  }
  plan.front += header;
  for (auto& tensor : plan.tensors) {
    tensor.begin += plan.front.size();
    tensor.end += plan.front.size();
  }
  plan.file_bytes =
      plan.tensors.empty() ? plan.front.size() : plan.tensors.back().end;
  return plan;
}

SafetensorsWriter::SafetensorsWriter(std::string path, SafetensorsPlan plan)
    : path_(std::move(path)),
      temporary_(concat(path_, ".tmp", ::getpid())),
      plan_(std::move(plan)) {
  fd_ = ::open(
      temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) {
    bad_file(path_, "cannot be written: ", std::strerror(errno), ".");
  }
  try {
    write(plan_.front.data(), plan_.front.size());
  } catch (...) {
    ::close(fd_);
    std::remove(temporary_.c_str());
    throw;
  }
}

SafetensorsWriter::~SafetensorsWriter() {
  if (fd_ >= 0) {
    ::close(fd_);
    std::remove(temporary_.c_str());
  }
}

void SafetensorsWriter::write(const char* data, size_t bytes) {
  // Linux moves at most 2 GiB a call.
  constexpr size_t kMost = size_t(1) << 30;
  while (bytes > 0) {
    const ssize_t done = ::write(fd_, data, std::min(bytes, kMost));
    if (done < 0) {
      if (errno == EINTR) {
        continue;
      }
      bad_file(path_, "cannot be written: ", std::strerror(errno), ".");
    }
    data += done;
    bytes -= static_cast<size_t>(done);
    written_ += static_cast<uint64_t>(done);
  }
}

void SafetensorsWriter::append(const void* data, size_t bytes) {
  if (bytes > plan_.file_bytes - written_) {
    throw std::logic_error("SafetensorsWriter: more bytes than planned");
  }
  write(static_cast<const char*>(data), bytes);
}

void SafetensorsWriter::finish() {
  if (written_ != plan_.file_bytes) {
    throw std::logic_error("SafetensorsWriter: fewer bytes than planned");
  }
  // A full disk may show only now.
  const bool closed = ::close(std::exchange(fd_, -1)) == 0;
  if (!closed || std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    std::remove(temporary_.c_str());
    bad_file(path_, "cannot be written: ", std::strerror(error), ".");
  }
}

void save_safetensors(
    const std::string& path,
    const std::vector<std::pair<std::string, mx::array>>& tensors,
    const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSpec> specs;
  std::map<std::string, const mx::array*> arrays;
  for (const auto& [name, array] : tensors) {
    specs.push_back({name, array.dtype(), array.shape()});
    arrays[name] = &array;
  }
  SafetensorsWriter writer(path, plan_safetensors(specs, metadata));
  for (const auto& tensor : writer.tensors()) {
    mx::array rows = mx::contiguous(*arrays.at(tensor.name));
    rows.eval();
    if (rows.nbytes() > 0) {
      writer.append(rows.data<char>(), rows.nbytes());
    }
  }
  writer.finish();
}

} // namespace zmlx
