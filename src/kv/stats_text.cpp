// Printers of the cache's statistics, and names of its enumerations.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "paddock/kv_cache.h"
#include "paddock/stats.h"

namespace paddock {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kMiB = 1024.0 * 1024.0;

Json layer_json(const KvLayerStats& layer) {
  Json removed = Json::object();
  for (int32_t r = 0; r < kRemovalReasons; ++r) {
    removed[removal_reason_name(static_cast<RemovalReason>(r))] = layer.pages_removed[r];
  }
  Json out = Json::object();
  if (layer.layer >= 0) {
    out["layer"] = layer.layer;
    out["policy"] = layer.policy;
  }
  out["pages_active"] = layer.pages_active;
  out["pages_peak"] = layer.pages_peak;
  out["tokens_resident"] = layer.tokens_resident;
  out["bytes"] = layer.bytes;
  out["pages_allocated"] = layer.pages_allocated;
  out["pages_removed"] = std::move(removed);
  out["tokens_read"] = layer.tokens_read;
  return out;
}

std::string row(const std::string& name, const KvLayerStats& s, const std::string& policy) {
  return fmt::format("{:>5}  {:<18} {:>7} {:>7} {:>8} {:>9.2f} {:>9} {:>8} {:>8} {:>12}\n", name,
                     policy, s.pages_active, s.pages_peak, s.tokens_resident, s.bytes / kMiB,
                     s.pages_allocated, s.pages_removed[0], s.pages_removed[1], s.tokens_read);
}

}  // namespace

const char* kv_type_name(KvType type) noexcept {
  switch (type) {
    case KvType::kAuto:
      return "auto";
    case KvType::kF32:
      return "f32";
    case KvType::kF16:
      return "f16";
    case KvType::kBF16:
      return "bf16";
  }
  return "unknown";
}

KvType parse_kv_type(std::string_view name) {
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kBF16}) {
    if (name == kv_type_name(type)) return type;
  }
  fail(ErrorCode::kInvalidArgument, "KV type '{}' is unknown; use f32, f16 or bf16", name);
}

const char* removal_reason_name(RemovalReason reason) noexcept {
  switch (reason) {
    case RemovalReason::kWindow:
      return "window";
    case RemovalReason::kSequenceEnd:
      return "sequence_end";
  }
  return "unknown";
}

std::string to_json(const KvStats& stats) {
  Json out = {{"block_size", stats.block_size}, {"type", stats.type},
              {"page_bytes", stats.page_bytes}, {"pool_pages", stats.pool_pages},
              {"pool_bytes", stats.pool_bytes}, {"pages_free", stats.pages_free},
              {"steps", stats.steps},           {"tokens_written", stats.tokens_written},
              {"sequences", stats.sequences}};
  out["total"] = layer_json(stats.total);
  out["layers"] = Json::array();
  for (const KvLayerStats& layer : stats.layers) out["layers"].push_back(layer_json(layer));
  return out.dump();
}

std::string to_table(const KvStats& stats) {
  std::string out = fmt::format(
      "KV cache: {} pages of {} bytes ({:.1f} MiB, {} positions of one layer each, {}), {} free\n",
      stats.pool_pages, stats.page_bytes, stats.pool_bytes / kMiB, stats.block_size, stats.type,
      stats.pages_free);
  out += fmt::format("{:>5}  {:<18} {:>7} {:>7} {:>8} {:>9} {:>9} {:>8} {:>8} {:>12}\n", "layer",
                     "policy", "pages", "peak", "tokens", "MiB", "allocated", "-window", "-ended",
                     "keys read");
  for (const KvLayerStats& layer : stats.layers) {
    out += row(fmt::format("{}", layer.layer), layer, layer.policy);
  }
  return out + row("total", stats.total, "");
}

}  // namespace paddock
