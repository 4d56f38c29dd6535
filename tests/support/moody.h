// Rules and orders of a host that throw, and name what is not there, at times.
#pragma once

#include <paddock/eviction.h>
#include <paddock/reclaim.h>

#include <random>
#include <stdexcept>
#include <string>

namespace paddock::test {

/// As another rule, but for what it says at some lengths of a text: the same each time.
class MoodyRule final : public EvictionPolicy {
 public:
  explicit MoodyRule(std::string_view rule) : inner_(make_policy(rule)) {}
  std::string name() const override { return "moody:" + inner_->name(); }
  TokenVisibility visibility(int32_t layer) const override { return inner_->visibility(layer); }
  Positions positions() const override { return inner_->positions(); }
  PolicyNeeds needs() const override { return inner_->needs(); }
  TrimSchedule schedule(int32_t layer, int32_t n_layers) const override {
    return inner_->schedule(layer, n_layers);
  }
  void trim(const LayerView& view, int64_t n, std::vector<Victim>& victims) const override {
    const int64_t mood = view.length / 4 % 4;
    if (mood == 0) throw std::runtime_error("not in the mood");
    if (mood == 1) victims.push_back({1000, 0});
    inner_->trim(view, n, victims);
  }

 private:
  std::shared_ptr<const EvictionPolicy> inner_;
};

/// Known as "moody:RULE".
inline CustomPolicies moody_policies() {
  return {{"moody", [](std::string_view rule) { return std::make_shared<MoodyRule>(rule); }}};
}
inline bool is_moody(const std::string& policy) { return policy.starts_with("moody:"); }
/// Without moods.
inline std::string calm(const std::string& policy) {
  return is_moody(policy) ? policy.substr(std::string("moody:").size()) : policy;
}

/// An order of blocks that throws, and names anything.
class MoodyOrder final : public ReclaimPolicy {
 public:
  explicit MoodyOrder(uint32_t seed) : random_(seed) {}
  std::string name() const override { return "moody"; }
  void reserve(int32_t n_blocks) override { n_blocks_ = static_cast<uint32_t>(n_blocks); }
  void on_leaf(const CachedBlock&) override { throw_at_times(); }
  void on_use(int32_t) override { throw_at_times(); }
  void on_removed(int32_t) override { throw_at_times(); }
  int32_t next() override {
    throw_at_times();
    return static_cast<int32_t>(random_() % (n_blocks_ + 2)) - 1;
  }

 private:
  void throw_at_times() {
    if (random_() % 4 == 0) throw std::runtime_error("not in the mood");
  }
  std::mt19937 random_;
  uint32_t n_blocks_ = 1;
};

}  // namespace paddock::test
