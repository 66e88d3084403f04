// SPDX-License-Identifier: MIT
#include "zmlx/measure/capsule.h"

#include <cmath>

#include "zmlx/base/clock.h"
#include "zmlx/base/statistics.h"
#include "zmlx/measure/json_fields.h"
#include "zmlx/measure/machine.h"
#include "zmlx/version.h"

namespace zmlx::measure {
namespace {

void put_text(Json& json, const char* key, const std::string& text) {
  if (!text.empty()) {
    json[key] = text;
  }
}

Json meta_json(const CapsuleMeta& meta) {
  Json json{{"schema_version", meta.schema_version}};
  put_text(json, "date", meta.date);
  put_text(json, "device", meta.device);
  json["memory_gb"] = meta.memory_gb;
  put_text(json, "os", meta.os);
  put_text(json, "mlx_version", meta.mlx_version);
  put_text(json, "zmlx_version", meta.zmlx_version);
  put_text(json, "git_commit", meta.git_commit);
  put_text(json, "python", meta.python);
  put_text(json, "command", meta.command);
  put_text(json, "note", meta.note);
  put_text(json, "cpu", meta.cpu);
  json["cores"] = meta.cores;
  json["threads"] = meta.threads;
  put_text(json, "simd", meta.simd);
  put_text(json, "gpu", meta.gpu);
  put_text(json, "backend", meta.backend);
  json["environment"] = Json::object();
  for (const auto& [name, value] : meta.environment) {
    json["environment"][name] = value;
  }
  return json;
}

Json side_json(const CapsuleSide& side, bool patched) {
  Json json = Json::object();
  if (patched) {
    json["patterns"] = side.patterns;
    json["modules_patched"] = side.modules_patched;
  }
  json["prefill_tok_s"] = side.prefill_tok_s;
  json["decode_tok_s"] = side.decode_tok_s;
  json["median_prefill"] = side.median_prefill;
  json["median_decode"] = side.median_decode;
  json["spread_prefill"] = spread(side.prefill_tok_s);
  json["spread_decode"] = spread(side.decode_tok_s);
  json["peak_mem_gb"] = side.peak_mem_gb;
  return json;
}

Json model_json(const CapsuleModel& model) {
  Json json{{"model", model.model}};
  put_text(json, "dtype", model.dtype);
  put_text(json, "quantization", model.quantization);
  put_text(json, "model_hash", model.model_hash);
  put_text(json, "tokenizer_hash", model.tokenizer_hash);
  json["max_tokens"] = model.max_tokens;
  json["gen_tokens"] = model.gen_tokens;
  json["runs"] = model.runs;
  json["fidelity"] = {
      {"matched", model.matched},
      {"total", model.total},
      {"verdict", model.verdict}};
  if (!model.ladder.is_null()) {
    json["ladder"] = model.ladder;
  }
  json["baseline"] = side_json(model.baseline, false);
  json["patched"] = side_json(model.patched, true);
  json["summary"] = {
      {"decode_speedup", model.decode_speedup},
      {"prefill_change", model.prefill_change}};
  if (!model.prompts.is_null()) {
    json["prompts"] = model.prompts;
  }
  return json;
}

CapsuleMeta read_meta(const Fields& fields) {
  CapsuleMeta meta;
  meta.schema_version = static_cast<int>(fields.count_or("schema_version", 0));
  if (meta.schema_version > kCapsuleSchema) {
    fields.fail(
        "schema_version",
        concat("be at most ", kCapsuleSchema),
        concat(meta.schema_version));
  }
  meta.date = fields.text_or("date", "");
  meta.device = fields.text_or("device", "");
  meta.memory_gb = fields.number_or("memory_gb", 0);
  meta.os = fields.text_or("os", fields.text_or("macos", ""));
  meta.mlx_version = fields.text_or("mlx_version", "");
  meta.zmlx_version = fields.text_or("zmlx_version", "");
  meta.git_commit = fields.text_or("git_commit", "");
  meta.python = fields.text_or("python", "");
  meta.command = fields.text_or("command", "");
  for (const char* key : {"command_4bit", "command_8bit"}) {
    const std::string other = fields.text_or(key, "");
    meta.command += meta.command.empty() || other.empty() ? "" : "\n";
    meta.command += other;
  }
  meta.note = fields.text_or("note", "");
  meta.cpu = fields.text_or("cpu", "");
  meta.simd = fields.text_or("simd", "");
  meta.gpu = fields.text_or("gpu", "");
  meta.backend = fields.text_or("backend", "");
  meta.cores = static_cast<int>(fields.count_or("cores", 0));
  meta.threads = static_cast<int>(fields.count_or("threads", 0));
  if (fields.has("environment")) {
    const Fields environment = fields.object("environment");
    for (const auto& [name, value] : environment.json().items()) {
      meta.environment[name] = environment.text(name);
    }
  }
  return meta;
}

CapsuleSide read_side(const Fields& fields) {
  CapsuleSide side;
  side.prefill_tok_s = fields.numbers("prefill_tok_s");
  side.decode_tok_s = fields.numbers("decode_tok_s");
  side.median_prefill = fields.number("median_prefill");
  side.median_decode = fields.number("median_decode");
  side.peak_mem_gb = fields.number("peak_mem_gb");
  if (fields.has("patterns")) {
    side.patterns = fields.texts("patterns");
  }
  side.modules_patched =
      static_cast<int>(fields.count_or("modules_patched", 0));
  return side;
}

CapsuleModel read_model(const std::string& key, const Fields& fields) {
  CapsuleModel model;
  model.key = key;
  model.model = fields.text("model");
  model.max_tokens = static_cast<int>(fields.count("max_tokens"));
  model.gen_tokens = static_cast<int>(fields.count("gen_tokens"));
  model.runs = static_cast<int>(fields.count("runs"));
  const Fields fidelity = fields.object("fidelity");
  model.matched = static_cast<int>(fidelity.count("matched"));
  model.total = static_cast<int>(fidelity.count("total"));
  model.verdict = fidelity.text("verdict");
  model.baseline = read_side(fields.object("baseline"));
  model.patched = read_side(fields.object("patched"));
  const Fields summary = fields.object("summary");
  model.decode_speedup = summary.number("decode_speedup");
  model.prefill_change = summary.number("prefill_change");
  model.dtype = fields.text_or("dtype", "");
  model.quantization = fields.text_or("quantization", "");
  model.model_hash = fields.text_or("model_hash", "");
  model.tokenizer_hash = fields.text_or("tokenizer_hash", "");
  if (fields.has("ladder")) {
    model.ladder = fields.object("ladder").json();
  }
  if (fields.has("prompts")) {
    model.prompts = fields.array("prompts");
  }
  return model;
}

} // namespace

CapsuleMeta meta_of_this_machine(const std::string& command, int threads) {
  const Machine machine = this_machine();
  CapsuleMeta meta;
  meta.date = utc_now();
  meta.device = machine.device();
  meta.memory_gb =
      std::round(static_cast<double>(machine.memory_bytes) / 1e7) / 100;
  meta.os = machine.os;
  meta.mlx_version = machine.mlx_version;
  meta.zmlx_version = ZMLX_VERSION;
  meta.command = command;
  meta.cpu = machine.cpu;
  meta.simd = machine.simd;
  meta.gpu = machine.gpu;
  meta.backend = machine.backend;
  meta.cores = machine.cores;
  meta.threads = threads;
  meta.environment = relevant_environment();
  return meta;
}

Json to_json(const Capsule& capsule) {
  Json json{{"meta", meta_json(capsule.meta)}};
  for (const auto& model : capsule.models) {
    json[model.key] = model_json(model);
  }
  return json;
}

Capsule capsule_from_json(const Json& json, const std::string& origin) {
  const Fields fields(json, origin, "");
  Capsule capsule;
  capsule.meta = read_meta(fields.object("meta"));
  for (const auto& [key, value] : json.items()) {
    if (key != "meta") {
      capsule.models.push_back(read_model(key, fields.object(key)));
    }
  }
  if (capsule.models.empty()) {
    bad_file(origin, "a capsule must have a model beside 'meta', got none.");
  }
  return capsule;
}

Capsule read_capsule(const std::string& path) {
  return capsule_from_json(read_json(path, size_t{64} << 20), path);
}

void write_capsule(const std::string& path, const Capsule& capsule) {
  // Bytes that are not UTF-8 (a prompt from the command line) are replaced.
  write_file(
      path,
      to_json(capsule).dump(2, ' ', false, Json::error_handler_t::replace) +
          '\n');
}

} // namespace zmlx::measure
