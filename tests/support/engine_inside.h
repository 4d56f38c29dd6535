// The inside of an engine, for proofs that need its tables and pages: of what parts() gave.
#pragma once

#include <cstring>

#include "engine/engine_impl.h"
#include "half.h"

namespace paddock::test {

/// Bytes of a page as the backend keeps them.
inline std::vector<std::byte> page_bytes(const Engine::Impl& inside, int32_t page) {
  std::vector<std::byte> bytes(static_cast<size_t>(inside.setup.pool.geometry.page_bytes()));
  inside.backend->pages().read_page(page, bytes);
  return bytes;
}

/// An element of a page, of that type.
inline float page_element(const uint8_t* at, DType type) {
  const auto read = [&](auto value) {
    std::memcpy(&value, at, sizeof(value));
    return value;
  };
  if (type == DType::kF32) return read(float{});
  return type == DType::kF16 ? f16_to_f32(read(uint16_t{})) : bf16_to_f32(read(uint16_t{}));
}

}  // namespace paddock::test
