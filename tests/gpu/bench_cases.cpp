// What gpu_bench measures: shapes of Llama 3 models of 1B and 8B parameters.
#include <fmt/format.h>

#include "gpu/scene.h"
#include "support/random_blocks.h"

namespace paddock::bench {
namespace {

const char* name(DType type) { return dtype_traits(type).name; }

/// Activations of a few tokens are in L2 when a kernel meets them; only launches are measured
/// there.
Turns few_sets(Turns turns) {
  turns.most_sets = 8;
  return turns;
}

class List {
 public:
  explicit List(Dense dense) : dense_(std::move(dense)) {}

  std::vector<Case> all() {
    add_decode();
    add_prefill();
    add_masses();
    add_products();
    add_expansions();
    add_small();
    return std::move(cases_);
  }

 private:
  template <typename Make>
  void add(const char* kernel, std::string shape, bool headline, Make make) {
    cases_.push_back({kernel, std::move(shape), headline, std::move(make)});
  }

  static std::string words(const AttentionShape& s) {
    std::string text = fmt::format("{}/{}/{} {} ", s.heads, s.kv_heads, s.head_dim, name(s.type));
    if (s.queries == 1) {
      text += fmt::format("{}x{}", s.sequences, s.context);
    } else {
      if (s.sequences > 1) text += fmt::format("{} x ", s.sequences);
      text += fmt::format("{} tokens", s.queries);
      if (s.context > s.queries) text += fmt::format(" after {}", s.context - s.queries);
    }
    if (s.visibility.sinks > 0) {
      text += fmt::format(" sink:{}+{}", s.visibility.sinks, s.visibility.window);
    }
    if (s.block != 16) text += fmt::format(" blocks of {}", s.block);
    return text;
  }
  void decode(const AttentionShape& s, bool headline) {
    add("decode_attention", words(s), headline,
        [s](const Turns& turns) { return decode_scene(s, turns); });
  }
  void prefill(const AttentionShape& s, bool headline) {
    add("prefill_attention", words(s), headline,
        [s](const Turns& turns) { return prefill_scene(s, turns); });
  }

  void add_decode() {
    struct Batch {
      int32_t sequences, context;
    };
    for (const int32_t dim : {128, 64}) {
      for (const DType type : {DType::kBF16, DType::kF16}) {
        for (const Batch& b : {Batch{1, 1024}, Batch{1, 2048}, Batch{1, 4096}, Batch{1, 32768},
                               Batch{8, 4096}, Batch{32, 4096}, Batch{64, 512}}) {
          decode({32, 8, dim, 16, type, b.sequences, b.context}, type == DType::kBF16);
        }
      }
    }
    const Visibility sinks{4, 1020};
    for (const int32_t sequences : {1, 32}) {
      decode({32, 8, 128, 16, DType::kBF16, sequences, 8192, 1, sinks}, true);
    }
    for (const int32_t block : {8, 64}) {
      for (const int32_t sequences : {1, 8}) {
        decode({32, 8, 128, block, DType::kBF16, sequences, 4096}, sequences == 8);
      }
    }
  }

  void add_prefill() {
    for (const int32_t dim : {128, 64}) {
      for (const int32_t tokens : {512, 2048, 8192}) {
        prefill({32, 8, dim, 16, DType::kBF16, 1, tokens, tokens}, true);
      }
      prefill({32, 8, dim, 16, DType::kBF16, 1, 8192 + 512, 512}, true);
      prefill({32, 8, dim, 16, DType::kF16, 1, 2048, 2048}, false);
    }
    prefill({32, 8, 128, 16, DType::kBF16, 1, 8192 + 512, 512, {4, 1020}}, false);
    prefill({32, 8, 128, 16, DType::kBF16, 8, 512, 512}, false);
  }

  void add_masses() {
    for (const AttentionShape& s : {AttentionShape{32, 8, 128, 16, DType::kBF16, 1, 4096},
                                    AttentionShape{32, 8, 128, 16, DType::kBF16, 32, 4096},
                                    AttentionShape{32, 8, 128, 16, DType::kBF16, 1, 2048, 512},
                                    AttentionShape{32, 8, 64, 16, DType::kBF16, 32, 4096}}) {
      add("attention_mass", words(s), true,
          [s](const Turns& turns) { return mass_scene(s, turns); });
    }
  }

