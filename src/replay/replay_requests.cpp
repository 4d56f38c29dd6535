#include <algorithm>
#include <limits>
#include <map>
#include <memory>

#include "core/fail.h"
#include "core/mix.h"
#include "kv/hash_cache.h"
#include "paddock/replay.h"
#include "replay/block_numbers.h"

namespace paddock {
namespace {

/// An order that is asked for: a name of ours, or a maker of the host's.
struct Order {
  std::string name;
  const ReclaimMaker* maker = nullptr;

  std::unique_ptr<ReclaimPolicy> make() const {
    if (maker == nullptr) return make_reclaim_policy(name);
    auto policy = ask_host("ReplayOptions::custom_reclaim", [&] { return (*maker)(); });
    if (policy == nullptr) {
      fail(ErrorCode::kInvalidArgument, "ReplayOptions::custom_reclaim made no policy");
    }
    return policy;
  }
};

std::vector<Order> orders_of(const ReplayOptions& options) {
  std::vector<Order> orders;
  for (const std::string& name : options.reclaim) {
    make_reclaim_policy(name);  // refuses what there is not
    orders.push_back({name});
  }
  for (const ReclaimMaker& maker : options.custom_reclaim) {
    if (!maker) fail(ErrorCode::kInvalidArgument, "ReplayOptions::custom_reclaim has no maker");
    Order order{"", &maker};
    order.name = ask_host("a reclaim policy's name()", [&] { return order.make()->name(); });
    orders.push_back(std::move(order));
  }
  return orders;
}

double share(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

/// Hits, regrets and what left.
ReplayResult run(const NumberedTrace& trace, const Order& order, int64_t capacity) {
  // With room for every block nothing leaves: more of it is the same.
  HashCache cache(static_cast<int32_t>(std::min<int64_t>(capacity, trace.distinct)), order.make());
  ReplayResult result;
  result.policy = order.name;
  result.capacity = capacity;
  std::vector<uint8_t> was_here(trace.distinct);
  std::vector<uint64_t> text;
  for (int64_t i = 0; i < trace.n_requests(); ++i) {
    const std::span<const int32_t> request = trace.request(i);
    text.clear();
    for (const int32_t block : request) text.push_back(mix(block));  // no two are the same
    const int64_t found = cache.pass(text);
    result.found += found;
    result.too_large += static_cast<int64_t>(request.size()) > capacity ? 1 : 0;
    for (auto j = static_cast<size_t>(found); j < request.size(); ++j) {
      result.regret += was_here[request[j]];
      if (static_cast<int64_t>(j) < capacity) was_here[request[j]] = 1;
    }
  }
  result.reclaimed = cache.reclaimed();
  result.violations = cache.violations();
  result.last_violation = cache.last_violation();
  return result;
}

}  // namespace

ReplayReport replay_requests(const RequestTrace& trace, const ReplayOptions& options) {
  return at_the_edge([&] {
    const std::vector<Order> orders = orders_of(options);
    for (const int64_t capacity : options.capacities) {
      check_range("a capacity", capacity, 0, std::numeric_limits<int32_t>::max());
    }
    const NumberedTrace numbered(trace);
    ReplayReport report;
    report.requests = numbered.n_requests();
    report.references = static_cast<int64_t>(numbered.blocks.size());
    report.distinct = numbered.distinct;
    report.infinite_hit_rate = share(numbered.found_by_infinite, report.references);
    std::map<int64_t, int64_t> belady;  // by capacity
    for (const int64_t capacity : options.capacities) {
      if (!belady.contains(capacity)) belady[capacity] = found_by_belady(numbered, capacity);
    }
    for (const Order& order : orders) {
      for (const int64_t capacity : options.capacities) {
        ReplayResult result = run(numbered, order, capacity);
        result.hit_rate = share(result.found, report.references);
        result.belady_found = belady[capacity];
        result.belady_hit_rate = share(result.belady_found, report.references);
        result.of_belady = result.belady_found == 0 ? 1 : share(result.found, result.belady_found);
        report.results.push_back(std::move(result));
      }
    }
    return report;
  });
}

}  // namespace paddock
