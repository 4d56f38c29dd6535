#include "kv/kv_type.h"

#include <iterator>

#include "core/fail.h"
#include "core/names.h"

namespace paddock {
namespace {

constexpr size_t row_of(KvType type) { return static_cast<size_t>(type) - 1; }
static_assert(kKvElements[row_of(KvType::kF32)].type == DType::kF32);
static_assert(kKvElements[row_of(KvType::kF16)].type == DType::kF16);
static_assert(kKvElements[row_of(KvType::kBF16)].type == DType::kBF16);
static_assert(row_of(KvType::kBF16) + 1 == std::size(kKvElements));

}  // namespace

DType element_type(KvType type) { return kKvElements[row_of(type)].type; }

const char* kv_type_name(KvType type) noexcept {
  if (type == KvType::kAuto) return "auto";
  return row_of(type) < std::size(kKvElements) ? kKvElements[row_of(type)].name : "unknown";
}

std::vector<std::string> kv_type_names() { return names_of(kKvElements); }

KvType parse_kv_type(std::string_view name) {
  for (size_t i = 0; i < std::size(kKvElements); ++i) {
    if (name == kKvElements[i].name) return static_cast<KvType>(i + 1);
  }
  fail(ErrorCode::kInvalidArgument, "KV type '{}' is unknown; use {}", name,
       one_of(kv_type_names()));
}

}  // namespace paddock
