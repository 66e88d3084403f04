// SPDX-License-Identifier: MIT
#include "zmlx/kernels/moe/places.h"

namespace zmlx::moe {

Place::Place(const Projection& projection, Arrays& inputs)
    : first_(static_cast<int>(inputs.size())) {
  if (const auto* w = std::get_if<quant::QuantizedArrays>(&projection.weight)) {
    bits_ = w->bits;
    group_size_ = w->group_size;
    scheme_ = w->scheme;
    if (w->blocks) {
      held_ = *w;
    } else {
      inputs.insert(inputs.end(), {w->words, w->scales, w->biases});
    }
  } else {
    inputs.push_back(std::get<mx::array>(projection.weight));
  }
  if (projection.bias) {
    bias_ = static_cast<int>(inputs.size());
    inputs.push_back(*projection.bias);
  }
}

quant::QuantizedArrays Place::quantized(const Arrays& in) const {
  if (held_) {
    return *held_;
  }
  return {
      in[first_], in[first_ + 1], in[first_ + 2], bits_, group_size_, scheme_};
}

cpu::ExpertMatrix Place::view(const Arrays& in) const {
  cpu::ExpertMatrix matrix;
  if (group_size_ != 0) {
    matrix.weight = quant::view(quantized(in));
  } else {
    matrix.weight = quant::dense_view(in[first_]);
  }
  if (bias_ >= 0) {
    // One row for an expert; a layer's bias has one axis.
    matrix.bias = quant::dense_view(in[bias_]);
  }
  return matrix;
}

void Place::add_differentiable(std::vector<int>& places) const {
  if (group_size_ == 0) {
    places.push_back(first_);
  }
  if (bias_ >= 0) {
    places.push_back(bias_);
  }
}

mx::array Place::composed(
    const mx::array& x,
    const Arrays& in,
    const std::optional<ChosenMatrices>& chosen) const {
  const mx::array y = product(
      x,
      group_size_ == 0 ? quant::AnyArrays(in[first_])
                       : quant::AnyArrays(quantized(in)),
      chosen);
  if (bias_ < 0) {
    return y;
  }
  const mx::array b = mx::astype(in[bias_], y.dtype());
  return y + (chosen ? mx::expand_dims(mx::take(b, chosen->ids, 0), -2) : b);
}

ExpertPlaces::ExpertPlaces(const ExpertArrays& experts, Arrays& inputs)
    : gate(
          experts.gate ? std::optional(Place(*experts.gate, inputs))
                       : std::nullopt),
      up(experts.up, inputs),
      down(experts.down, inputs),
      activation(experts.activation) {}

cpu::Experts ExpertPlaces::view(const Arrays& in) const {
  cpu::Experts experts{{}, up.view(in), down.view(in), activation};
  if (gate) {
    experts.gate = gate->view(in);
  }
  return experts;
}

void ExpertPlaces::add_differentiable(std::vector<int>& places) const {
  if (gate) {
    gate->add_differentiable(places);
  }
  up.add_differentiable(places);
  down.add_differentiable(places);
}

mx::array ExpertPlaces::composed(
    const mx::array& x,
    const Arrays& in,
    const std::optional<ChosenMatrices>& chosen) const {
  std::optional<mx::array> gated;
  if (gate) {
    gated = gate->composed(x, in, chosen);
  }
  const mx::array hidden = composed_activation(
      activation, gated ? &*gated : nullptr, up.composed(x, in, chosen));
  return down.composed(hidden, in, chosen);
}

} // namespace zmlx::moe
