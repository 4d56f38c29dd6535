// How many blocks of recorded requests are found again under each order of reclaiming, in caches of
// several sizes, beside the most that any order could find.
//
//   reclaim_traces FILE...
//
// A file has one request a line, as JSON with "hash_ids": numbers of its blocks, equal where whole
// prefixes are equal (the format of the Mooncake traces, https://github.com/kvcache-ai/Mooncake).
// Requests run one after another, each with all its blocks; found are those from its beginning on
// up to the first that is missing. Ours go through the cache manager, with a block for each token.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <queue>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "kv/cache_manager.h"

namespace paddock {
namespace {

using Request = std::vector<int32_t>;

std::vector<Request> read_trace(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw std::runtime_error("cannot read " + path);
  std::vector<Request> trace;
  for (std::string line; std::getline(in, line);) {
    trace.push_back(nlohmann::json::parse(line).at("hash_ids").get<Request>());
  }
  return trace;
}

int64_t found_by_cache(const std::vector<Request>& trace, const std::string& order,
                       int32_t blocks) {
  constexpr int32_t kMaxBlocks = 4096;  // of one request
  CacheConfig config{1, 1, 1, blocks, 64, 1, kMaxBlocks, kMaxBlocks};
  config.keep_blocks = true;
  CacheManager cache(config, PolicyMap::parse("full", 1), make_reclaim_policy(order));
  int64_t found = 0;
  for (const Request& request : trace) {
    const auto n = static_cast<int32_t>(request.size());
    const SequenceId id = cache.open();
    const int64_t hits = cache.match_prefix(id, request, n);
    found += hits;
    if (hits < n) {
      if (!cache.reserve(id, n - static_cast<int32_t>(hits))) {
        throw std::runtime_error(fmt::format("a request has {} blocks, the cache {}", n, blocks));
      }
      cache.commit(id, request);
    }
    cache.close(id, request);
    cache.tick();
  }
  return found;
}

/// The order that knows what comes (Belady), which may also not keep a block at all: of all blocks
/// seen those stay that are asked for soonest.
int64_t found_by_oracle(const std::vector<Request>& trace, size_t blocks) {
  constexpr int64_t kNever = INT64_MAX;
  std::vector<std::vector<int64_t>> next(trace.size());  // request that asks for the block next
  std::unordered_map<int32_t, int64_t> later;
  for (size_t i = trace.size(); i-- > 0;) {
    for (const int32_t block : trace[i]) {
      const auto at = later.find(block);
      next[i].push_back(at == later.end() ? kNever : at->second);
    }
    for (const int32_t block : trace[i]) later[block] = static_cast<int64_t>(i);
  }
  std::map<int32_t, int64_t> kept;  // when it is asked for
  std::priority_queue<std::pair<int64_t, int32_t>> last;
  int64_t found = 0;
  for (size_t i = 0; i < trace.size(); ++i) {
    bool all = true;
    for (const int32_t block : trace[i]) {
      all = all && kept.contains(block);
      found += int64_t{all};
    }
    for (size_t j = 0; j < trace[i].size(); ++j) {
      kept[trace[i][j]] = next[i][j];
      last.emplace(next[i][j], trace[i][j]);
    }
    while (kept.size() > blocks) {
      const auto [when, block] = last.top();
      last.pop();
      const auto at = kept.find(block);
      if (at != kept.end() && at->second == when) kept.erase(at);
    }
  }
  return found;
}

void compare(const std::string& path) {
  const std::vector<Request> trace = read_trace(path);
  int64_t asked = 0;
  for (const Request& request : trace) asked += static_cast<int64_t>(request.size());
  fmt::print("{}: {} requests, {} blocks; found, of the blocks asked for\n", path, trace.size(),
             asked);
  fmt::print("| blocks kept | lru | s3fifo | depth | most |\n|---|---|---|---|---|\n");
  for (const int32_t blocks : {1000, 3000, 10000, 30000}) {
    fmt::print("| {} |", blocks);
    for (const char* order : {"lru", "s3fifo", "depth"}) {
      fmt::print(" {:.4f} |", double(found_by_cache(trace, order, blocks)) / double(asked));
    }
    fmt::print(" {:.4f} |\n", double(found_by_oracle(trace, blocks)) / double(asked));
  }
}

}  // namespace
}  // namespace paddock

int main(int argc, char** argv) {
  try {
    for (int i = 1; i < argc; ++i) paddock::compare(argv[i]);
    return argc > 1 ? 0 : 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
