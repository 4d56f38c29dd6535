// Scenes of the small operations.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>

#include "gpu/scene.h"
#include "half.h"

namespace paddock::bench {
namespace {

using simt::DeviceBuffer;

std::vector<int32_t> shuffled(int32_t n, uint32_t seed) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  return order;
}

/// Rows in and rows out, float32 or halves.
template <typename Out>
struct Rows {
  Rows(int n_sets, int64_t in_of_set, int64_t out_of_set)
      : in_each(in_of_set),
        out_each(out_of_set),
        in(static_cast<size_t>(n_sets * in_each), "in"),
        out(static_cast<size_t>(n_sets * out_each), "out") {
    Pattern::of(DType::kF32).fill(in);
    in.freeze();
  }
  const float* x(int set) const { return in.data() + set * in_each; }
  Out* y(int set) const { return out.data() + set * out_each; }
  /// What set 0 wrote.
  std::vector<Out> result() const {
    std::vector<Out> all = out.download();
    all.resize(static_cast<size_t>(out_each));
    return all;
  }

  int64_t in_each, out_each;
  DeviceBuffer<float> in;
  DeviceBuffer<Out> out;
};

/// error() of a scene over Rows: every set is launched, so that all of `out` is written.
template <typename State, typename Expected>
std::function<double()> held_against(const Scene& scene, std::shared_ptr<State> state,
                                     const Expected& expected) {
  return [launch = scene.launch, sets = scene.sets, state = std::move(state), expected] {
    state->out.set_unwritten();
    for (int set = 0; set < sets; ++set) {
      if (launch(set, nullptr) != 0) return kBroken;
    }
    return expected(state->result());
  };
}

float input(int64_t i) { return Pattern::of(DType::kF32).value(i); }

}  // namespace

Scene rms_norm_scene(int32_t tokens, int64_t cols, const Turns& turns) {
  struct State : Rows<float> {
    State(int n_sets, int64_t each, int64_t n)
        : Rows(n_sets, each, each), weight(static_cast<size_t>(n), "weight") {
      Pattern::of(DType::kF32).fill(weight);
    }
    DeviceBuffer<float> weight;
  };
  const int64_t each = tokens * cols;
  constexpr float kEps = 1e-5F;
  Scene scene;
  scene.sets = turns.sets(8 * each);
  scene.work = {8.0 * static_cast<double>(each)};
  scene.room = 1e-5;
  const auto state = std::make_shared<State>(scene.sets, each, cols);
  scene.launch = [=](int set, cuda::Stream stream) {
    return cuda::rms_norm(
        {state->x(set), cols, state->weight.data(), kEps, cols, state->y(set), cols, tokens},
        stream);
  };
  scene.error = held_against(scene, state, [=](const std::vector<float>& got) {
    Deviation deviation;
    for (const int64_t t : {int64_t{0}, int64_t{tokens} - 1}) {
      double square = 0;
      for (int64_t c = 0; c < cols; ++c) square += std::pow(double{input(t * cols + c)}, 2);
      const double factor = 1 / std::sqrt(square / static_cast<double>(cols) + double{kEps});
      for (int64_t c = 0; c < cols; ++c) {
        deviation.add(got[static_cast<size_t>(t * cols + c)],
                      input(t * cols + c) * factor * input(c));
      }
    }
    return deviation.relative() + finite(got);
  });
  return scene;
}

Scene swiglu_scene(int32_t tokens, int64_t cols, const Turns& turns) {
  const int64_t each = tokens * cols;
  Scene scene;
  scene.sets = turns.sets(12 * each);
  scene.work = {12.0 * static_cast<double>(each)};
  scene.room = 1e-5;
  const auto state = std::make_shared<Rows<float>>(scene.sets, 2 * each, each);
  scene.launch = [=](int set, cuda::Stream stream) {
    return cuda::swiglu({state->x(set), 2 * cols, cols, state->y(set), cols, tokens}, stream);
  };
  scene.error = held_against(scene, state, [=](const std::vector<float>& got) {
    Deviation deviation;
    for (const int64_t t : {int64_t{0}, int64_t{tokens} - 1}) {
      for (int64_t c = 0; c < cols; ++c) {
        const double gate = input(2 * t * cols + c);
        deviation.add(got[static_cast<size_t>(t * cols + c)],
                      gate / (1 + std::exp(-gate)) * input((2 * t + 1) * cols + c));
      }
    }
    return deviation.relative() + finite(got);
  });
  return scene;
}

