// What kernels count on of where keys and values lie, whatever the order of bytes in a page.
#include <gtest/gtest.h>

#include <vector>

#include "paged_kv.h"

namespace paddock {
namespace {

const PageGeometry kPages[] = {
    {3, 5, 10, DType::kF32}, {1, 1, 16, DType::kF16}, {2, 16, 64, DType::kBF16}};
constexpr int64_t kCount = 3;

/// Calls use(page, head, slot, dim) for every element of a key, and so of a value.
template <typename Use>
void for_each_element(const PageGeometry& g, const Use& use) {
  for (int64_t page = 0; page < kCount; ++page) {
    for (int32_t head = 0; head < g.n_kv_heads; ++head) {
      for (int32_t slot = 0; slot < g.block_size; ++slot) {
        for (int32_t dim = 0; dim < g.head_dim; ++dim) use(page, head, slot, dim);
      }
    }
  }
}

template <KeyOrder kKeys>
void expect_each_element_in_a_place_of_its_own() {
  for (const PageGeometry& g : kPages) {
    std::vector<uint8_t> pool(static_cast<size_t>(kCount * g.page_bytes()));
    const KvView<kKeys, uint8_t> view(pool.data(), g);
    EXPECT_EQ(view.page_bytes(), g.page_bytes());
    for_each_element(g, [&](int64_t page, int32_t head, int32_t slot, int32_t dim) {
      for (uint8_t* at : {view.k(page, head, slot, dim), view.v(page, head, slot, dim)}) {
        ASSERT_GE(at, view.page(page));
        ASSERT_LE(at + g.element_bytes(), view.page(page) + view.page_bytes());
        for (int32_t i = 0; i < g.element_bytes(); ++i) ASSERT_EQ(at[i]++, 0) << "twice";
      }
    });
  }
}

TEST(KvView, EachElementHasAPlaceOfItsOwnInItsPage) {
  expect_each_element_in_a_place_of_its_own<KeyOrder::kByDim>();
  expect_each_element_in_a_place_of_its_own<KeyOrder::kBySlot>();
}

TEST(KvView, PagesLieInThePool) {
  for (const PageGeometry& g : kPages) {
    std::vector<uint8_t> pool(static_cast<size_t>(kCount * g.page_bytes()));
    const KvView<KeyOrder::kByDim, uint8_t> view(pool.data(), g);
    for (int64_t page = 0; page < kCount; ++page) {
      for (int64_t i = 0; i < view.page_bytes(); ++i) {
        ASSERT_EQ(view.page(page)[i]++, 0) << "of two pages";
      }
    }
  }
}

TEST(KvView, RunsThatKernelsCopyLieSideBySide) {
  for (const PageGeometry& g : kPages) {
    std::vector<uint8_t> pool(static_cast<size_t>(kCount * g.page_bytes()));
    const KvView<KeyOrder::kByDim> by_dim(pool.data(), g);
    const KvView<KeyOrder::kBySlot> by_slot(pool.data(), g);
    const int32_t element = g.element_bytes();
    for_each_element(g, [&](int64_t page, int32_t head, int32_t slot, int32_t dim) {
      const int32_t in_row = dim * element;
      EXPECT_EQ(by_dim.v(page, head, slot, dim),
                by_dim.v(page, head, 0, 0) + slot * by_dim.row_bytes() + in_row);
      EXPECT_EQ(by_dim.k(page, head, slot, dim),
                by_dim.k(page, head, 0, 0) + dim * by_dim.dim_bytes() + slot * element);
      EXPECT_EQ(by_slot.k(page, head, slot, dim),
                by_slot.k(page, head, 0, 0) + slot * by_slot.row_bytes() + in_row);
      EXPECT_EQ(by_slot.v(page, head, slot, dim),
                by_slot.k(page, head, slot, dim) + by_slot.to_values(element));
      EXPECT_EQ(by_slot.k(page, head, slot, 0),
                by_slot.at(by_slot.row_distance(by_slot.key_row(page, head, slot), element)));
      EXPECT_EQ(by_slot.k(page, head, 0, 0), by_slot.at(by_slot.key_distance(page, head)));
    });
  }
}

TEST(KvView, KnowsItsTypes) {
  std::vector<float> pool(2 * 4 * 16);
  auto* bytes = reinterpret_cast<uint8_t*>(pool.data());
  const auto of = [&](int64_t shift, int32_t head_dim, DType type) {
    return KvView<KeyOrder::kBySlot>(bytes + shift, {1, 4, head_dim, type});
  };
  EXPECT_TRUE(of(0, 16, DType::kF32).is_known());
  EXPECT_TRUE(of(0, 16, DType::kF16).is_known());
  EXPECT_TRUE(of(0, 16, DType::kBF16).is_known());
  EXPECT_FALSE(of(0, 16, DType::kQ8_0).is_known());
  EXPECT_TRUE(of(0, 8, DType::kF16).rows_aligned(16));
  EXPECT_FALSE(of(2, 8, DType::kF16).rows_aligned(16));
  EXPECT_FALSE(of(0, 9, DType::kF16).rows_aligned(16));
}

}  // namespace
}  // namespace paddock