  void add_products() {
    struct Matrix {
      int64_t rows, cols;
    };
    for (const Matrix& m : {Matrix{4096, 4096}, Matrix{14336, 4096}, Matrix{4096, 14336},
                            Matrix{2048, 2048}, Matrix{8192, 2048}}) {
      for (const int32_t tokens : {1, 8, 16, 32, 64}) {
        const std::string shape = fmt::format("{}x{} by {} tokens", m.rows, m.cols, tokens);
        const bool headline = m.rows == 14336 && (tokens == 1 || tokens == 8 || tokens == 32);
        for (const DType type : kDTypes) {
          const MatrixShape s{type, m.rows, m.cols, tokens};
          if (cuda::tensor_gemv_supports(type, m.cols)) {
            add("tensor_gemv", fmt::format("{} {}", name(type), shape), headline,
                [s](const Turns& turns) { return tensor_gemv_scene(s, turns); });
          }
          if (!cuda::gemv_supports(type) || tokens > cuda::kMaxGemvTokens) continue;
          add("gemv", fmt::format("{} {}", name(type), shape),
              headline || (type == DType::kBF16 && tokens == 1),
              [s](const Turns& turns) { return gemv_scene(s, turns); });
        }
        add_dense({DType::kBF16, m.rows, m.cols, tokens}, headline || tokens == 1);
      }
    }
    for (const int32_t tokens : {512, 2048}) {
      add_dense({DType::kBF16, 14336, 4096, tokens}, true);
    }
  }
  void add_dense(const MatrixShape& s, bool headline) {
    if (!dense_) return;
    add("cublas", fmt::format("{} {}x{} by {} tokens", name(s.type), s.rows, s.cols, s.tokens),
        headline, [s, dense = dense_](const Turns& turns) { return dense_scene(s, dense, turns); });
  }

  void add_expansions() {
    for (const DType type : kDTypes) {
      const MatrixShape s{type, 4096, 4096};
      const bool headline = type == DType::kQ4_0 || type == DType::kQ8_0 || type == DType::kQ4_K;
      add("dequantize", fmt::format("{} 4096x4096 to BF16", name(type)), headline,
          [s](const Turns& turns) { return dequantize_scene(s, turns); });
    }
    for (const int32_t tokens : {1, 512}) {
      for (const DType type : {DType::kBF16, DType::kQ4_0}) {
        const MatrixShape s{type, 128256, 2048, tokens};
        add("embed", fmt::format("{} 2048 by {} tokens", name(type), tokens), false,
            [s](const Turns& turns) { return embed_scene(s, few_sets(turns)); });
      }
    }
  }

  void add_small() {
    for (const int32_t tokens : {1, 32, 2048}) {
      const bool large = tokens > 32;
      const auto as_is = [large](const Turns& r) { return large ? r : few_sets(r); };
      const auto shape = [tokens](int64_t cols) {
        return fmt::format("{} by {} tokens", cols, tokens);
      };
      add("rms_norm", shape(4096), large,
          [=](const Turns& r) { return rms_norm_scene(tokens, 4096, as_is(r)); });
      add("swiglu", shape(14336), large,
          [=](const Turns& r) { return swiglu_scene(tokens, 14336, as_is(r)); });
      add("to_bf16", shape(4096), large,
          [=](const Turns& r) { return to_bf16_scene(tokens, 4096, as_is(r)); });
      add("rope_store", fmt::format("8x128 BF16 by {} tokens", tokens), large, [=](const Turns& r) {
        return rope_store_scene(tokens, {8, 16, 128, DType::kBF16}, !large, as_is(r));
      });
      add("angles", fmt::format("64 by {} rows", tokens), large,
          [=](const Turns& r) { return angles_scene(tokens, 64, few_sets(r)); });
    }
    struct Way {
      const char* name;
      SampleRow how;
    };
    for (const Way& way :
         {Way{"greedy", {0, 0, 1, 0, 1, 1}}, Way{"temperature", {1, 0, 1, 0, 1, 1}},
          Way{"top_k 40 top_p 0.95", {1, 40, 0.95F, 0.05F, 1, 1}}}) {
      for (const int32_t rows : {1, 32}) {
        add("sample", fmt::format("{} x 128256 {}", rows, way.name), rows == 32,
            [=, how = way.how](const Turns& r) { return sample_scene(rows, 128256, how, r); });
      }
    }
    for (const int64_t changes : {64, 65536}) {
      add("change_tables", fmt::format("{} of 2^20", changes), false,
          [=](const Turns& r) { return change_tables_scene(changes, 1 << 20, few_sets(r)); });
    }
  }

  Dense dense_;
  std::vector<Case> cases_;
};

}  // namespace

std::vector<Case> all_cases(const Dense& dense) { return List(dense).all(); }

}  // namespace paddock::bench
