// SPDX-License-Identifier: MIT
// Lets the Python tests call the checkpoint code: one command, JSON out.
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "zmlx/base/error.h"
#include "zmlx/model/checkpoint/checkpoint.h"
#include "zmlx/model/checkpoint/safetensors_dtypes.h"
#include "zmlx/model/checkpoint/synth.h"
#include "zmlx/model/checkpoint/synth_shapes.h"

namespace zmlx {
namespace {

std::string hex(const mx::array& array) {
  std::string out;
  for (size_t i = 0; i < array.nbytes(); ++i) {
    const auto byte = array.data<uint8_t>()[i];
    out += "0123456789abcdef"[byte >> 4];
    out += "0123456789abcdef"[byte & 15];
  }
  return out;
}

// {name: {dtype, shape, bytes in hex}} of a model folder.
Json dump(const std::string& folder) {
  const Checkpoint checkpoint = Checkpoint::open(folder);
  Json out = Json::object();
  for (const auto& name : checkpoint.names()) {
    mx::array array = checkpoint.tensor(name);
    array.eval();
    Json shape = Json::array();
    for (const auto dim : array.shape()) {
      shape.push_back(dim);
    }
    out[name] = {
        {"dtype", safetensors_dtype_name(array.dtype())},
        {"shape", shape},
        {"bytes", hex(array)}};
  }
  return out;
}

// {file name: what the header reader says, "" when it takes the file}.
Json check_headers(const std::string& folder) {
  Json out = Json::object();
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string path = entry.path().string();
    std::string what;
    try {
      const MappedFile file(path);
      read_safetensors_header(file.text(), "f");
    } catch (const FileError& error) {
      what = error.what();
    }
    out[entry.path().filename().string()] = what;
  }
  return out;
}

// The configuration of a shape, and {tensor name: unpacked shape}.
Json show_shape(const std::string& name) {
  for (const auto& row : synth_shape_table()) {
    if (name == row.name) {
      const SynthModel model = row.make(row.layers, {});
      Json weights = Json::object();
      for (const auto& weight : model.weights) {
        weights[weight.linear ? weight.name + ".weight" : weight.name] =
            std::vector<int>(weight.shape.begin(), weight.shape.end());
      }
      return {{"config", model.config}, {"weights", weights}};
    }
  }
  invalid("tool", "no shape '", name, "'.");
}

void save_examples(const std::string& path) {
  const mx::array grid = mx::reshape(mx::arange(6, mx::float32), {2, 3});
  save_safetensors(
      path,
      {{"flags", mx::array({true, false, true})},
       {"bytes", mx::arange(5, mx::uint8)},
       {"grid", mx::transpose(grid)},
       {"half", mx::astype(grid, mx::float16)},
       {"brain", mx::astype(grid, mx::bfloat16)},
       {"long", mx::arange(3, mx::int64)},
       {"none", mx::zeros({0, 3})},
       {"scalar", mx::array(7.0f)},
       {"na\"me\n", mx::arange(2, mx::uint16)}},
      {{"format", "mlx"}, {"note", "a\"b\\\n"}});
}

int run(const std::vector<std::string>& words) {
  if (words.at(0) == "dump") {
    std::cout << dump(words.at(1)).dump() << '\n';
  } else if (words.at(0) == "headers") {
    std::cout << check_headers(words.at(1)).dump() << '\n';
  } else if (words.at(0) == "shape") {
    std::cout << show_shape(words.at(1)).dump() << '\n';
  } else if (words.at(0) == "save") {
    save_examples(words.at(1));
  } else if (words.at(0) == "synth") {
    SynthOptions options;
    options.mode = words.at(3);
    options.bits = std::stoi(words.at(4));
    options.max_shard_bytes = std::stoull(words.at(5));
    std::cout << synth(words.at(1), words.at(2), options) << '\n';
  } else {
    return 2;
  }
  return 0;
}

} // namespace
} // namespace zmlx

int main(int argc, char** argv) {
  try {
    return zmlx::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
