// The inside of an engine, for proofs that need its tables and pages: of what parts() gave.
#pragma once

#include <cstring>

#include "engine/engine_impl.h"
#include "half.h"

namespace paddock::test {

/// Bytes of a page as the backend keeps them.
inline std::vector<std::byte> page_bytes(const Engine::Impl& inside, int32_t page) {
  std::vector<std::byte> bytes(static_cast<size_t>(inside.setup.geometry.page_bytes()));
  inside.backend->pages().read_page(page, bytes);
  return bytes;
}

/// Element i of a page whose elements have that type.
inline float page_element(std::span<const std::byte> page, DType type, int64_t i) {
  const auto read = [&](auto value) {
    std::memcpy(&value, page.data() + i * static_cast<int64_t>(sizeof(value)), sizeof(value));
    return value;
  };
  if (type == DType::kF32) return read(float{});
  return type == DType::kF16 ? f16_to_f32(read(uint16_t{})) : bf16_to_f32(read(uint16_t{}));
}

}  // namespace paddock::test
