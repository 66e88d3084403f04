// SPDX-License-Identifier: MIT
// The module tree: named children as in mlx.nn, with slots that patch() swaps.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "mlx/mlx.h"

namespace zmlx {

namespace mx = mlx::core;

class Layer;
class Mixer;

/// A place in the tree that patch() may fill with another module.
using LayerSlot = std::shared_ptr<Layer>;
using MixerSlot = std::shared_ptr<Mixer>;

class Module;

/// One child of a module; slot is std::monostate where it is fixed.
struct Child {
  std::string name;
  Module* module;
  std::variant<std::monostate, LayerSlot*, MixerSlot*> slot;
};

/// A node of the model tree.
class Module {
 public:
  Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  virtual ~Module() = default;

  /// The class's name in mlx.nn or mlx_lm, such as "QuantizedLinear"; a fused
  /// module prefixes "Fused".
  virtual std::string_view kind() const = 0;

  /// The children in order of execution, with names as in checkpoints.
  virtual std::vector<Child> children() {
    return {};
  }

  /// The module that this one stands for: itself, unless it is fused.
  virtual const Module& stock_module() const {
    return *this;
  }

  /// Forgets what was computed from parameters and can be computed again, such
  /// as casts to the type of activations.
  virtual void release() {}
};

/// A module of one input and one output, x: (..., dim).
class Layer : public Module {
 public:
  virtual mx::array forward(const mx::array& x) const = 0;
};

class LayerCache;

/// A sequence mixer: x (batch, length, dim) to the same shape, causal; cache
/// holds what earlier tokens left and is advanced by length. A null cache
/// means that x is the whole sequence.
class Mixer : public Module {
 public:
  virtual mx::array forward(const mx::array& x, LayerCache* cache) const = 0;

  /// forward(norm(x), cache), which a fused mixer may take in one go.
  virtual mx::array forward_normed(
      const Layer& norm,
      const mx::array& x,
      LayerCache* cache) const {
    return forward(norm.forward(x), cache);
  }
};

/// A mixer that uses x for nothing but its projections.
class ProjectingMixer : public Mixer {
 public:
  virtual std::vector<LayerSlot> projections() const = 0;
  /// forward() from what the projections made of x, in their order.
  virtual mx::array forward_projected(
      const std::vector<mx::array>& projected,
      LayerCache* cache) const = 0;

  mx::array forward(const mx::array& x, LayerCache* cache) const override {
    std::vector<mx::array> projected;
    for (const auto& projection : projections()) {
      projected.push_back(projection->forward(x));
    }
    return forward_projected(projected, cache);
  }
};

/// Calls visit(path, child) for every module below root, parents first; paths
/// are dotted as in checkpoints: "model.layers.3.feed_forward".
void walk(
    Module& root,
    const std::function<void(const std::string& path, Child& child)>& visit);

} // namespace zmlx
