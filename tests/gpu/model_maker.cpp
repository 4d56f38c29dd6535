#include "gpu/model_maker.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <vector>

#include "core/checked.h"
#include "half.h"
#include "io/gguf.h"
#include "io/mapped_file.h"
#include "support/random_blocks.h"

namespace paddock::bench {
namespace {

constexpr uint64_t kAlignment = 32;
constexpr uint64_t kChunk = uint64_t{4} << 20;  // about so many bytes are made at a time
// GGUF's value types.
constexpr uint32_t kU32 = 4, kI32 = 5, kF32 = 6, kString = 8, kU64 = 10, kI64 = 11;

template <typename T>
void put(std::string& to, T value) {
  char raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof(T));
  to.append(raw, sizeof(T));
}
void put_text(std::string& to, std::string_view text) {
  put(to, uint64_t{text.size()});
  to += text;
}

class Metadata {
 public:
  void text(std::string_view key, std::string_view value) {
    begin(key, kString);
    put_text(bytes, value);
  }
  void number(std::string_view key, uint32_t value) {
    begin(key, kU32);
    put(bytes, value);
  }
  void real(std::string_view key, float value) {
    begin(key, kF32);
    put(bytes, value);
  }
  std::string bytes;
  uint64_t count = 0;

 private:
  void begin(std::string_view key, uint32_t type) {
    put_text(bytes, key);
    put(bytes, type);
    ++count;
  }
};

struct Tensor {
  std::string name;
  DType type;
  int64_t rows, cols;  // a vector has one row
  uint64_t offset = 0;
  uint64_t bytes() const { return static_cast<uint64_t>(rows * row_bytes(type, cols)); }
};

std::vector<Tensor> tensors_of(const ModelShape& s, DType type) {
  std::vector<Tensor> all;
  const int64_t hidden = s.hidden_size;
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    all.push_back({name, type, rows, cols});
  };
  const auto norm = [&](const std::string& name) { all.push_back({name, DType::kF32, 1, hidden}); };
  matrix("token_embd.weight", s.vocab_size, hidden);
  for (uint32_t i = 0; i < s.n_layers; ++i) {
    const std::string layer = fmt::format("blk.{}.", i);
    const int64_t q_rows = int64_t{s.n_heads} * s.head_dim;
    const int64_t kv_rows = int64_t{s.n_kv_heads} * s.head_dim;
    norm(layer + "attn_norm.weight");
    matrix(layer + "attn_q.weight", q_rows, hidden);
    matrix(layer + "attn_k.weight", kv_rows, hidden);
    matrix(layer + "attn_v.weight", kv_rows, hidden);
    matrix(layer + "attn_output.weight", hidden, q_rows);
    norm(layer + "ffn_norm.weight");
    matrix(layer + "ffn_gate.weight", s.intermediate_size, hidden);
    matrix(layer + "ffn_up.weight", s.intermediate_size, hidden);
    matrix(layer + "ffn_down.weight", hidden, s.intermediate_size);
  }
  norm("output_norm.weight");
  if (!s.tied) matrix("output.weight", s.vocab_size, hidden);
  uint64_t offset = 0;
  for (Tensor& t : all) {
    t.offset = offset;
    offset = round_up(offset + t.bytes(), kAlignment);
  }
  return all;
}

std::string header_of(const ModelShape& s, const std::vector<Tensor>& tensors) {
  Metadata metadata;
  metadata.text("general.architecture", "llama");
  metadata.text("general.name", "random weights");
  metadata.number("llama.block_count", s.n_layers);
  metadata.number("llama.embedding_length", s.hidden_size);
  metadata.number("llama.feed_forward_length", s.intermediate_size);
  metadata.number("llama.attention.head_count", s.n_heads);
  metadata.number("llama.attention.head_count_kv", s.n_kv_heads);
  metadata.number("llama.attention.key_length", s.head_dim);
  metadata.number("llama.context_length", 131072);
  metadata.real("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  metadata.real("llama.rope.freq_base", 250000.0F);  // Llama 3's own would call for rope_freqs
  std::string header = "GGUF";
  put(header, uint32_t{3});
  put(header, uint64_t{tensors.size()});
  put(header, metadata.count);
  header += metadata.bytes;
  for (const Tensor& t : tensors) {
    put_text(header, t.name);
    put(header, t.type == DType::kF32 && t.rows == 1 ? uint32_t{1} : uint32_t{2});
    put(header, static_cast<uint64_t>(t.cols));
    if (t.rows != 1) put(header, static_cast<uint64_t>(t.rows));
    put(header, static_cast<uint32_t>(t.type));
    put(header, t.offset);
  }
  header.resize(round_up(header.size(), kAlignment));
  return header;
}

/// splitmix64 (Steele, Lea and Flood): one number after the other from a counter.
struct Counter {
  uint64_t state;
  uint64_t next() {
    uint64_t x = state += 0x9E3779B97F4A7C15U;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31);
  }
  float uniform() { return static_cast<float>(next() >> 40) * 0x1p-23F - 1; }
};

