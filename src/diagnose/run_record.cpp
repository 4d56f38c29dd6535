#include "diagnose/run_record.h"

#include <algorithm>
#include <bit>

namespace paddock {
namespace {

constexpr size_t kMostSamples = 1024;
/// Two samples in a row as one.
void join(DoctorSample& a, const DoctorSample& b) {
  a.step = b.step;
  a.seconds = b.seconds;
  a.step_seconds = std::max(a.step_seconds, b.step_seconds);
  a.tokens += b.tokens;
  a.pages_active = b.pages_active;
  a.pages_cached = b.pages_cached;
  a.resident = b.resident;
  for (size_t i = 0; i < a.left.size(); ++i) a.left[i] += b.left[i];
}

}  // namespace

void add_to(StepHistogram& histogram, int64_t steps) {
  const auto bin =
      static_cast<size_t>(std::bit_width(static_cast<uint64_t>(std::max<int64_t>(0, steps))));
  if (histogram.size() <= bin) histogram.resize(bin + 1);
  ++histogram[bin];
}

void RunRecord::take(const TraceRecord& record) {
  step_ = record.step;
  seconds_ = record.seconds;
  ++number_;
  n.seconds = std::max(n.seconds, seconds_);
  std::visit([this](const auto& what) { on(what); }, record.what);
}

void RunRecord::on(const TraceHeader& h) {
  header = h;
  header.block_size = std::max(1, header.block_size);
  pool_pages = h.pool_pages;
  resident_.resize(static_cast<size_t>(h.n_layers));
  left_.resize(static_cast<size_t>(h.n_layers));
}

void RunRecord::on(const TraceRules& r) {
  if (r.number == 0) policy = r.policy;
  rules_[r.number] = r;
}

// ---- requests

RunRecord::Request* RunRecord::request_of(int64_t number) {
  const auto at = by_number_.find(number);
  return at == by_number_.end() ? nullptr : &requests[at->second];
}

void RunRecord::on(const TraceRequest& r) {
  by_number_[r.request] = requests.size();
  Request& request = requests.emplace_back();
  request.request = r.request;
  request.session = r.session;
  request.begin = r.begin;
  request.prompt_tokens = r.prompt_tokens;
  request.max_tokens = r.max_tokens;
  request.seconds = seconds_;
  request.come = number_;
}

void RunRecord::on(const TraceRun& r) {
  Text& text = texts_[r.sequence];
  text.request = r.request;
  for (const PrefixMiss& miss : text.misses) misses.push_back({r.request, miss});
  text.misses.clear();
  text.owner = r.session != 0 ? RunOwner(r.session, 0) : RunOwner(0, r.request);
  note_prompt(text);
}

void RunRecord::on(const TraceFinish& f) {
  Request* request = request_of(f.request);
  if (request == nullptr) return;
  request->is_finished = true;
  request->reason = f.reason;
  request->made = f.made_tokens;
  request->recomputed = f.recomputed_tokens;
  request->ended = number_;
}

/// What is known of the prompt of the request that the text serves.
void RunRecord::note_prompt(const Text& text) {
  Request* request = request_of(text.request);
  if (request == nullptr) return;
  const auto full = static_cast<size_t>(request->prompt_tokens / header.block_size);
  for (size_t i = request->blocks.size(); i < std::min(full, text.blocks.size()); ++i) {
    request->blocks.push_back(text.blocks[i]);
  }
  const size_t most = std::min(static_cast<size_t>(request->prompt_tokens), kMostIds);
  for (size_t i = request->ids.size(); i < std::min(most, text.ids.size()); ++i) {
    request->ids.push_back(text.ids[i]);
  }
}

// ---- steps

void RunRecord::on(const TraceTick& t) {
  ++n.steps;
  n.pages_peak = std::max(n.pages_peak, pool_pages - t.pages_free - t.pages_cached);
  n.entries += entries_;
  n.entry_tokens += entry_tokens_;
  n.resident_peak = std::max(n.resident_peak, entry_tokens_);
  held_.clear();
  int64_t full = 0;
  for (const auto& [sequence, text] : texts_) {
    if (text.is_pin) continue;
    full += (text.length + header.block_size - 1) / header.block_size * header.n_layers;
    held_[text.owner] += text.entries;
  }
  for (const auto& [owner, pages] : held_) {
    most_held[owner] = std::max(most_held[owner], pages);
  }
  n.pages_full_peak = std::max(n.pages_full_peak, full);
  sample(t);
}

void RunRecord::sample(const TraceTick& t) {
  DoctorSample now;
  now.step = step_;
  now.seconds = seconds_;
  now.tokens = step_tokens_;
  now.pages_active = pool_pages - t.pages_free - t.pages_cached;
  now.pages_cached = t.pages_cached;
  now.resident = resident_;
  now.left = left_;
  step_tokens_ = 0;
  std::fill(left_.begin(), left_.end(), 0);
  if (in_sample_ > 0 && in_sample_ < stride_) {
    join(samples.back(), now);
    ++in_sample_;
    return;
  }
  if (samples.size() == kMostSamples) {  // half as many, each of twice as many steps
    for (size_t i = 0; i < kMostSamples / 2; ++i) {
      if (i > 0) samples[i] = std::move(samples[2 * i]);
      join(samples[i], samples[2 * i + 1]);
    }
    samples.resize(kMostSamples / 2);
    stride_ *= 2;
  }
  samples.push_back(std::move(now));
  in_sample_ = 1;
}

void RunRecord::on(const TraceStepEnd& e) {
  n.failed_steps += e.completed ? 0 : 1;
  n.step_seconds += e.seconds;
  n.slowest = std::max(n.slowest, e.seconds);
  if (e.completed && !samples.empty()) {
    samples.back().step_seconds = std::max(samples.back().step_seconds, e.seconds);
  }
}

}  // namespace paddock
