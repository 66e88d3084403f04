// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/header_reader.h"

#include <limits>

#include "zmlx/base/error.h"

namespace zmlx {
namespace {

constexpr size_t kMaxDims = 8;
constexpr int64_t kMaxDim = std::numeric_limits<mx::ShapeElem>::max();
constexpr const char* kMetadataKey = "__metadata__";

} // namespace

bool HeaderReader::null() {
  // MLX writes so when it is given no metadata.
  if (place_ == Place::kTop && tensor_.name == kMetadataKey) {
    return true;
  }
  unexpected("null");
}

bool HeaderReader::boolean(bool value) {
  unexpected(value ? "true" : "false");
}

bool HeaderReader::binary(binary_t&) {
  unexpected("binary data");
}

bool HeaderReader::number_integer(number_integer_t value) {
  unexpected(concat(value));
}

bool HeaderReader::number_float(number_float_t, const string_t& text) {
  unexpected(text);
}

bool HeaderReader::parse_error(
    size_t offset,
    const std::string&,
    const nlohmann::detail::exception& error) {
  const std::string what = error.what();
  const size_t colon = what.find("syntax error");
  // The message quotes the text around the error, which may be anything.
  bad_file(
      origin_,
      "header is not valid JSON at its byte ",
      offset,
      ": ",
      shown_name(colon == std::string::npos ? what : what.substr(colon)),
      ".");
}

std::string HeaderReader::tensor_label() const {
  return concat("tensor ", shown_name(tensor_.name));
}

void HeaderReader::unexpected(const std::string& what) const {
  switch (place_) {
    case Place::kStart:
    case Place::kEnd:
      bad_file(origin_, "header must be a JSON object, got ", what, ".");
    case Place::kTop:
      bad_file(
          origin_,
          tensor_label(),
          " must be described by an object, got ",
          what,
          ".");
    case Place::kMetadata:
      bad_file(
          origin_,
          kMetadataKey,
          " must map strings to strings, got ",
          what,
          " for ",
          shown_name(metadata_key_),
          ".");
    case Place::kShape:
      bad_file(
          origin_,
          tensor_label(),
          " must have a shape of integers 0..",
          kMaxDim,
          ", got ",
          what,
          ".");
    case Place::kOffsets:
      bad_file(
          origin_,
          tensor_label(),
          " must have two non-negative integers as data_offsets, got ",
          what,
          ".");
    case Place::kTensor:
      break;
  }
  const char* const expected = field_ == Field::kDtype ? "a dtype string"
      : field_ == Field::kShape                        ? "a shape list"
                                : "a data_offsets list of two";
  bad_file(
      origin_, tensor_label(), " must have ", expected, ", got ", what, ".");
}

bool HeaderReader::number_unsigned(number_unsigned_t value) {
  if (place_ == Place::kShape) {
    if (value > static_cast<uint64_t>(kMaxDim)) {
      unexpected(concat(value));
    }
    if (tensor_.shape.size() == kMaxDims) {
      bad_file(
          origin_,
          tensor_label(),
          " must have at most ",
          kMaxDims,
          " dimensions, got more.");
    }
    tensor_.shape.push_back(static_cast<mx::ShapeElem>(value));
    return true;
  }
  if (place_ == Place::kOffsets && offsets_.size() < 2) {
    offsets_.push_back(value);
    return true;
  }
  unexpected(
      place_ == Place::kOffsets ? std::string("more than two") : concat(value));
}

bool HeaderReader::string(string_t& value) {
  if (place_ == Place::kMetadata) {
    header_.metadata[metadata_key_] = std::move(value);
    return true;
  }
  if (place_ != Place::kTensor || field_ != Field::kDtype) {
    unexpected(concat("the string ", shown_name(value)));
  }
  dtype_ = find_safetensors_dtype(value);
  if (dtype_ == nullptr) {
    bad_file(
        origin_,
        tensor_label(),
        " must have a dtype of ",
        safetensors_dtype_names(),
        ", got ",
        shown_name(value),
        ".");
  }
  return true;
}

bool HeaderReader::start_object(size_t) {
  if (place_ == Place::kStart) {
    place_ = Place::kTop;
  } else if (place_ == Place::kTop) {
    place_ = tensor_.name == kMetadataKey ? Place::kMetadata : Place::kTensor;
  } else {
    unexpected("an object");
  }
  return true;
}

bool HeaderReader::end_object() {
  if (place_ == Place::kTensor) {
    finish_tensor();
  }
  place_ = place_ == Place::kTop ? Place::kEnd : Place::kTop;
  return true;
}

bool HeaderReader::start_array(size_t) {
  if (place_ == Place::kTensor && field_ == Field::kShape) {
    place_ = Place::kShape;
    has_shape_ = true;
  } else if (place_ == Place::kTensor && field_ == Field::kOffsets) {
    place_ = Place::kOffsets;
    has_offsets_ = true;
  } else {
    unexpected("a list");
  }
  return true;
}

bool HeaderReader::end_array() {
  if (place_ == Place::kOffsets && offsets_.size() != 2) {
    unexpected(concat(offsets_.size()));
  }
  place_ = Place::kTensor;
  return true;
}

bool HeaderReader::key(string_t& name) {
  if (place_ == Place::kTop) {
    start_tensor(name);
    return true;
  }
  if (place_ == Place::kMetadata) {
    if (header_.metadata.count(name) != 0) {
      bad_file(
          origin_,
          kMetadataKey,
          " must name each key once, got ",
          shown_name(name),
          " twice.");
    }
    // Kept at once, so that a repeat is seen whatever the value.
    header_.metadata[name];
    metadata_key_ = name;
    return true;
  }
  field_ = name == "dtype"     ? Field::kDtype
      : name == "shape"        ? Field::kShape
      : name == "data_offsets" ? Field::kOffsets
                               : Field::kNone;
  const bool seen = field_ == Field::kDtype ? dtype_ != nullptr
      : field_ == Field::kShape             ? has_shape_
                                            : has_offsets_;
  if (field_ == Field::kNone || seen) {
    bad_file(
        origin_,
        tensor_label(),
        " must have dtype, shape and data_offsets once each, got ",
        shown_name(name),
        seen && field_ != Field::kNone ? " twice." : ".");
  }
  return true;
}

void HeaderReader::start_tensor(const std::string& name) {
  tensor_ = TensorInfo();
  tensor_.name = name;
  dtype_ = nullptr;
  has_shape_ = has_offsets_ = false;
  offsets_.clear();
  if (!names_.insert(name).second) {
    bad_file(
        origin_,
        "must name each tensor once, got ",
        shown_name(name),
        " twice.");
  }
  if (header_.tensors.size() == kMaxTensors && name != kMetadataKey) {
    bad_file(origin_, "must hold at most ", kMaxTensors, " tensors, got more.");
  }
}

void HeaderReader::finish_tensor() {
  if (dtype_ == nullptr || !has_shape_ || !has_offsets_) {
    bad_file(
        origin_,
        tensor_label(),
        " must have dtype, shape and data_offsets, ",
        dtype_ == nullptr ? "dtype"
            : !has_shape_ ? "shape"
                          : "data_offsets",
        " is missing.");
  }
  tensor_.dtype = dtype_->dtype;
  uint64_t bytes = dtype_->dtype.size();
  for (const auto dim : tensor_.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes)) {
      bad_file(
          origin_,
          tensor_label(),
          " must have a shape whose bytes fit 64 bits, got ",
          tensor_.shape,
          ".");
    }
  }
  const uint64_t begin = offsets_[0], end = offsets_[1];
  if (begin > end || end > data_bytes_) {
    bad_file(
        origin_,
        tensor_label(),
        " must have ordered data_offsets within the ",
        data_bytes_,
        " bytes of data, got [",
        begin,
        ", ",
        end,
        "].");
  }
  if (end - begin != bytes) {
    bad_file(
        origin_,
        tensor_label(),
        " of dtype ",
        dtype_->name,
        " and shape ",
        tensor_.shape,
        " must have ",
        bytes,
        " bytes, got ",
        end - begin,
        ".");
  }
  tensor_.begin = header_.data_begin + begin;
  tensor_.end = header_.data_begin + end;
  header_.tensors.push_back(std::move(tensor_));
}

} // namespace zmlx
