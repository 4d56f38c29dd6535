// What the tree of kept blocks costs where it is full: blocks that leave, come, and are found
// again, under each order of reclaiming, among more and more blocks.
//   reclaim_cost [LAYERS]   nanoseconds a block
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "bench/unchecked.h"
#include "kv/prefix_tree.h"

namespace {

using namespace paddock;

constexpr int32_t kBlock = 16;       // tokens
constexpr int32_t kTextBlocks = 32;  // of a text: the first half is one of few beginnings
constexpr int32_t kBeginningBlocks = 16;
constexpr int kRounds = 100;

using Text = std::vector<int32_t>;

/// Texts, so many that each beginning has 64 endings.
class Texts {
 public:
  explicit Texts(int32_t n_blocks)
      : n_beginnings_(std::max(1, n_blocks / (kBeginningBlocks + 64 * kBeginningBlocks))) {}
  Text next() {
    Text text(static_cast<size_t>(kTextBlocks) * kBlock);
    const auto beginning = static_cast<uint32_t>(random_() % static_cast<uint32_t>(n_beginnings_));
    std::minstd_rand common(beginning + 1);
    const auto half = text.begin() + kBeginningBlocks * kBlock;
    std::generate(text.begin(), half, [&] { return static_cast<int32_t>(common() % 50'000); });
    std::generate(half, text.end(), [&] { return static_cast<int32_t>(random_() % 50'000); });
    return text;
  }

 private:
  int32_t n_beginnings_;
  std::mt19937 random_{7};
};

/// Nanoseconds of what happens to a block, the least of all rounds.
struct Cost {
  double leave = 1e30, come = 1e30, find = 1e30;
};

class Stopwatch {
 public:
  /// Of one of `n`, since the last call.
  void lap(int64_t n, double& least) {
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::duration<double, std::nano> spent = now - last_;
    if (n > 0) least = std::min(least, spent.count() / static_cast<double>(n));
    last_ = std::chrono::steady_clock::now();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

class Tree {
 public:
  Tree(const std::string& order, int32_t n_blocks, int32_t n_layers)
      : tree_(n_blocks, kBlock, n_layers, make_reclaim_policy(order)), texts_(n_blocks) {
    fill();
  }

  Cost measure() {
    Cost cost;
    const int32_t n = std::max(kTextBlocks, tree_.capacity() / 50);
    for (int round = 0; round < kRounds; ++round) {
      std::vector<Text> news;
      for (int32_t i = 0; i < n / kTextBlocks; ++i) news.push_back(texts_.next());
      std::vector<Text> olds;
      for (size_t i = 0; i < news.size(); ++i) olds.push_back(kept_[random_() % kept_.size()]);
      Stopwatch watch;
      for (int32_t i = 0; i < n; ++i) leave();
      watch.lap(n, cost.leave);
      int64_t n_blocks = 0;
      for (const Text& text : news) n_blocks += come(text);
      watch.lap(n_blocks, cost.come);
      n_blocks = 0;
      for (const Text& text : olds) n_blocks += find(text);
      watch.lap(n_blocks, cost.find);
      fill();
    }
    return cost;
  }

 private:
  void fill() {
    while (tree_.evictable() + kTextBlocks <= tree_.capacity()) come(texts_.next());
  }
  void leave() {
    const Departure how{.step = step_};
    tree_.take_out(tree_.next(), &how);
  }
  /// What is there of it is found, the rest becomes new; then its sequence ends.
  int64_t come(const Text& text) {
    nodes_.clear();
    const auto tokens = std::span<const int32_t>(text);
    int32_t parent = PrefixTree::kRoot;
    for (int32_t i = 0; i < kTextBlocks; ++i) {
      const auto block = tokens.subspan(static_cast<size_t>(i) * kBlock, kBlock);
      int32_t node = tree_.find(parent, block);
      if (node >= 0) {
        tree_.lock(node);
      } else {
        node = tree_.insert(parent, block);
        if (node < 0) break;
        const std::span<int32_t> pages = tree_.pages(node);
        std::fill(pages.begin(), pages.end(), node);
      }
      nodes_.push_back(node);
      parent = node;
    }
    let_go();
    if (kept_.size() < kMostKept) {
      kept_.push_back(text);
    } else {
      kept_[static_cast<size_t>(n_texts_) % kMostKept] = text;
    }
    ++n_texts_;
    return static_cast<int64_t>(nodes_.size());
  }
  /// As far as it is there.
  int64_t find(const Text& text) {
    nodes_.clear();
    tree_.extend(PrefixTree::kRoot, text, kTextBlocks, true, nodes_);
    for (const int32_t node : nodes_) tree_.lock(node);
    let_go();
    return static_cast<int64_t>(nodes_.size());
  }
  void let_go() {
    ++step_;
    for (size_t i = nodes_.size(); i-- > 0;) tree_.unlock(nodes_[i], step_);
  }

  static constexpr size_t kMostKept = 4096;
  PrefixTree tree_;
  Texts texts_;
  std::vector<Text> kept_;  // that came last, if they are there still
  std::vector<int32_t> nodes_;
  std::mt19937 random_{11};
  int64_t step_ = 0, n_texts_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const int32_t n_layers = argc > 1 ? std::atoi(argv[1]) : 30;
  fmt::print("{} layers; nanoseconds a block\n", n_layers);
  fmt::print("{:>8} {:>8} {:>8} {:>8} {:>8}\n", "order", "blocks", "leave", "come", "find");
  for (const std::string& order : reclaim_names()) {
    for (const int32_t n_blocks : {1000, 10'000, 100'000}) {
      Tree tree(order, n_blocks, n_layers);
      const Cost cost = tree.measure();
      fmt::print("{:>8} {:>8} {:>8.0f} {:>8.0f} {:>8.0f}\n", order, n_blocks, cost.leave, cost.come,
                 cost.find);
      std::fflush(stdout);
    }
  }
  return 0;
}
