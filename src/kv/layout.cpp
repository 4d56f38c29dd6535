#include "kv/layout.h"

#include <algorithm>
#include <numeric>

#include "core/fail.h"

namespace paddock {

KvLayout::KvLayout(int64_t page_bytes) : KvLayout(std::vector<KvGroup>{{{}, page_bytes, 0}}) {}

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

KvLayout KvLayout::uniform(int32_t n_groups, const PageGeometry& geometry, KvFormat format) {
  const int32_t element = geometry.element_bytes;
  if (dtype_traits(format.k_type).block_bytes != element ||
      dtype_traits(format.v_type).block_bytes != element) {
    fail(ErrorCode::kInternal, "keys of {} and values of {} in pages whose elements have {} bytes",
         dtype_traits(format.k_type).name, dtype_traits(format.v_type).name, element);
  }
  return KvLayout(std::vector<KvGroup>(n_groups, {format, geometry.page_bytes(), 0}));
}

}  // namespace paddock
