// How large the pages of each table group are, and which of them are of one size.
//
// A table group is a set of (layer, KV heads) whose blocks always leave together: it has tables and
// pages of its own. Today a group is one layer with all its KV heads, and the cache's tables, the
// prefix tree, plans and kernels number groups by layer; one of fewer heads needs numbers of its
// own there.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "paged_kv.h"

namespace paddock {

struct KvGroup {
  int64_t page_bytes = 0;  // a block's keys and values
  int32_t page_class = 0;  // pages of one class are of one size
};

class KvLayout {
 public:
  /// However many groups, all with pages of this size.
  KvLayout(int64_t page_bytes);  // NOLINT(google-explicit-constructor)
  /// page_class is filled in: in the order in which sizes first come.
  explicit KvLayout(std::vector<KvGroup> groups);
  /// All groups in pages of one geometry. This is the one place that says so: kernels and backends
  /// know a single geometry.
  static KvLayout uniform(int32_t n_groups, const PageGeometry& geometry);

  const KvGroup& group(int32_t i) const { return groups_[groups_.size() == 1 ? 0 : i]; }
  /// The bytes that page numbers count: page p begins at p * unit_bytes(). With one size of pages
  /// it is theirs, otherwise their greatest common divisor.
  int64_t unit_bytes() const { return unit_bytes_; }
  /// [n_classes] units in a page of each class.
  std::span<const int32_t> class_units() const { return class_units_; }
  int32_t page_units(int32_t group_index) const {
    return class_units_[group(group_index).page_class];
  }

 private:
  std::vector<KvGroup> groups_;  // one stands for all
  std::vector<int32_t> class_units_;
  int64_t unit_bytes_ = 0;
};

}  // namespace paddock
