// SPDX-License-Identifier: MIT
#include "python/bindings/caches.h"

#include <algorithm>

#include "zmlx/base/error.h"
#include "zmlx/model/cache_room.h"
#include "zmlx/model/decode/written_cache.h"

namespace {

constexpr const char* kOp = "decode_step";

/// mlx_lm's classes; a subclass may do something else.
struct CacheTypes {
  nb::object kv, rotating, batch, arrays;
};

const CacheTypes& cache_types() {
  static const CacheTypes* types = [] {
    auto cache = nb::module_::import_("mlx_lm.models.cache");
    return new CacheTypes{
        cache.attr("KVCache"),
        cache.attr("RotatingKVCache"),
        cache.attr("BatchKVCache"),
        cache.attr("ArraysCache")};
  }();
  return *types;
}

/// The values of a small array of integers, evaluated if it is not yet.
std::vector<int> ints_of(nb::handle value) {
  auto array = nb::cast<mx::array>(value);
  if (array.dtype() != mx::int32 || !array.flags().row_contiguous) {
    array = mx::contiguous(mx::astype(array, mx::int32));
  }
  array.eval();
  return {array.data<int>(), array.data<int>() + array.size()};
}

nb::object array_of(const std::vector<int>& values) {
  return nb::cast(
      mx::array(values.begin(), {static_cast<int>(values.size())}, mx::int32));
}

std::optional<mx::array> array_or_none(nb::handle value) {
  return value.is_none() ? std::nullopt
                         : std::optional(nb::cast<mx::array>(value));
}

/// Room for rows up to `size`, but never past the window, for that is where
/// RotatingKVCache starts to overwrite.
mx::array within_window(const mx::array& held, int used, int size, int window) {
  if (size <= held.shape(2)) {
    return held;
  }
  mx::Shape shape = held.shape();
  shape[2] = std::min(zmlx::grown_capacity(held.shape(2), size, 0), window);
  return zmlx::with_room(held, used, shape, held.dtype());
}

} // namespace

std::vector<LayerShape> layer_shapes(const zmlx::decode::Program& program) {
  std::vector<LayerShape> shapes;
  auto at = [&](int layer) -> LayerShape& {
    shapes.resize(std::max(shapes.size(), static_cast<size_t>(layer) + 1));
    return shapes[static_cast<size_t>(layer)];
  };
  for (const auto& stage : program.stages) {
    if (const auto* attend = std::get_if<zmlx::decode::AttendStage>(&stage)) {
      at(attend->layer) = {true, attend->spec.kv_heads, attend->spec.head_dim};
    } else if (
        const auto* conv = std::get_if<zmlx::decode::ConvStage>(&stage)) {
      at(conv->layer) = {false, conv->taps.shape(0) - 1, conv->taps.shape(1)};
    }
  }
  return shapes;
}

std::optional<TakenCaches> TakenCaches::look(
    nb::list caches,
    const std::vector<LayerShape>& shapes,
    int batch,
    int length) {
  if (caches.size() != shapes.size()) {
    zmlx::invalid(
        kOp,
        "there must be a cache for each of the ",
        shapes.size(),
        " layers, got ",
        caches.size(),
        '.');
  }
  TakenCaches taken;
  taken.batch_ = batch;
  taken.length_ = length;
  const Layer* attends = nullptr;
  taken.layers_.resize(shapes.size());
  for (size_t i = 0; i < shapes.size(); ++i) {
    Layer& layer = taken.layers_[i];
    layer.object = nb::borrow(caches[i]);
    if (!look(layer, shapes[i], length)) {
      return std::nullopt;
    }
    taken.check(layer, shapes[i]);
    if (!shapes[i].attends) {
      continue;
    }
    // The program has one position for all layers.
    if (attends &&
        (layer.offset != attends->offset || layer.starts != attends->starts)) {
      return std::nullopt;
    }
    attends = &layer;
  }
  return taken;
}

