// Scenes of the attention kernels, and what they should compute in float64.
#include <memory>

#include "block_use.h"
#include "gpu/attention_inputs.h"

namespace paddock::bench {
namespace {

/// A slot's key or value of one head, by where it begins in the pool.
std::vector<float> kv_row(const Attention& a, const uint8_t* row) {
  const int64_t first = (row - a.pool.data()) / a.geometry.element_bytes();
  return Pattern::of(a.shape.type).row(first, a.shape.head_dim);
}
/// A query as it meets the entries of one rotation.
std::vector<double> rotated(const Attention& a, int32_t token, int32_t head, int32_t angle_row) {
  const int64_t first = (int64_t{token} * a.shape.heads + head) * a.shape.head_dim;
  const std::vector<float> x = Pattern::of(DType::kF32).row(first, a.shape.head_dim);
  const auto half = static_cast<size_t>(a.shape.head_dim / 2);
  std::vector<double> turned(2 * half);
  for (size_t i = 0; i < half; ++i) {
    const double turn = Attention::angle(angle_row, static_cast<int32_t>(i));
    turned[i] = x[i] * std::cos(turn) - x[i + half] * std::sin(turn);
    turned[i + half] = x[i] * std::sin(turn) + x[i + half] * std::cos(turn);
  }
  return turned;
}

/// What one head of one query of set 0 gives to each slot, entry after entry, in float64; `row`,
/// where it is wanted, becomes its output.
std::vector<std::vector<double>> weights(const Attention& a, int32_t number, int32_t i,
                                         int32_t head, std::vector<double>* row) {
  const AttentionSequence& s = a.tables.sequences[static_cast<size_t>(number)];
  const int32_t dim = a.shape.head_dim;
  const int32_t kv_head = head / (a.shape.heads / a.shape.kv_heads);
  const int32_t t = s.first_position + i;
  std::vector<std::vector<double>> all(static_cast<size_t>(s.n_entries));
  double top = -INFINITY;
  std::vector<double> turned;
  int32_t rotation = -1;
  for (int32_t e = 0; e < s.n_entries; ++e) {
    const BlockEntry& entry = a.tables.entries[static_cast<size_t>(s.first_entry + e)];
    const SlotRange live = live_slots(entry, s.visibility, t);
    if (entry.rotation != rotation) {
      rotation = entry.rotation;
      turned = rotated(a, s.first_token + i, head, s.first_angle_row + rotation * s.n_tokens + i);
    }
    for (int32_t slot = live.begin; slot < live.end; ++slot) {
      const std::vector<float> key = kv_row(a, a.view().k(entry.page, kv_head, slot, 0));
      const double score =
          a.scale() * std::inner_product(key.begin(), key.end(), turned.begin(), 0.0);
      all[static_cast<size_t>(e)].push_back(score);
      top = std::max(top, score);
    }
  }
  double total = 0;
  for (std::vector<double>& scores : all) {
    for (double& x : scores) total += x = std::exp(x - top);
  }
  if (row != nullptr) row->assign(static_cast<size_t>(dim), 0);
  for (int32_t e = 0; e < s.n_entries; ++e) {
    const BlockEntry& entry = a.tables.entries[static_cast<size_t>(s.first_entry + e)];
    int32_t slot = live_slots(entry, s.visibility, t).begin;
    for (double& x : all[static_cast<size_t>(e)]) {
      x /= total;
      if (row == nullptr) continue;
      const std::vector<float> value = kv_row(a, a.view().v(entry.page, kv_head, slot++, 0));
      for (int32_t d = 0; d < dim; ++d) {
        (*row)[static_cast<size_t>(d)] += x * value[static_cast<size_t>(d)];
      }
    }
  }
  return all;
}

/// A sample of rows of `out`, which a launch on set 0 has just written.
double rows_error(const Attention& a) {
  const std::vector<float> got = a.out.download();
  Deviation deviation;
  std::vector<double> want;
  for (int32_t k = 0; k < 8; ++k) {
    const int32_t token = static_cast<int32_t>(int64_t{k} * (a.tables.n_tokens() - 1) / 7);
    const int32_t head = k * (a.shape.heads - 1) / 7;
    weights(a, token / a.shape.queries, token % a.shape.queries, head, &want);
    const size_t first = static_cast<size_t>(int64_t{token} * a.shape.heads + head) * want.size();
    for (size_t d = 0; d < want.size(); ++d) deviation.add(got[first + d], want[d]);
  }
  return deviation.relative() + finite(got);
}

/// Masses of the first and the last query.
double masses_error(const Attention& a) {
  const std::vector<int64_t> got = a.masses.download();
  Deviation deviation;
  for (const int32_t token : {0, a.tables.n_tokens() - 1}) {
    const int32_t number = token / a.shape.queries;
    const AttentionSequence& s = a.tables.sequences[static_cast<size_t>(number)];
    std::vector<double> want(static_cast<size_t>(s.n_entries));
    for (int32_t head = 0; head < a.shape.heads; ++head) {
      const auto all = weights(a, number, token % a.shape.queries, head, nullptr);
      for (size_t e = 0; e < all.size(); ++e) {
        want[e] += std::accumulate(all[e].begin(), all[e].end(), 0.0);
      }
    }
    const auto first =
        static_cast<size_t>(s.first_mass + int64_t{token % a.shape.queries} * s.n_entries);
    for (size_t e = 0; e < want.size(); ++e) {
      deviation.add(static_cast<double>(got[first + e]) / kMassUnit, want[e]);
    }
  }
  return deviation.relative();
}

/// Bytes of a set's pages.
int64_t set_bytes(const AttentionShape& shape) {
  const Tables one(shape, 1);
  const PageGeometry geometry{shape.kv_heads, shape.block, shape.head_dim, shape.type};
  return one.n_pages * geometry.page_bytes();
}

/// Bytes of one slot's keys.
double key_bytes(const AttentionShape& shape) {
  return 1.0 * shape.head_dim * kv_element_bytes(shape.type) * shape.kv_heads;
}

/// What queries and weights may lose that are rounded to the KV type.
double rounding(const AttentionShape& shape) { return shape.type == DType::kF16 ? 0.002 : 0.01; }

}  // namespace

Scene decode_scene(const AttentionShape& shape, const Turns& turns) {
  Scene scene;
  scene.sets = turns.sets(set_bytes(shape));
  const auto state = std::make_shared<Attention>(shape, scene.sets);
  scene.work = {2 * state->tables.pairs() * key_bytes(shape)};
  scene.room = rounding(shape);
  scene.launch = [state](int set, cuda::Stream stream) {
    return state->decode(set, false, stream);
  };
  scene.error = [state] {
    state->out.set_unwritten();
    return state->decode(0, false, nullptr) == 0 ? rows_error(*state) : kBroken;
  };
  return scene;
}

Scene prefill_scene(const AttentionShape& shape, const Turns& turns) {
  Scene scene;
  scene.sets = turns.sets(set_bytes(shape));
  const auto state = std::make_shared<Attention>(shape, scene.sets);
  scene.work = {4.0 * shape.head_dim * shape.heads * state->tables.pairs(), true};
  scene.room = rounding(shape);
  scene.launch = [state](int set, cuda::Stream stream) {
    return state->prefill(set, false, stream);
  };
  scene.error = [state] {
    state->out.set_unwritten();
    return state->prefill(0, false, nullptr) == 0 ? rows_error(*state) : kBroken;
  };
  return scene;
}

Scene mass_scene(const AttentionShape& shape, const Turns& turns) {
  Scene scene;
  scene.sets = turns.sets(set_bytes(shape));
  const auto state = std::make_shared<Attention>(shape, scene.sets);
  scene.work = {state->tables.pairs() * key_bytes(shape) +
                8.0 * shape.queries * state->tables.set_entries()};
  scene.room = rounding(shape);
  // The denominators of set 0 serve all sets: times do not depend on them.
  const bool one = shape.queries == 1;
  const auto attend = [state, one](int set) {
    return one ? state->decode(set, true, nullptr) : state->prefill(set, true, nullptr);
  };
  const int attended = attend(0);
  scene.launch = [state, attended](int set, cuda::Stream stream) {
    return attended != 0 ? attended : state->mass(set, stream);
  };
  scene.error = [state, attend] {
    state->out.set_unwritten();
    state->lse.set_unwritten();
    state->masses.set_unwritten();
    return attend(0) == 0 && state->mass(0, nullptr) == 0 ? masses_error(*state) : kBroken;
  };
  return scene;
}

}  // namespace paddock::bench