Scene to_bf16_scene(int32_t tokens, int64_t cols, const Turns& turns) {
  const int64_t each = tokens * cols;
  Scene scene;
  scene.sets = turns.sets(6 * each);
  scene.work = {6.0 * static_cast<double>(each)};
  scene.room = 4e-3;
  const auto state = std::make_shared<Rows<uint16_t>>(scene.sets, each, each);
  scene.launch = [=](int set, cuda::Stream stream) {
    return cuda::to_bf16({state->x(set), cols, cols, state->y(set), tokens}, stream);
  };
  scene.error = held_against(scene, state, [=](const std::vector<uint16_t>& got) {
    Deviation deviation;
    for (int64_t i = 0; i<each; i += each> 1000 ? 97 : 1) {
      deviation.add(bf16_to_f32(got[static_cast<size_t>(i)]), input(i));
    }
    return deviation.relative();
  });
  return scene;
}

Scene angles_scene(int32_t rows, int32_t half, const Turns& turns) {
  struct State {
    State(int n_sets, int32_t n_rows, int32_t n)
        : where(shuffled(n_sets * n_rows, 9)),
          positions(where, "positions"),
          frequencies(all_frequencies(n), "frequencies"),
          out(static_cast<size_t>(int64_t{n_sets} * n_rows * 2 * n), "angles") {}
    static std::vector<double> all_frequencies(int32_t n) {
      std::vector<double> all;
      for (int32_t i = 0; i < n; ++i) all.push_back(std::pow(500000.0, -double(i) / n));
      return all;
    }
    std::vector<float> result() const { return out.download(); }
    std::vector<int32_t> where;
    DeviceBuffer<int32_t> positions;
    DeviceBuffer<double> frequencies;
    DeviceBuffer<float> out;
  };
  const int64_t each = int64_t{rows} * 2 * half;
  Scene scene;
  scene.sets = turns.sets(4 * each);
  scene.work = {4.0 * static_cast<double>(each)};
  scene.room = 1e-6;
  const auto state = std::make_shared<State>(scene.sets, rows, half);
  scene.launch = [=](int set, cuda::Stream stream) {
    return cuda::angles({state->positions.data() + int64_t{set} * rows, state->frequencies.data(),
                         1.0F, state->out.data() + set * each, rows, half},
                        stream);
  };
  scene.error = held_against(scene, state, [=](const std::vector<float>& got) {
    Deviation deviation;
    const std::vector<double> frequencies = State::all_frequencies(half);
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t i = 0; i < half; ++i) {
        const double angle =
            state->where[static_cast<size_t>(r)] * frequencies[static_cast<size_t>(i)];
        const float* row = &got[static_cast<size_t>(r * int64_t{2} * half)];
        deviation.add(row[i], std::cos(angle));
        deviation.add(row[half + i], std::sin(angle));
      }
    }
    return deviation.relative() + finite(got);
  });
  return scene;
}

