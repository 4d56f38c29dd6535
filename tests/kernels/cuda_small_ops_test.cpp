// The small CUDA operations under the harness, against float64 loops and the CPU's reference
// kernels.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>
#include <span>

#include "cpu/kernels.h"
#include "cuda/launch.h"
#include "half.h"
#include "support/simt/harness.h"

namespace paddock::cuda {
namespace {

using simt::DeviceBuffer;

std::vector<float> random_floats(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

/// Runs a case under every schedule and with every site switched off.
void expect_proven(const std::function<bool()>& run) {
  EXPECT_EQ(simt::surviving_mutants(run), std::vector<std::string>{});
}

bool near(float value, double expected, double relative) {
  return std::abs(value - expected) <= relative * std::max(1.0, std::abs(expected));
}

TEST(CudaSmallOps, RmsNorm) {
  for (const int64_t cols : {1, 31, 64, 257, 1000, 4200}) {
    const int32_t n = 3;
    const int64_t stride = cols + 5;
    const std::vector<float> x = random_floats(n * stride, 1);
    const std::vector<float> w = random_floats(cols, 2);
    const auto is_right = [&] {
      const DeviceBuffer<float> dx(x, "x");
      const DeviceBuffer<float> dw(w, "w");
      DeviceBuffer<float> out(n * cols, "out");
      if (rms_norm({dx.data(), stride, dw.data(), 1e-5F, cols, out.data(), cols, n}, nullptr) !=
          0) {
        return false;
      }
      const std::vector<float> y = out.download();
      for (int32_t t = 0; t < n; ++t) {
        double square = 0;
        for (int64_t i = 0; i < cols; ++i) square += double{x[t * stride + i]} * x[t * stride + i];
        const double scale = 1 / std::sqrt(square / static_cast<double>(cols) + 1e-5);
        for (int64_t i = 0; i < cols; ++i) {
          if (!near(y[t * cols + i], x[t * stride + i] * scale * w[i], 1e-5)) return false;
        }
      }
      return true;
    };
    if (cols < 4096) {
      expect_proven(is_right);
    } else {  // more columns than threads hold: no check of those is in need
      EXPECT_TRUE(is_right()) << simt::take_report_text();
    }
  }
}

TEST(CudaSmallOps, RmsNormInPlace) {
  const std::vector<float> x = random_floats(300, 3);
  const std::vector<float> w(300, 1.0F);
  const DeviceBuffer<float> dw(w, "w");
  DeviceBuffer<float> dx(x, "x");
  ASSERT_EQ(rms_norm({dx.data(), 300, dw.data(), 0.0F, 300, dx.data(), 300, 1}, nullptr), 0)
      << simt::take_report_text();
  double square = 0;
  for (const float v : dx.download()) square += double{v} * v;
  EXPECT_NEAR(square, 300, 1e-2);
}

TEST(CudaSmallOps, AnglesAreThoseOfTheHost) {
  const std::vector<int32_t> positions = {0, 1, 77, 131071, INT32_MAX};
  const std::vector<double> frequencies = {1.0, 0.1, 3e-5};
  const auto half = static_cast<int32_t>(frequencies.size());
  expect_proven([&] {
    const DeviceBuffer<int32_t> dp(positions, "positions");
    const DeviceBuffer<double> df(frequencies, "frequencies");
    DeviceBuffer<float> out(positions.size() * 2 * half, "angles");
    if (angles(
            {dp.data(), df.data(), 1.5F, out.data(), static_cast<int32_t>(positions.size()), half},
            nullptr) != 0) {
      return false;
    }
    const std::vector<float> got = out.download();
    for (size_t r = 0; r < positions.size(); ++r) {
      for (int32_t i = 0; i < half; ++i) {
        const double angle = positions[r] * frequencies[i];
        if (got[(2 * r) * half + i] != static_cast<float>(std::cos(angle)) * 1.5F) return false;
        if (got[(2 * r + 1) * half + i] != static_cast<float>(std::sin(angle)) * 1.5F) return false;
      }
    }
    return true;
  });
}

TEST(CudaSmallOps, RopeStoreWritesWhatTheHostWrites) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const bool interleaved : {false, true}) {
      SCOPED_TRACE(std::string(dtype_traits(type).name) + (interleaved ? " interleaved" : ""));
      const PageGeometry g{3, 5, 10, type};
      const int32_t n = 4;
      const int64_t stride = 3 * 10 + 2;
      // One more token than pages are given for: it is nobody's.
      std::vector<float> k = random_floats((n + 1) * stride, 4);
      std::vector<float> v = random_floats((n + 1) * stride, 5);
      std::vector<float> turn = random_floats((n + 1) * 10, 6);
      // The last numbers that fit, the first that do not, and what was none before; not turned.
      std::fill_n(turn.begin() + 10, 5, 1.0F);
      std::fill_n(turn.begin() + 15, 5, 0.0F);
      const float edges[] = {65519.0F, 65520.0F, -65519.0F,     -65520.0F, 0x1.FEFFFEp127F,
                             3.4e38F,  -3.4e38F, std::nanf(""), INFINITY,  -INFINITY};
      std::copy_n(edges, 7, k.begin() + stride);  // turning by nothing is no help with the others
      std::copy_n(edges, 10, v.begin() + stride + 20);
      const int64_t lost = type == DType::kF32 ? 0 : type == DType::kBF16 ? 4 : 10;
      const std::vector<KvDestination> to = {{1, 0}, {1, 4}, {0, 2}, {2, 3}, {-1, 0}};
      const std::vector<int32_t> rows = {0, 1, 2, 3};
      const auto bytes = static_cast<size_t>(g.page_bytes());
      std::vector<uint8_t> expected(3 * bytes, 0);
      std::vector<int64_t> norms(n);
      int64_t counted = 0;
      const KvView<KeyOrder::kByDim, uint8_t> host_pages(expected.data(), g);
      cpu::RopeStoreArgs host{k.data(),    v.data(),     stride,      stride,
                              turn.data(), rows.data(),  interleaved, host_pages,
                              to.data(),   norms.data(), &counted};
      cpu::kernels(cpu::Isa::kPortable).rope_store(host, 0, n);
      EXPECT_EQ(counted, lost);

      const DeviceBuffer<float> dk(k, "k");
      const DeviceBuffer<float> dv(v, "v");
      const DeviceBuffer<float> dt(turn, "angles");
      const DeviceBuffer<KvDestination> dd(to, "destinations");
      DeviceBuffer<uint8_t> pool(std::vector<uint8_t>(3 * bytes, 0), "pool");
      DeviceBuffer<int64_t> got_norms(n + 1, "norms");
      simt::for_each_schedule([&](const std::string& schedule) {
        DeviceBuffer<uint64_t> overflows(std::vector<uint64_t>{7}, "overflows");
        ASSERT_EQ(rope_store({dk.data(),
                              dv.data(),
                              stride,
                              stride,
                              dt.data(),
                              interleaved,
                              {pool.data(), g},
                              dd.data(),
                              got_norms.data(),
                              overflows.data(),
                              n + 1},
                             nullptr),
                  0)
            << schedule << simt::take_report_text();
        EXPECT_EQ(overflows.download()[0], static_cast<uint64_t>(7 + lost)) << schedule;
      });
      const std::vector<uint8_t> pages = pool.download();
      const KvView<KeyOrder::kBySlot> own_pages(pages.data(), g);
      const auto size = static_cast<size_t>(g.element_bytes());
      for (const auto& [page, slot] : std::span(to).first(n)) {
        for (int32_t h = 0; h < g.n_kv_heads; ++h) {
          for (int32_t d = 0; d < g.head_dim; ++d) {
            const uint8_t* own = own_pages.k(page, h, slot, d);
            EXPECT_EQ(memcmp(own, host_pages.k(page, h, slot, d), size), 0) << h << " " << d;
            own = own_pages.v(page, h, slot, d);
            EXPECT_EQ(memcmp(own, host_pages.v(page, h, slot, d), size), 0) << h << " " << d;
          }
        }
      }
      const std::vector<int64_t> measured = got_norms.download();
      for (const int32_t t : {0, 2, 3}) {
        EXPECT_NEAR(static_cast<double>(measured[t]), static_cast<double>(norms[t]),
                    1e-6 * static_cast<double>(norms[t]) + 2);
      }
    }
  }
}

