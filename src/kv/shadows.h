// What the prefix cache would find if it had more memory, or less: caches of hashes, half, once,
// twice and four times as large, that go with it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kv/hash_cache.h"
#include "paddock/stats.h"

namespace paddock {

class Shadows {
 public:
  static constexpr std::array<double, 4> kTimes = {0.5, 1, 2, 4};
  using Maker = std::function<std::unique_ptr<ReclaimPolicy>()>;
  /// What a sequence holds in each of them, from its first block on.
  using Held = std::array<std::vector<int32_t>, kTimes.size()>;

  /// `maker`: of the cache's order, asked once for each; null: there are no shadows, and calls do
  /// nothing.
  explicit Shadows(const Maker& maker);

  /// Beside a cache of so many blocks, for texts of at most `longest`.
  struct Room {
    std::vector<HashCache::Room> caches;
    std::vector<uint64_t> hashes;
  };
  Room make_room(int32_t n_blocks, int64_t longest) const;
  /// Uses this memory from now on, empty. No sequence holds a block at that moment.
  void move_into(Room room) noexcept;
  /// So that what a sequence holds takes no memory later.
  void make_room(Held& held, int32_t n_blocks, int64_t longest) const;

  /// A text, `tokens` in blocks of `block_size`, is looked for: it holds its first `n_blocks`.
  /// `counts`: what each shadow has of them is counted. `root`, here and below: a hash of what
  /// layers see of it (PrefixTree::hash_of_root()), as texts that are seen otherwise have nothing
  /// in common.
  void look_up(std::span<const int32_t> tokens, int64_t n_blocks, int32_t block_size, bool counts,
               Held& held, uint64_t root = 0);
  /// So many of its blocks are full now.
  void keep(std::span<const int32_t> tokens, int64_t n_blocks, int32_t block_size, Held& held,
            uint64_t root = 0) {
    hold(tokens, n_blocks, block_size, IfMissing::kAdd, false, held, root);
  }
  /// It holds those of them that are there.
  void pin(std::span<const int32_t> tokens, int64_t n_blocks, int32_t block_size, Held& held,
           uint64_t root = 0) {
    hold(tokens, n_blocks, block_size, IfMissing::kStop, false, held, root);
  }
  void fork(const Held& from, Held& to);
  /// It holds only its first `keep` blocks.
  void let_go(Held& held, int64_t keep, int64_t now);

  std::vector<KvShadow> stats() const;

 private:
  /// Returns what each had of the blocks that are new to it.
  std::array<int64_t, kTimes.size()> hold(std::span<const int32_t> tokens, int64_t n_blocks,
                                          int32_t block_size, IfMissing missing, bool is_prompt,
                                          Held& held, uint64_t root);

  std::vector<HashCache> caches_;  // by size; none: off
  std::vector<uint64_t> hashes_;   // scratch
  std::array<int64_t, kTimes.size()> hits_{};
};

}  // namespace paddock
