#include "kv/layout.h"

#include <algorithm>
#include <numeric>

namespace paddock {

KvLayout::KvLayout(int64_t page_bytes) : KvLayout(std::vector<KvGroup>{{page_bytes, 0}}) {}

KvLayout::KvLayout(std::vector<KvGroup> groups) : groups_(std::move(groups)) {
  std::vector<int64_t> sizes;  // [n_classes]
  for (KvGroup& group : groups_) {
    const auto known = std::find(sizes.begin(), sizes.end(), group.page_bytes);
    group.page_class = static_cast<int32_t>(known - sizes.begin());
    if (known == sizes.end()) sizes.push_back(group.page_bytes);
    unit_bytes_ = std::gcd(unit_bytes_, group.page_bytes);
  }
  for (const int64_t bytes : sizes) {
    class_units_.push_back(static_cast<int32_t>(bytes / unit_bytes_));
  }
}

KvLayout KvLayout::uniform(int32_t n_groups, const PageGeometry& geometry) {
  return KvLayout(std::vector<KvGroup>(n_groups, {geometry.page_bytes(), 0}));
}

}  // namespace paddock