TEST(CudaSmallOps, SwigluGatherAndRounding) {
  const int64_t cols = 259;
  const int32_t n = 2;
  const std::vector<float> x = random_floats(n * 2 * cols, 7);
  const std::vector<int32_t> rows = {1, 1, 0};
  expect_proven([&] {
    const DeviceBuffer<float> dx(x, "x");
    DeviceBuffer<float> out(n * cols, "out");
    if (swiglu({dx.data(), 2 * cols, cols, out.data(), cols, n}, nullptr) != 0) return false;
    const std::vector<float> y = out.download();
    for (int32_t t = 0; t < n; ++t) {
      for (int64_t i = 0; i < cols; ++i) {
        const double gate = x[t * 2 * cols + i];
        const double expected = gate / (1 + std::exp(-gate)) * x[t * 2 * cols + cols + i];
        if (!near(y[t * cols + i], expected, 1e-6)) return false;
      }
    }
    return true;
  });
  expect_proven([&] {
    const DeviceBuffer<float> dx(x, "x");
    const DeviceBuffer<int32_t> dr(rows, "rows");
    DeviceBuffer<float> out(3 * cols, "out");
    if (gather({dx.data(), 2 * cols, dr.data(), cols, out.data(), cols, 3}, nullptr) != 0) {
      return false;
    }
    const std::vector<float> y = out.download();
    for (size_t r = 0; r < rows.size(); ++r) {
      for (int64_t i = 0; i < cols; ++i) {
        if (y[r * cols + i] != x[rows[r] * 2 * cols + i]) return false;
      }
    }
    return true;
  });
  expect_proven([&] {
    const DeviceBuffer<float> dx(x, "x");
    DeviceBuffer<uint16_t> out(n * cols, "out");
    if (to_bf16({dx.data(), 2 * cols, cols, out.data(), n}, nullptr) != 0) return false;
    const std::vector<uint16_t> y = out.download();
    for (int32_t t = 0; t < n; ++t) {
      for (int64_t i = 0; i < cols; ++i) {
        if (y[t * cols + i] != f32_to_bf16(x[t * 2 * cols + i])) return false;
      }
    }
    return true;
  });
}

TEST(CudaSmallOps, ChangesOfTablesReachTheirPlaces) {
  std::vector<TableChange> changes;
  for (int32_t i = 0; i < 300; ++i) changes.push_back({{i, 16 * i, 0, 16, 1}, 2 * i + 1, 0});
  expect_proven([&] {
    const DeviceBuffer<TableChange> dc(changes, "changes");
    DeviceBuffer<BlockEntry> tables(std::vector<BlockEntry>(601, BlockEntry{-1, 0, 0, 0, 0}),
                                    "tables");
    if (change_tables({dc.data(), tables.data(), 300}, nullptr) != 0) return false;
    const std::vector<BlockEntry> got = tables.download();
    for (int32_t i = 0; i < 601; ++i) {
      const bool changed = i % 2 == 1 && i < 600;
      if (got[i].page != (changed ? i / 2 : -1)) return false;
      if (changed && got[i].first_position != 16 * (i / 2)) return false;
    }
    return true;
  });
}

}  // namespace
}  // namespace paddock::cuda