bool TakenCaches::look(Layer& layer, const LayerShape& shape, int length) {
  const auto& types = cache_types();
  const auto type = layer.object.type();
  const auto& object = layer.object;
  if (!shape.attends) {
    layer.kind = Kind::Arrays;
    if (!type.is(types.arrays) ||
        nb::len(nb::object(object.attr("cache"))) != 1) {
      return false;
    }
    auto none_before = [&](const char* name, int least, bool at_most) {
      const nb::object value = object.attr(name);
      if (value.is_none()) {
        return true;
      }
      const auto values = ints_of(value);
      return std::all_of(values.begin(), values.end(), [&](int one) {
        return at_most ? one <= least : one >= least;
      });
    };
    return none_before("left_padding", 0, true) &&
        none_before("lengths", length, false);
  }
  if (type.is(types.kv)) {
    layer.kind = Kind::KV;
    layer.offset = nb::cast<int>(object.attr("offset"));
    return true;
  }
  if (type.is(types.rotating)) {
    layer.kind = Kind::Rotating;
    layer.offset = nb::cast<int>(object.attr("offset"));
    layer.max_size = nb::cast<int>(object.attr("max_size"));
    return layer.offset + length <= layer.max_size &&
        (object.attr("keys").is_none() ||
         nb::cast<int>(object.attr("_idx")) == layer.offset);
  }
  if (type.is(types.batch)) {
    layer.kind = Kind::Batch;
    layer.offset = nb::cast<int>(object.attr("_idx"));
    layer.starts = ints_of(object.attr("left_padding"));
    const bool padded = std::any_of(
        layer.starts.begin(), layer.starts.end(), [](int n) { return n != 0; });
    return length == 1 || !padded;
  }
  return false;
}

void TakenCaches::check(const Layer& layer, const LayerShape& shape) const {
  std::vector<std::optional<mx::array>> arrays;
  if (layer.kind == Kind::Arrays) {
    arrays.push_back(array_or_none(layer.object.attr("cache")[0]));
  } else {
    arrays.push_back(array_or_none(layer.object.attr("keys")));
    arrays.push_back(array_or_none(layer.object.attr("values")));
  }
  if (!layer.starts.empty() &&
      layer.starts.size() != static_cast<size_t>(batch_)) {
    zmlx::invalid(
        kOp,
        "the batch must be the cache's, ",
        layer.starts.size(),
        ", got ",
        batch_,
        '.');
  }
  for (const auto& array : arrays) {
    if (!array) {
      if (layer.kind != Kind::Arrays && layer.offset != 0) {
        zmlx::invalid(
            kOp,
            "a cache without keys must have offset 0, got ",
            layer.offset,
            '.');
      }
      continue;
    }
    if (array->ndim() > 0 && array->shape(0) != batch_) {
      zmlx::invalid(
          kOp,
          "the batch must be the cache's, ",
          array->shape(0),
          ", got ",
          batch_,
          '.');
    }
    const mx::Shape wanted = shape.attends
        ? mx::Shape{batch_, shape.rows,
                    array->ndim() == 4 ? array->shape(2) : 0, shape.cols}
        : mx::Shape{batch_, shape.rows, shape.cols};
    if (array->shape() != wanted) {
      zmlx::invalid(
          kOp,
          "a cache of this model must have shape ",
          wanted,
          ", got ",
          array->shape(),
          '.');
    }
    if (shape.attends && layer.offset > array->shape(2)) {
      zmlx::invalid(
          kOp,
          "a cache's offset must be at most its ",
          array->shape(2),
          " rows, got ",
          layer.offset,
          '.');
    }
  }
}

bool TakenCaches::has_starts() const {
  return std::any_of(layers_.begin(), layers_.end(), [](const Layer& layer) {
    return std::any_of(
        layer.starts.begin(), layer.starts.end(), [](int n) { return n != 0; });
  });
}

