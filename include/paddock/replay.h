// Recorded requests once more, without a model: how many of their blocks would have been found
// again under each order of reclaiming and in caches of each size.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/export.h"
#include "paddock/reclaim.h"

namespace paddock {

/// Requests in the order in which they came, each the blocks of its prompt.
struct RequestTrace {
  struct Request {
    int64_t first_block = 0;  ///< in `blocks`
    int64_t n_blocks = 0;
    double seconds = 0;        ///< when it came
    int64_t input_tokens = 0;  ///< 0: not told, here and below
    int64_t output_tokens = 0;
  };
  std::vector<Request> requests;
  /// Of all requests, one after another: any number that is the same for the same tokens. Two
  /// blocks are equal if they are, and so are the blocks before them in their requests.
  std::vector<uint64_t> blocks;

  void add(std::span<const uint64_t> its_blocks, double seconds = 0, int64_t input_tokens = 0,
           int64_t output_tokens = 0) {
    requests.push_back({static_cast<int64_t>(blocks.size()),
                        static_cast<int64_t>(its_blocks.size()), seconds, input_tokens,
                        output_tokens});
    blocks.insert(blocks.end(), its_blocks.begin(), its_blocks.end());
  }
};

/// Reads JSON lines as Mooncake's traces have them (https://github.com/kvcache-ai/Mooncake:
/// "timestamp" in milliseconds, "input_length", "output_length", "hash_ids" of 512 tokens each) or
/// Qwen Bailian's (https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon: seconds, "chat_id"
/// and more, 16 tokens). "hash_ids" alone will do. Errors: kNotFound, kIo, and kBadFile with file,
/// line and fix.
PADDOCK_API RequestTrace read_request_trace(const std::string& path);
/// Likewise, from the text of such a file, called `name` in errors.
PADDOCK_API RequestTrace parse_request_trace(std::string_view lines, const std::string& name);

struct ReplayOptions {
  /// Orders, by the names of KvOptions::reclaim.
  std::vector<std::string> reclaim = reclaim_names();
  /// And the host's own, one for each maker, which is called once per capacity.
  std::vector<ReclaimMaker> custom_reclaim{};
  std::vector<int64_t> capacities{};  ///< blocks; 0 to 2^31 - 1
};

/// One order in one cache. A rate is a share of all blocks asked for.
struct ReplayResult {
  std::string policy;
  int64_t capacity = 0;
  int64_t found = 0;  ///< blocks, from the beginning of each request up to its first one missing
  double hit_rate = 0;
  int64_t regret = 0;     ///< blocks asked for that had been there and were reclaimed
  int64_t reclaimed = 0;  ///< blocks in all
  /// The most that any order could have found, knowing what comes and free to keep a block or not.
  int64_t belady_found = 0;
  double belady_hit_rate = 0;
  double of_belady = 0;    ///< found / belady_found; 1 where nothing can be found
  int64_t too_large = 0;   ///< requests of more blocks than the cache has: their first blocks stay
  int64_t violations = 0;  ///< the policy's, overruled
  std::string last_violation{};
};

struct ReplayReport {
  int64_t requests = 0;
  int64_t references = 0;  ///< blocks asked for
  int64_t distinct = 0;    ///< different ones
  double infinite_hit_rate = 0;
  std::vector<ReplayResult> results{};  ///< by policy, each in the order of capacities
};

/// Requests run one after another, each with all its blocks, through the same orders of reclaiming
/// that an engine has. No engine is needed, and none of the answers' blocks is known. Errors:
/// kInvalidArgument, kOutOfMemory.
PADDOCK_API ReplayReport replay_requests(const RequestTrace& trace, const ReplayOptions& options);

struct CurvePoint {
  int64_t capacity = 0;
  double hit_rate = 0;
};

/// What "lru" finds in caches of every size, from one pass over the trace: replay_requests()'s
/// hit rates, for each capacity. `sample` below 1: from that share of the blocks, chosen by a hash
/// (SHARDS, Waldspurger et al., FAST '15), which is an estimate.
PADDOCK_API std::vector<CurvePoint> lru_curve(const RequestTrace& trace,
                                              std::span<const int64_t> capacities,
                                              double sample = 1);

}  // namespace paddock
