// SPDX-License-Identifier: MIT
#include "zmlx/model/families/weights.h"

#include "zmlx/base/error.h"

namespace zmlx {

const Json* Config::find(const std::string& key) const {
  const auto found = json_.find(key);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

const Json& Config::at(const std::string& key) const {
  const Json* value = find(key);
  if (!value) {
    bad_file(path_, "must have '", key, "', got none.");
  }
  return *value;
}

int Config::integer(const std::string& key, int low, int high) const {
  const Json& value = at(key);
  if (!value.is_number_integer() || value < low || value > high) {
    bad_file(
        path_,
        "'",
        key,
        "' must be an integer from ",
        low,
        " to ",
        high,
        ", got ",
        value.dump(),
        ".");
  }
  return value.get<int>();
}

int Config::integer(const std::string& key, int low, int high, int otherwise)
    const {
  return find(key) ? integer(key, low, high) : otherwise;
}

float Config::number(const std::string& key, std::optional<float> otherwise)
    const {
  if (otherwise && !find(key)) {
    return *otherwise;
  }
  const Json& value = at(key);
  if (!value.is_number()) {
    bad_file(path_, "'", key, "' must be a number, got ", value.dump(), ".");
  }
  return value.get<float>();
}

bool Config::flag(const std::string& key, std::optional<bool> otherwise) const {
  if (otherwise && !find(key)) {
    return *otherwise;
  }
  const Json& value = at(key);
  if (!value.is_boolean()) {
    bad_file(
        path_, "'", key, "' must be true or false, got ", value.dump(), ".");
  }
  return value.get<bool>();
}

std::string Config::text(const std::string& key, const std::string& otherwise)
    const {
  const Json* value = find(key);
  if (value && !value->is_string()) {
    bad_file(path_, "'", key, "' must be text, got ", value->dump(), ".");
  }
  return value ? value->get<std::string>() : otherwise;
}

TensorSource TensorSource::of(const Checkpoint& checkpoint) {
  TensorSource source;
  source.origin = checkpoint.folder();
  for (const auto& name : checkpoint.names()) {
    source.tensors.emplace(name, checkpoint.tensor(name));
  }
  source.quantization_of = [&checkpoint](const std::string& path) {
    return checkpoint.quantization_of(path);
  };
  return source;
}

bool Weights::has(const std::string& name) const {
  return source_.tensors.count(name) != 0;
}

std::vector<std::string> Weights::names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : source_.tensors) {
    names.push_back(name);
  }
  return names;
}

void Weights::replace(const std::string& name, mx::array tensor) {
  source_.tensors.insert_or_assign(name, std::move(tensor));
}

void Weights::rename(const std::string& from, const std::string& to) {
  auto node = source_.tensors.extract(from);
  node.key() = to;
  if (!source_.tensors.insert(std::move(node)).inserted) {
    bad_file(origin(), "holds both '", from, "' and '", to, "'.");
  }
}

const mx::array& Weights::tensor(const std::string& name) const {
  const auto found = source_.tensors.find(name);
  if (found == source_.tensors.end()) {
    bad_file(origin(), "must hold the tensor '", name, "', got none.");
  }
  return found->second;
}

mx::array Weights::remove(const std::string& name) {
  mx::array removed = tensor(name);
  source_.tensors.erase(name);
  return removed;
}

mx::array Weights::take(const std::string& name, const mx::Shape& shape) {
  const mx::array& found = tensor(name);
  if (found.shape() != shape) {
    bad_file(
        origin(),
        "tensor '",
        name,
        "' must have shape ",
        shape,
        ", got ",
        found.shape(),
        ".");
  }
  taken_.insert(name);
  return found;
}

Parameter Weights::parameter(const std::string& name, const mx::Shape& shape) {
  auto tensor = take(name, shape);
  if (!mx::issubdtype(tensor.dtype(), mx::floating)) {
    bad_file(
        origin(),
        "tensor '",
        name,
        "' must be of a floating-point type, got ",
        tensor.dtype(),
        ".");
  }
  return Parameter(std::move(tensor), dtype_);
}

PackedWeight Weights::packed(const std::string& path, const mx::Shape& shape) {
  const auto quantization = source_.quantization_of(path);
  if (!quantization) {
    bad_file(
        origin(),
        "has '",
        path,
        ".scales', so config.json must have a quantization for it, got none.");
  }
  const auto& q = *quantization;
  const int in = shape.back();
  if (in % q.group_size != 0) {
    bad_file(
        origin(),
        "'",
        path,
        "' must have rows of a multiple of the group size ",
        q.group_size,
        ", got ",
        in,
        ".");
  }
  mx::Shape packed_shape = shape, group_shape = shape;
  packed_shape.back() = static_cast<int>(int64_t{in} * q.bits / 32);
  group_shape.back() = in / q.group_size;
  auto words = take(path + ".weight", packed_shape);
  if (words.dtype() != mx::uint32) {
    bad_file(
        origin(),
        "tensor '",
        path,
        ".weight' must be uint32, got ",
        words.dtype(),
        ".");
  }
  const auto groups = [&](const char* part) {
    const auto name = path + part;
    if (q.mode == "affine") {
      return parameter(name, group_shape);
    }
    // Scales of the floating-point modes are bytes and are never cast.
    auto bytes = take(name, group_shape);
    return Parameter(bytes, bytes.dtype());
  };
  PackedWeight made{
      std::move(words),
      groups(".scales"),
      std::nullopt,
      q.bits,
      q.group_size,
      q.mode};
  if (q.mode == "affine") {
    made.biases = groups(".biases");
  }
  if (source_.place_of) {
    made.keep_blocks(source_.place_of);
  }
  return made;
}

std::variant<DenseWeight, PackedWeight> Weights::matrix(
    const std::string& path,
    const mx::Shape& shape) {
  if (has(path + ".scales")) {
    return packed(path, shape);
  }
  return DenseWeight{parameter(path + ".weight", shape)};
}

LayerSlot Weights::linear(const std::string& path, int out, int in, bool bias) {
  auto weight = matrix(path, {out, in});
  std::optional<Parameter> added;
  if (bias) {
    added = parameter(path + ".bias", {out});
  }
  if (auto* dense = std::get_if<DenseWeight>(&weight)) {
    return std::make_shared<Linear>(std::move(*dense), std::move(added));
  }
  return std::make_shared<QuantizedLinear>(
      std::get<PackedWeight>(std::move(weight)), std::move(added));
}

LayerSlot Weights::rms_norm(const std::string& path, int dim, float eps) {
  return std::make_shared<RMSNorm>(parameter(path + ".weight", {dim}), eps);
}

std::unique_ptr<Embedding>
Weights::embedding(const std::string& path, int rows, int dim) {
  return std::make_unique<Embedding>(matrix(path, {rows, dim}), dtype_);
}

void Weights::expect_all_taken() const {
  for (const auto& [name, tensor] : source_.tensors) {
    if (!taken_.count(name)) {
      bad_file(
          origin(),
          "holds '",
          name,
          "', which its model family does not use (",
          source_.tensors.size() - taken_.size(),
          " such in all).");
    }
  }
}

} // namespace zmlx