/// Whole blocks of weights of about `size`, at most; norms are ones.
void fill(const Tensor& tensor, uint64_t seed, std::vector<uint8_t>& bytes) {
  const float size = 1.5F / std::sqrt(static_cast<float>(tensor.cols));
  Counter random{seed};
  if (tensor.rows == 1) {
    const float one = 1;
    for (size_t at = 0; at < bytes.size(); at += 4) std::memcpy(&bytes[at], &one, 4);
    return;
  }
  if (tensor.type == DType::kF32) {
    for (size_t at = 0; at < bytes.size(); at += 4) {
      const float value = size * random.uniform();
      std::memcpy(&bytes[at], &value, 4);
    }
    return;
  }
  size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    const uint64_t x = random.next();
    std::memcpy(&bytes[at], &x, 8);
  }
  for (; at < bytes.size(); ++at) bytes[at] = static_cast<uint8_t>(random.next());
  const auto block_bytes = static_cast<size_t>(dtype_traits(tensor.type).block_bytes);
  const test::HalfFields fields = test::half_fields(tensor.type);
  const auto put_half = [&](size_t to, uint16_t half) { std::memcpy(&bytes[to], &half, 2); };
  if (dtype_traits(tensor.type).block_values == 1) {
    for (at = 0; at < bytes.size(); at += 2) {
      int16_t drawn = 0;
      std::memcpy(&drawn, &bytes[at], 2);
      const float value = size * 0x1p-15F * static_cast<float>(drawn);
      put_half(at, tensor.type == DType::kF16 ? f32_to_f16(value) : f32_to_bf16(value));
    }
    return;
  }
  for (at = 0; at < bytes.size(); at += block_bytes) {
    const float d = size * test::unit_scale(tensor.type) * (0.5F + 0.5F * random.uniform());
    put_half(at + static_cast<size_t>(fields.d), f32_to_f16(d));
    if (fields.m >= 0) {
      put_half(at + static_cast<size_t>(fields.m), f32_to_f16(8 * d * random.uniform()));
    }
  }
}

struct OpenFile {
  explicit OpenFile(const std::string& path)
      : name(path), fd(open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644)) {
    if (fd < 0) refuse();
  }
  ~OpenFile() {
    if (fd >= 0) close(fd);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  void write_at(uint64_t offset, const void* from, size_t n) const {
    const char* at = static_cast<const char*>(from);
    while (n > 0) {
      const ssize_t written = pwrite(fd, at, n, static_cast<off_t>(offset));
      if (written <= 0) refuse();
      at += written;
      offset += static_cast<uint64_t>(written);
      n -= static_cast<size_t>(written);
    }
  }
  [[noreturn]] void refuse() const {
    throw std::runtime_error(fmt::format("cannot write {}: {}", name, std::strerror(errno)));
  }

  std::string name;
  int fd;
};

/// The layer that a tensor "blk.N.…" belongs to, or -1.
int32_t layer_of(std::string_view name) {
  if (!name.starts_with("blk.")) return -1;
  int32_t layer = -1;
  std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return layer;
}

/// Sets an integer of a header's copy, in the type it has.
void patch_integer(std::string& copy, const char* begin, std::string_view key, uint64_t value) {
  const auto at = static_cast<size_t>(key.data() - begin) + key.size();
  uint32_t type = 0;
  std::memcpy(&type, copy.data() + at, sizeof(type));
  size_t n = 0;
  if (type == kU32 || type == kI32) n = 4;
  if (type == kU64 || type == kI64) n = 8;
  if (n == 0) throw std::runtime_error(fmt::format("{} has the value type {}", key, type));
  std::memcpy(copy.data() + at + sizeof(type), &value, n);
}

}  // namespace

ModelShape shape_named(const std::string& name) {
  if (name == "1B") return {16, 2048, 8192, 32, 8, 64, 128256, true};
  if (name == "8B") return {32, 4096, 14336, 32, 8, 128, 128256, false};
  if (name == "tiny") return {2, 256, 512, 8, 2, 32, 512, false};
  throw std::runtime_error(fmt::format("'{}' is no shape; there are 1B, 8B and tiny", name));
}

