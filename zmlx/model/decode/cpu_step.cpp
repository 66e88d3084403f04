// SPDX-License-Identifier: MIT
#include "zmlx/model/decode/cpu_step.h"

#include "zmlx/base/error.h"
#include "zmlx/runtime/cpu_op.h"

namespace zmlx::decode {
namespace {

/// The arrays of one step: tokens, then each layer's state.
struct Arrays {
  std::vector<mx::array> inputs;
  std::vector<CpuOutput> outputs;

  void add(mx::array state) {
    outputs.push_back(
        {state.shape(), state.dtype(), static_cast<int>(inputs.size())});
    inputs.push_back(std::move(state));
  }
};

mx::Shape with_batch(int batch, const mx::Shape& shape) {
  mx::Shape whole = {batch};
  whole.insert(whole.end(), shape.begin(), shape.end());
  return whole;
}

// The rows of the array of floats at `next`, or of the three of fields.
cpu::CacheRows
rows_at(std::vector<mx::array>& arrays, size_t& next, int bits, int head_dim) {
  cpu::CacheRows rows;
  rows.head_dim = head_dim;
  rows.bits = bits;
  mx::array& first = arrays[next++];
  if (bits == 0) {
    rows.floats = first.data<float>();
    return rows;
  }
  rows.bytes = first.data<uint8_t>();
  rows.group_size = head_dim / arrays[next].shape(3);
  rows.scales = arrays[next++].data<float>();
  rows.biases = arrays[next++].data<float>();
  return rows;
}

/// Calls visit(array) for the arrays that a step changes, keys first.
template <class Visit>
void each_array(QuantizedKVCache& kv, const Visit& visit) {
  for (auto* rows : {&kv.keys, &kv.values}) {
    visit(rows->words);
    visit(rows->scales);
    visit(rows->biases);
  }
}

} // namespace

bool CpuStep::takes_packed(const QuantizedKVCache& cache) const {
  return (cache.bits == 8 || cache.bits == 4) &&
      cache.keys.scales.dtype() == mx::float32;
}

CpuStep::CpuStep(std::shared_ptr<const Program> program)
    : executor_(std::make_shared<CpuExecutor>(std::move(program))) {
  for (const auto& stage : executor_->program().stages) {
    if (const auto* conv = std::get_if<ConvStage>(&stage)) {
      layers_.push_back(
          {static_cast<size_t>(conv->layer),
           {conv->taps.shape(0) - 1, conv->taps.shape(1)},
           false});
    } else if (const auto* attend = std::get_if<AttendStage>(&stage)) {
      layers_.push_back(
          {static_cast<size_t>(attend->layer),
           {attend->spec.kv_heads, 0, attend->spec.head_dim},
           true});
    }
  }
}

mx::array CpuStep::forward(const mx::array& tokens, Cache& cache) {
  const int batch = tokens.shape(0);
  int position = 0;
  std::vector<int> starts;
  Arrays arrays;
  arrays.inputs.push_back(mx::contiguous(mx::astype(tokens, mx::int32)));
  arrays.outputs.push_back(
      {{batch, 1, executor_->program().vocab}, mx::float32});
  std::vector<int> bits; // of each layer's cache, 0: floats
  const mx::array nothing(0.0f);
  for (const auto& layer : layers_) {
    auto* packed = dynamic_cast<QuantizedKVCache*>(cache[layer.index].get());
    bits.push_back(packed ? packed->bits : 0);
    if (packed) {
      position = packed->offset;
      packed->reserve(1);
      each_array(*packed, [&](mx::array& array) {
        arrays.add(std::exchange(array, nothing));
      });
    } else if (layer.attends) {
      auto& kv = static_cast<KVCache&>(*cache[layer.index]);
      position = kv.offset;
      starts = kv.starts;
      kv.reserve(1, with_batch(batch, layer.state), mx::float32);
      arrays.add(*std::exchange(kv.keys, std::nullopt));
      arrays.add(*std::exchange(kv.values, std::nullopt));
    } else {
      auto& conv = static_cast<ConvCache&>(*cache[layer.index]);
      auto inputs = std::exchange(conv.inputs, std::nullopt);
      arrays.add(
          inputs ? std::move(*inputs)
                 : mx::zeros(with_batch(batch, layer.state), mx::float32));
    }
  }
  auto outputs = cpu_op(
      "DecodeStepCpu",
      std::move(arrays.inputs),
      arrays.outputs,
      [executor = executor_,
       layers = layers_,
       starts = std::move(starts),
       bits = std::move(bits),
       batch,
       position](const auto& in, auto& out) {
        Step step;
        step.batch = batch;
        step.position = position;
        step.starts = starts;
        step.tokens = in[0].template data<int32_t>();
        step.logits = out[0].template data<float>();
        size_t next = 1;
        for (size_t i = 0; i < layers.size(); ++i) {
          const auto& layer = layers[i];
          step.layers.resize(layer.index + 1);
          auto& state = step.layers[layer.index];
          if (layer.attends) {
            const int dim = layer.state[2];
            state.capacity = out[next].shape(2);
            state.keys = rows_at(out, next, bits[i], dim);
            state.values = rows_at(out, next, bits[i], dim);
          } else {
            state.inputs = out[next++].template data<float>();
          }
        }
        executor->run(step);
      });
  size_t next = 1;
  for (const auto& layer : layers_) {
    if (auto* packed =
            dynamic_cast<QuantizedKVCache*>(cache[layer.index].get())) {
      each_array(*packed, [&](mx::array& array) {
        array = std::move(outputs[next++]);
      });
      ++packed->offset;
    } else if (layer.attends) {
      auto& kv = static_cast<KVCache&>(*cache[layer.index]);
      kv.keys = std::move(outputs[next++]);
      kv.values = std::move(outputs[next++]);
      ++kv.offset;
    } else {
      static_cast<ConvCache&>(*cache[layer.index]).inputs =
          std::move(outputs[next++]);
    }
  }
  return std::move(outputs[0]);
}

} // namespace zmlx::decode
