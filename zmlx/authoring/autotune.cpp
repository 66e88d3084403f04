// SPDX-License-Identifier: MIT
#include "zmlx/authoring/autotune.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <mutex>
#include <optional>

#include "zmlx/authoring/bench.h"
#include "zmlx/authoring/testing.h"
#include "zmlx/base/env.h"
#include "zmlx/base/error.h"
#include "zmlx/base/hash.h"
#include "zmlx/base/json.h"
#include "zmlx/base/statistics.h"
#include "zmlx/base/text.h"
#include "zmlx/runtime/device_name.h"
#include "zmlx/runtime/thread_team.h"
#include "zmlx/version.h"

namespace zmlx {
namespace {

namespace fs = std::filesystem;

constexpr int kSchema = 1;
constexpr size_t kMostBytes = 1u << 20;

Json json_of(const TuneConfig& config) {
  Json json = Json::object();
  for (const auto& [name, value] : config) {
    json[name] = value;
  }
  return json;
}

// Everything that a result depends on. Kept in its file too, so that whoever
// reads the file sees what it is for.
Json key_of(
    const std::string& name,
    const Arrays& inputs,
    const std::vector<TuneConfig>& candidates) {
  const mx::Device device = mx::default_device();
  Json key = {
      {"schema_version", kSchema},
      {"name", name},
      {"device", device_name(device)},
      {"backend", backend_name(device)},
      {"threads", device == mx::Device::cpu ? num_threads() : 0},
      {"mlx_version", mx::version()},
      {"zmlx_version", ZMLX_VERSION},
      {"inputs", Json::array()},
      {"candidates", Json::array()}};
  for (const auto& input : inputs) {
    key["inputs"].push_back(concat(input.dtype(), ' ', input.shape()));
  }
  for (const auto& candidate : candidates) {
    key["candidates"].push_back(json_of(candidate));
  }
  return key;
}

std::string path_of(const Json& key) {
  Hash hash;
  hash.add(key.dump());
  return env_cache_dir() + "/autotune/" + hash.hex() + ".json";
}

// A file that is missing, damaged or for something else is no file.
std::optional<TuneResult> from_file(
    const std::string& path,
    const Json& key,
    const std::vector<TuneConfig>& candidates) {
  try {
    const Json json = read_json(path, kMostBytes);
    const Json& timings = json.at("timings");
    const auto best = json.at("best").get<size_t>();
    if (json.at("key") != key || timings.size() != candidates.size() ||
        best >= candidates.size()) {
      return std::nullopt;
    }
    TuneResult result;
    result.cached = true;
    result.best = candidates[best];
    for (size_t i = 0; i < candidates.size(); ++i) {
      const Json& seconds = timings[i].at("seconds");
      result.timings.push_back(
          {candidates[i],
           seconds.is_null() ? NAN : seconds.get<double>(),
           timings[i].at("spread").get<double>(),
           timings[i].at("failure").get<std::string>()});
    }
    return result;
  } catch (const FileError&) {
    return std::nullopt;
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

std::string
store(const std::string& path, const Json& key, const TuneResult& result) {
  Json json = {{"key", key}, {"best", 0}, {"timings", Json::array()}};
  for (size_t i = 0; i < result.timings.size(); ++i) {
    const auto& timing = result.timings[i];
    if (timing.config == result.best) {
      json["best"] = i;
    }
    json["timings"].push_back(
        {{"config", json_of(timing.config)},
         {"seconds",
          std::isnan(timing.seconds) ? Json() : Json(timing.seconds)},
         {"spread", timing.spread},
         {"failure", timing.failure}});
  }
  // Failures quote other people's text, which need not be UTF-8.
  const std::string text =
      json.dump(1, ' ', false, Json::error_handler_t::replace) + '\n';
  static std::mutex mutex; // write_file() names its temporary by process
  const std::lock_guard lock(mutex);
  try {
    fs::create_directories(fs::path(path).parent_path());
    write_file(path, text);
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

TuneResult measure(
    const Arrays& inputs,
    const std::vector<TuneConfig>& candidates,
    const std::function<Arrays(const Arrays&, const TuneConfig&)>& run,
    const TuneOptions& options) {
  TuneResult result;
  std::vector<std::function<Arrays()>> sides;
  std::vector<size_t> working; // places of sides among the candidates
  std::optional<Arrays> want;
  for (const auto& config : candidates) {
    result.timings.push_back({config, NAN, 0, ""});
    auto& failure = result.timings.back().failure;
    try {
      Arrays got = run(inputs, config);
      mx::eval(got);
      failure = want ? testing::mismatch(got, *want, {}) : "";
      if (failure.empty()) {
        want = want ? want : std::move(got);
        working.push_back(result.timings.size() - 1);
        sides.push_back([&] { return run(inputs, config); });
      }
    } catch (const std::exception& error) {
      failure = error.what();
    }
  }
  if (sides.empty()) {
    return result;
  }
  const auto samples =
      bench::time_interleaved(sides, options.warmup, options.iterations);
  size_t best = 0;
  for (size_t i = 0; i < working.size(); ++i) {
    auto& timing = result.timings[working[i]];
    timing.seconds = median(samples[i]);
    timing.spread = quartile_spread(samples[i]);
    best = timing.seconds < result.timings[working[best]].seconds ? i : best;
  }
  result.best = candidates[working[best]];
  return result;
}

} // namespace

std::string to_text(const TuneConfig& config) {
  std::vector<std::string> parts;
  for (const auto& [name, value] : config) {
    parts.push_back(concat(name, '=', value));
  }
  return parts.empty() ? "default" : join(parts, " ");
}

TuneResult autotune(
    const std::string& name,
    const Arrays& inputs,
    const std::vector<TuneConfig>& candidates,
    const std::function<Arrays(const Arrays& inputs, const TuneConfig& config)>&
        run,
    const TuneOptions& options) {
  if (candidates.empty() || options.iterations < 1 || options.warmup < 0) {
    invalid(
        "autotune",
        "candidates and iterations must be at least 1 and warmup 0, got ",
        candidates.size(),
        ", ",
        options.iterations,
        " and ",
        options.warmup,
        " for '",
        name,
        "'.");
  }
  const Json key = key_of(name, inputs, candidates);
  const std::string path = path_of(key);
  if (options.use_cache) {
    if (auto found = from_file(path, key, candidates)) {
      return *std::move(found);
    }
  }
  TuneResult result = measure(inputs, candidates, run, options);
  const bool works = std::any_of(
      result.timings.begin(), result.timings.end(), [](const auto& timing) {
        return timing.failure.empty();
      });
  if (!works) {
    std::string all;
    for (const auto& timing : result.timings) {
      all += concat("; ", to_text(timing.config), ": ", timing.failure);
    }
    throw BackendError(
        concat("[autotune] no candidate of '", name, "' works", all));
  }
  if (options.use_cache) {
    result.cache_problem = store(path, key, result);
  }
  return result;
}

std::vector<TuneConfig> threadgroup_candidates(int64_t most) {
  std::vector<TuneConfig> candidates;
  for (int64_t size = 32; size <= std::min<int64_t>(most, 1024); size *= 2) {
    candidates.push_back({{"threadgroup", size}});
  }
  return candidates;
}

} // namespace zmlx