void make_model(const std::string& path, const ModelShape& shape, DType type, uint64_t seed) {
  const std::vector<Tensor> tensors = tensors_of(shape, type);
  const std::string header = header_of(shape, tensors);
  struct Part {
    const Tensor* tensor;
    uint64_t first, bytes;  // in the tensor
  };
  std::vector<Part> parts;
  for (const Tensor& t : tensors) {
    const auto block = static_cast<uint64_t>(dtype_traits(t.type).block_bytes);
    const uint64_t most = kChunk / block * block;
    for (uint64_t first = 0; first < t.bytes(); first += most) {
      parts.push_back({&t, first, std::min(most, t.bytes() - first)});
    }
  }
  const OpenFile file(path);
  file.write_at(0, header.data(), header.size());
  std::atomic<size_t> next = 0;
  std::atomic<int> failure = 0;  // an errno
  const auto work = [&] {
    std::vector<uint8_t> bytes;
    for (size_t i = next++; i < parts.size() && failure == 0; i = next++) {
      const Part& part = parts[i];
      bytes.resize(part.bytes);
      fill(*part.tensor, seed * 0x2545F4914F6CDD1DU + (i << 32), bytes);
      try {
        file.write_at(header.size() + part.tensor->offset + part.first, bytes.data(), bytes.size());
      } catch (const std::exception&) {
        failure = errno;
      }
    }
  };
  std::vector<std::thread> threads(std::clamp(std::thread::hardware_concurrency(), 1U, 32U));
  for (std::thread& t : threads) t = std::thread(work);
  for (std::thread& t : threads) t.join();
  errno = failure;
  if (failure != 0) file.refuse();
}

void truncate_model(const std::string& from, int32_t n_layers, const std::string& to,
                    uint64_t n_tokens) {
  const MappedFile file(from);
  const gguf::Header header = gguf::parse(file.bytes());
  const auto* begin = reinterpret_cast<const char*>(file.bytes().data());
  if (header.tensors.empty()) throw std::runtime_error(from + " has no tensors");
  const auto metadata_end =
      static_cast<size_t>(header.tensors[0].name.data() - begin) - sizeof(uint64_t);
  std::string copy(begin, metadata_end);
  bool found = false;
  for (const auto& [key, value] : header.metadata) {
    if (key == "split.count") throw std::runtime_error(from + " is a part of a split model");
    if (key != "llama.block_count") continue;
    patch_integer(copy, begin, key, static_cast<uint64_t>(n_layers));
    found = true;
  }
  if (!found) throw std::runtime_error(from + " has no llama.block_count");

  struct Kept {
    const gguf::TensorInfo* info;
    uint64_t bytes;  // its first so many
  };
  std::vector<Kept> kept;
  uint64_t offset = 0;
  int32_t last_layer = -1;
  for (const gguf::TensorInfo& info : header.tensors) {
    last_layer = std::max(last_layer, layer_of(info.name));
    if (layer_of(info.name) >= n_layers) continue;
    // Name, number of dimensions, dimensions and type as they are; then the offset.
    const char* at = info.name.data() - sizeof(uint64_t);
    const uint64_t to_dims = sizeof(uint64_t) + info.name.size() + sizeof(uint32_t);
    const size_t begin_of_copy = copy.size();
    copy.append(at, to_dims + sizeof(uint64_t) * info.dims.size() + sizeof(uint32_t));
    kept.push_back({&info, info.bytes});
    const bool by_token = info.name == "token_embd.weight" || info.name == "output.weight";
    if (by_token && n_tokens > 0 && info.dims.size() == 2 && n_tokens < info.dims[1]) {
      kept.back().bytes = info.bytes / info.dims[1] * n_tokens;
      std::memcpy(copy.data() + begin_of_copy + to_dims + sizeof(uint64_t), &n_tokens,
                  sizeof(n_tokens));
    }
    put(copy, offset);
    offset = round_up(offset + kept.back().bytes, header.alignment);
  }
  if (n_layers < 1 || n_layers > last_layer + 1) {
    throw std::runtime_error(
        fmt::format("{} has {} layers, not {}", from, last_layer + 1, n_layers));
  }
  const uint64_t n_kept = kept.size();
  std::memcpy(copy.data() + 8, &n_kept, sizeof(n_kept));  // after magic and version

  std::ofstream out(to, std::ios::binary);
  const auto pad = [&] {
    copy.resize(round_up(copy.size(), header.alignment));
    out << copy;
    copy.clear();
  };
  pad();
  for (const auto& [info, bytes] : kept) {
    copy.assign(begin + header.data_offset + info->offset, bytes);
    pad();
  }
  out.close();
  if (!out) throw std::runtime_error("cannot write " + to);
}

}  // namespace paddock::bench
