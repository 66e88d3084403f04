// SPDX-License-Identifier: MIT
#include "zmlx/model/families/residual_network.h"

#include "zmlx/base/error.h"

namespace zmlx {
namespace {

class Block : public Module {
 public:
  Block(const char* kind, ResidualBlock parts)
      : parts(std::move(parts)), kind_(kind) {}
  std::string_view kind() const override {
    return kind_;
  }
  std::vector<Child> children() override {
    const auto& names = parts.names;
    return {
        {names.norm, parts.norm.get(), &parts.norm},
        {names.mixer, parts.mixer.get(), &parts.mixer},
        {names.ffn_norm, parts.ffn_norm.get(), &parts.ffn_norm},
        {names.feed_forward, parts.feed_forward.get(), &parts.feed_forward}};
  }
  mx::array forward(const mx::array& x, LayerCache* cache) const {
    auto h = mx::add(x, parts.mixer->forward_normed(*parts.norm, x, cache));
    return mx::add(h, parts.feed_forward->forward(parts.ffn_norm->forward(h)));
  }

  ResidualBlock parts;

 private:
  const char* kind_;
};

class ResidualNetwork : public Network {
 public:
  explicit ResidualNetwork(ResidualParts parts)
      : kind_(parts.kind),
        embedding_(std::move(parts.embedding)),
        final_norm_name_(std::move(parts.final_norm_name)),
        final_norm_(std::move(parts.final_norm)),
        head_(std::move(parts.head)) {
    for (auto& block : parts.blocks) {
      blocks_.push_back(
          std::make_unique<Block>(parts.block_kind, std::move(block)));
    }
  }

  std::string_view kind() const override {
    return kind_;
  }

  std::vector<Child> children() override {
    std::vector<Child> children = {
        {"model.embed_tokens", embedding_.get(), {}}};
    for (size_t i = 0; i < blocks_.size(); ++i) {
      children.push_back({concat("model.layers.", i), blocks_[i].get(), {}});
    }
    children.push_back(
        {"model." + final_norm_name_, final_norm_.get(), &final_norm_});
    children.push_back({"lm_head", head_.get(), &head_});
    return children;
  }

  mx::array forward(const mx::array& tokens, Cache& cache, bool last_only)
      override {
    auto h = embedding_->lookup(tokens);
    for (size_t i = 0; i < blocks_.size(); ++i) {
      h = blocks_[i]->forward(h, cache.empty() ? nullptr : cache[i].get());
    }
    if (last_only) {
      const int length = h.shape(1);
      h = mx::slice(h, {0, length - 1, 0}, {h.shape(0), length, h.shape(2)});
    }
    return head_->forward(final_norm_->forward(h));
  }

  Cache make_cache() const override {
    Cache cache;
    for (const auto& block : blocks_) {
      if (block->parts.attends) {
        cache.push_back(std::make_unique<KVCache>());
      } else {
        cache.push_back(std::make_unique<ConvCache>());
      }
    }
    return cache;
  }

  std::optional<Backbone> backbone() const override {
    Backbone backbone{embedding_.get(), {}, final_norm_, head_};
    for (const auto& block : blocks_) {
      const auto& parts = block->parts;
      backbone.blocks.push_back(
          {parts.norm, parts.mixer, parts.ffn_norm, parts.feed_forward});
    }
    return backbone;
  }

 private:
  const char* kind_;
  std::unique_ptr<Embedding> embedding_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::string final_norm_name_;
  LayerSlot final_norm_, head_;
};

} // namespace

std::unique_ptr<Network> make_residual_network(ResidualParts parts) {
  return std::make_unique<ResidualNetwork>(std::move(parts));
}

} // namespace zmlx