Scene rope_store_scene(int32_t tokens, const PageGeometry& geometry, bool scattered,
                       const Turns& turns) {
  const DType type = geometry.type;
  struct State {
    State(int n_sets, int32_t n_tokens, const PageGeometry& g, bool is_scattered)
        : k(static_cast<size_t>(n_sets * n_tokens * int64_t{g.n_kv_heads} * g.head_dim), "k"),
          angles(static_cast<size_t>(int64_t{n_tokens} * g.head_dim), "angles"),
          pages(shuffled(n_sets * pages_each(n_tokens, g, is_scattered), 7)),
          where(places(n_sets, n_tokens, g, is_scattered)),
          destinations(where, "destinations"),
          out(pages.size() * static_cast<size_t>(g.page_bytes()), "pool") {
      Pattern::of(DType::kF32).fill(k);
      Pattern::of(DType::kF32).fill(angles);
      k.freeze();
    }
    static int32_t pages_each(int32_t n_tokens, const PageGeometry& g, bool is_scattered) {
      return is_scattered ? n_tokens : (n_tokens + g.block_size - 1) / g.block_size;
    }
    std::vector<KvDestination> places(int n_sets, int32_t n_tokens, const PageGeometry& g,
                                      bool is_scattered) const {
      std::vector<KvDestination> all;
      const int32_t each = pages_each(n_tokens, g, is_scattered);
      for (int set = 0; set < n_sets; ++set) {
        for (int32_t t = 0; t < n_tokens; ++t) {
          const int32_t page = set * each + (is_scattered ? t : t / g.block_size);
          const int32_t slot = is_scattered ? 5 * t % g.block_size : t % g.block_size;
          all.push_back({pages[static_cast<size_t>(page)], slot});
        }
      }
      return all;
    }
    DeviceBuffer<float> k, angles;  // values are the keys of one set further on
    std::vector<int32_t> pages;
    std::vector<KvDestination> where;
    DeviceBuffer<KvDestination> destinations;
    DeviceBuffer<uint8_t> out;
  };
  const int64_t row = int64_t{geometry.n_kv_heads} * geometry.head_dim;
  const int64_t each = tokens * row;
  Scene scene;
  scene.work = {static_cast<double>(each * (8 + 2 * geometry.element_bytes()))};
  scene.sets = turns.sets(static_cast<int64_t>(scene.work.amount));
  scene.room = type == DType::kF32 ? 1e-6 : 4e-3;
  const auto state = std::make_shared<State>(scene.sets + 1, tokens, geometry, scattered);
  scene.launch = [=](int set, cuda::Stream stream) {
    return cuda::rope_store({state->k.data() + set * each,
                             state->k.data() + (set + 1) * each,
                             row,
                             row,
                             state->angles.data(),
                             false,
                             {state->out.data(), geometry},
                             state->destinations.data() + int64_t{set} * tokens,
                             nullptr,
                             nullptr,
                             tokens},
                            stream);
  };
  scene.error = [=, launch = scene.launch] {
    // Slots that nobody writes are zeros: the pool comes home whole.
    state->out.fill(0);
    if (launch(0, nullptr) != 0) return kBroken;
    const std::vector<uint8_t> got = state->out.download();
    const KvView<KeyOrder::kBySlot> pages(got.data(), geometry);
    const auto stored = [&](const uint8_t* at) -> double {
      if (type == DType::kF32) {
        float value = 0;
        std::memcpy(&value, at, sizeof(value));
        return value;
      }
      uint16_t half = 0;
      std::memcpy(&half, at, sizeof(half));
      return type == DType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
    };
    Deviation deviation;
    const int32_t half = geometry.head_dim / 2;
    for (const int32_t t : {0, tokens / 2, tokens - 1}) {
      const KvDestination to = state->where[static_cast<size_t>(t)];
      for (int32_t h = 0; h < geometry.n_kv_heads; ++h) {
        const int64_t first = t * row + int64_t{h} * geometry.head_dim;
        for (int32_t i = 0; i < half; ++i) {
          const double c = input(int64_t{t} * geometry.head_dim + i);
          const double s = input(int64_t{t} * geometry.head_dim + half + i);
          const double x = input(first + i);
          const double y = input(first + half + i);
          deviation.add(stored(pages.k(to.page, h, to.slot, i)), x * c - y * s);
          deviation.add(stored(pages.k(to.page, h, to.slot, half + i)), x * s + y * c);
        }
        for (int32_t d = 0; d < geometry.head_dim; ++d) {
          deviation.add(stored(pages.v(to.page, h, to.slot, d)), input(each + first + d));
        }
      }
    }
    return deviation.relative();
  };
  return scene;
}

Scene change_tables_scene(int64_t changes, int64_t entries, const Turns& turns) {
  struct State {
    State(int n_sets, int64_t n, int64_t n_entries)
        : list(changes_of(n_sets, n, n_entries)),
          device_list(list, "changes"),
          out(static_cast<size_t>(n_entries), "tables") {}
    static std::vector<cuda::TableChange> changes_of(int n_sets, int64_t n, int64_t n_entries) {
      std::vector<cuda::TableChange> all;
      for (int set = 0; set < n_sets; ++set) {
        const std::vector<int32_t> where =
            shuffled(static_cast<int32_t>(n_entries), static_cast<uint32_t>(set));
        for (int64_t i = 0; i < n; ++i) {
          const int32_t at = where[static_cast<size_t>(i)];
          all.push_back({{at, 16 * at, 0, 16, set}, at, 0});
        }
      }
      return all;
    }
    std::vector<cuda::TableChange> list;
    DeviceBuffer<cuda::TableChange> device_list;
    DeviceBuffer<BlockEntry> out;
  };
  const auto bytes = changes * static_cast<int64_t>(sizeof(cuda::TableChange));
  Scene scene;
  scene.sets = turns.sets(bytes);
  scene.work = {static_cast<double>(bytes + changes * static_cast<int64_t>(sizeof(BlockEntry)))};
  scene.room = 0;
  const auto state = std::make_shared<State>(scene.sets, changes, entries);
  scene.launch = [=](int set, cuda::Stream stream) {
    return cuda::change_tables(
        {state->device_list.data() + set * changes, state->out.data(), changes}, stream);
  };
  scene.error = [=, launch = scene.launch] {
    state->out.fill({});
    if (launch(0, nullptr) != 0) return kBroken;
    const std::vector<BlockEntry> got = state->out.download();
    Deviation deviation;
    for (int64_t i = 0; i < changes; ++i) {
      const cuda::TableChange& change = state->list[static_cast<size_t>(i)];
      const BlockEntry& entry = got[static_cast<size_t>(change.index)];
      deviation.add(entry.page, change.entry.page);
      deviation.add(entry.slot_end, change.entry.slot_end);
    }
    return deviation.relative();
  };
  return scene;
}

}  // namespace paddock::bench
