// Hit rates of least recently used for every size at once (Mattson et al., "Evaluation techniques
// for storage hierarchies", 1970).
//
// The stack: all blocks seen, those of the newest text on top, each text's first block above its
// second and so on, as that is the order in which they may leave. A cache of C blocks holds the top
// C of it, always: a text of n <= C blocks that it computes pushes out what lies deepest, and of a
// longer one it keeps the first C. So a block is found in every cache larger than its place, and as
// what comes before it in its text lies above it, hits are the beginning of a text by themselves.
//
// A place is how many blocks were used later. SHARDS (Waldspurger et al., "Efficient MRC
// construction with SHARDS", FAST '15) counts that among a sample of the blocks, chosen by a hash,
// and divides by the sample's rate; what the sample is short of, or has beyond, the expected number
// of references counts as found at the first place.
#include <algorithm>
#include <cmath>

#include "core/fail.h"
#include "core/mix.h"
#include "paddock/replay.h"
#include "replay/block_numbers.h"

namespace paddock {
namespace {

/// How many are marked among times 0, 1, ...: a Fenwick tree.
class Marks {
 public:
  explicit Marks(size_t n) : sums_(n + 1) {}
  void add(size_t time, int32_t n) {
    for (size_t i = time + 1; i < sums_.size(); i += i & (0 - i)) sums_[i] += n;
  }
  int64_t before(size_t time) const {
    int64_t sum = 0;
    for (size_t i = time; i > 0; i -= i & (0 - i)) sum += sums_[i];
    return sum;
  }

 private:
  std::vector<int32_t> sums_;
};

/// How many references found their block at each place of the stack, and how many were counted.
struct Places {
  std::vector<int64_t> found;
  int64_t references = 0;
};

Places measure(const NumberedTrace& trace, const std::vector<uint8_t>& is_sampled) {
  constexpr int64_t kNever = -1;
  Places places;
  places.found.resize(static_cast<size_t>(trace.distinct));
  std::vector<int64_t> last_use(trace.distinct, kNever);
  const auto is_counted = [&](int32_t block) { return is_sampled[block] != 0; };
  places.references = std::count_if(trace.blocks.begin(), trace.blocks.end(), is_counted);
  Marks marks(static_cast<size_t>(places.references));
  int64_t now = 0;
  int64_t in_stack = 0;
  for (int64_t i = 0; i < trace.n_requests(); ++i) {
    const std::span<const int32_t> request = trace.request(i);
    for (const int32_t block : request) {
      if (!is_counted(block) || last_use[block] == kNever) continue;
      ++places.found[in_stack - marks.before(static_cast<size_t>(last_use[block]) + 1)];
    }
    for (size_t j = request.size(); j-- > 0;) {  // the first block is used last
      if (!is_counted(request[j])) continue;
      int64_t& use = last_use[request[j]];
      if (use == kNever) {
        ++in_stack;
      } else {
        marks.add(static_cast<size_t>(use), -1);
      }
      use = now++;
      marks.add(static_cast<size_t>(use), 1);
    }
  }
  return places;
}

}  // namespace

std::vector<CurvePoint> lru_curve(const RequestTrace& trace, std::span<const int64_t> capacities,
                                  double sample) {
  if (!(sample > 0 && sample <= 1)) {
    fail(ErrorCode::kInvalidArgument, "the sample is {}; it must be above 0 and at most 1", sample);
  }
  return at_the_edge([&] {
    const NumberedTrace numbered(trace);
    std::vector<uint8_t> is_sampled(numbered.distinct);
    for (int32_t block = 0; block < numbered.distinct; ++block) {
      is_sampled[block] = unit_interval(mix(block)) < sample ? 1 : 0;
    }
    const Places places = measure(numbered, is_sampled);
    const double expected = static_cast<double>(numbered.blocks.size()) * sample;
    const double surplus = expected - static_cast<double>(places.references);
    std::vector<int64_t> found_within(places.found.size() + 1);  // in a cache of so many blocks
    for (size_t i = 0; i < places.found.size(); ++i) {
      found_within[i + 1] = found_within[i] + places.found[i];
    }
    std::vector<CurvePoint> curve;
    for (const int64_t capacity : capacities) {
      check_range("a capacity", capacity, 0, INT64_MAX);
      const double size = std::ceil(static_cast<double>(capacity) * sample);
      const size_t top = std::min(found_within.size() - 1, static_cast<size_t>(size));
      const double found = static_cast<double>(found_within[top]) + (top > 0 ? surplus : 0);
      curve.push_back({capacity, expected == 0 ? 0 : std::clamp(found / expected, 0.0, 1.0)});
    }
    return curve;
  });
}

}  // namespace paddock
