// Merging bytes into tokens: the BPE proper.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "paddock/tokenizer.h"
#include "text/vocabulary.h"

namespace paddock {

/// Which pairs of tokens merge, at which rank (lower first), into what.
class MergeTable {
 public:
  struct Merge {
    TokenId right;
    uint32_t rank;
    TokenId result;
  };

  void reserve(size_t n) { pending_.reserve(n); }
  /// Ids must be inside [0, vocab_size) of seal().
  void add(TokenId left, TokenId right, uint32_t rank, TokenId result) {
    pending_.push_back({left, {right, rank, result}});
  }
  /// Ends the filling. Error kBadFile if a pair is there twice.
  void seal(const Vocabulary& vocabulary);

  /// nullptr if the pair does not merge.
  const Merge* find(TokenId left, TokenId right) const {
    const Merge* low = merges_.data() + first_[static_cast<size_t>(left)];
    const Merge* end = merges_.data() + first_[static_cast<size_t>(left) + 1];
    size_t n = static_cast<size_t>(end - low);
    while (n > 1) {
      const size_t half = n / 2;
      low += low[half].right <= right ? half : 0;
      n -= half;
    }
    return n == 1 && low->right == right ? low : nullptr;
  }

 private:
  struct Pending {
    TokenId left;
    Merge merge;
  };
  std::vector<Pending> pending_;  // until sealed
  std::vector<uint32_t> first_;   // [vocab_size + 1] where a left token's merges begin
  std::vector<Merge> merges_;     // by left, then by right
};

/// Runs merges over one pre-token at a time; keeps its scratch memory between calls.
class Merger {
 public:
  explicit Merger(const MergeTable& table) : table_(table) {}

  /// Merges `ids` in place until no pair merges: lowest rank first, leftmost first among equals.
  /// O(n log n) for n ids; n below 2^31.
  void merge(std::vector<TokenId>& ids);

 private:
  struct Symbol {
    TokenId id;  // -1: merged into the one before it
    int32_t previous, next;
  };
  struct Candidate {
    uint32_t rank;
    int32_t at;  // index of the left symbol
    TokenId left, right, result;
  };
  void consider(int32_t left, int32_t right);
  void merge_short(std::vector<TokenId>& ids);

  const MergeTable& table_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
  std::vector<const MergeTable::Merge*> pairs_;
};

}  // namespace paddock