zmlx::Cache TakenCaches::take(bool narrow) {
  zmlx::Cache cache;
  taken_ = true;
  std::optional<mx::Dtype> type;
  if (!narrow) {
    type = mx::float32;
  }
  for (auto& layer : layers_) {
    auto keep = [&](std::optional<mx::array> array) {
      if (array) {
        if (narrow) { // and may be written to, which takes having them alone
          array = zmlx::decode::as_given(*array);
        } else {
          layer.held.push_back(*array);
        }
        type = type.value_or(array->dtype());
        array = mx::astype(*array, *type);
      }
      return array;
    };
    auto take = [&](nb::object from, auto name) {
      auto array = array_or_none(from.attr(name));
      from.attr(name) = nb::none();
      return keep(std::move(array));
    };
    if (layer.kind == Kind::Arrays) {
      auto conv = std::make_unique<zmlx::ConvCache>();
      nb::list list = layer.object.attr("cache");
      conv->inputs = keep(array_or_none(list[0]));
      list[0] = nb::none();
      cache.push_back(std::move(conv));
      continue;
    }
    auto kv = std::make_unique<zmlx::KVCache>();
    kv->offset = layer.offset;
    kv->keys = take(layer.object, "keys");
    kv->values = take(layer.object, "values");
    if (std::any_of(layer.starts.begin(), layer.starts.end(), [](int n) {
          return n != 0;
        })) {
      kv->starts = layer.starts;
    }
    if (layer.kind == Kind::Rotating && kv->keys) {
      for (auto* array : {&kv->keys, &kv->values}) {
        *array = within_window(
            **array, layer.offset, layer.offset + length_, layer.max_size);
      }
    }
    cache.push_back(std::move(kv));
  }
  return cache;
}

void TakenCaches::put_back(
    zmlx::Cache& cache,
    const std::optional<mx::array>& written) {
  const auto readable = [&](std::optional<mx::array> array) -> nb::object {
    if (array && written) {
      array = zmlx::decode::once_written(*array, *written);
    }
    return array ? nb::cast(std::move(*array)) : nb::none();
  };
  for (size_t i = 0; i < layers_.size(); ++i) {
    auto& layer = layers_[i];
    layer.held.clear();
    if (layer.kind == Kind::Arrays) {
      auto& conv = static_cast<zmlx::ConvCache&>(*cache[i]);
      layer.object.attr("cache")[0] = readable(std::move(conv.inputs));
      advance_padding(layer);
      continue;
    }
    auto& kv = static_cast<zmlx::KVCache&>(*cache[i]);
    const int offset = layer.offset + length_;
    auto keys = std::move(kv.keys), values = std::move(kv.values);
    if (layer.kind == Kind::Rotating && keys &&
        keys->shape(2) > layer.max_size) {
      mx::Shape stop = keys->shape();
      stop[2] = layer.max_size;
      keys = mx::slice(*keys, {0, 0, 0, 0}, stop);
      values = mx::slice(*values, {0, 0, 0, 0}, stop);
    }
    layer.object.attr("keys") = readable(std::move(keys));
    layer.object.attr("values") = readable(std::move(values));
    if (layer.kind != Kind::Batch) {
      layer.object.attr("offset") = offset;
    }
    if (layer.kind != Kind::KV) {
      layer.object.attr("_idx") = offset;
    }
    if (layer.kind == Kind::Batch) {
      auto offsets = layer.starts;
      for (int& one : offsets) {
        one = offset - one;
      }
      layer.object.attr("offset") = array_of(offsets);
    }
  }
  taken_ = false;
}

void TakenCaches::undo(
    zmlx::Cache& cache,
    const std::optional<mx::array>& written) {
  length_ = 0;
  put_back(cache, written);
}

// As ArraysCache.advance(), but with values: a chain of lazy subtractions would
// grow with every token, for nothing here reads it.
void TakenCaches::advance_padding(const Layer& layer) {
  for (const char* name : {"left_padding", "lengths"}) {
    const nb::object value = layer.object.attr(name);
    if (value.is_none()) {
      continue;
    }
    auto values = ints_of(value);
    for (int& one : values) {
      one -= length_;
    }
    layer.object.attr(name) = array_of(values);
  }
}

TakenCaches::~TakenCaches() {
  if (!taken_) {
    return;
  }
  for (auto& layer : layers_) {
    constexpr const char* kNames[] = {"keys", "values"};
    for (size_t i = 0; i < layer.held.size(); ++i) {
      if (layer.kind == Kind::Arrays) {
        layer.object.attr("cache")[0] = nb::cast(layer.held[i]);
      } else {
        layer.object.attr(kNames[i]) = nb::cast(layer.held[i]);
      }
    }
  }
}
