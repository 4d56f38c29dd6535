// Writes GGUF files that hold metadata, and tensors of zeros where a test wants some.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "support/small_tokenizer.h"

namespace paddock::test {

class VocabularyGguf {
 public:
  VocabularyGguf& text(const std::string& key, const std::string& value) {
    begin(key, 8);
    put_string(value);
    return *this;
  }
  VocabularyGguf& uint32(const std::string& key, uint32_t value) {
    begin(key, 4);
    put(value);
    return *this;
  }
  VocabularyGguf& float32(const std::string& key, float value) {
    begin(key, 6);
    put(value);
    return *this;
  }
  VocabularyGguf& boolean(const std::string& key, bool value) {
    begin(key, 7);
    put(static_cast<uint8_t>(value));
    return *this;
  }
  VocabularyGguf& texts(const std::string& key, const std::vector<std::string>& values) {
    begin(key, 9);
    put(uint32_t{8});
    put(uint64_t{values.size()});
    for (const std::string& value : values) put_string(value);
    return *this;
  }
  VocabularyGguf& int32s(const std::string& key, const std::vector<int32_t>& values) {
    begin(key, 9);
    put(uint32_t{5});
    put(uint64_t{values.size()});
    for (const int32_t value : values) put(value);
    return *this;
  }

  /// F32, `dims` in GGUF's order, all of one value.
  VocabularyGguf& tensor(const std::string& name, const std::vector<uint64_t>& dims,
                         float value = 0) {
    tensors_.push_back({name, dims, value});
    return *this;
  }

  std::string bytes() const {
    VocabularyGguf head;
    head.body_ = "GGUF";
    head.put(uint32_t{3});
    head.put(uint64_t{tensors_.size()});
    head.put(uint64_t{n_keys_});
    head.body_ += body_;
    VocabularyGguf data;
    for (const Tensor& tensor : tensors_) {
      head.put_string(tensor.name);
      head.put(static_cast<uint32_t>(tensor.dims.size()));
      uint64_t values = 1;
      for (const uint64_t dim : tensor.dims) {
        head.put(dim);
        values *= dim;
      }
      head.put(uint32_t{0});
      head.put(uint64_t{data.body_.size()});
      for (uint64_t i = 0; i < values; ++i) data.put(tensor.value);
      data.body_.resize((data.body_.size() + 31) / 32 * 32);
    }
    head.body_.resize((head.body_.size() + 31) / 32 * 32);
    return head.body_ + data.body_;
  }

 private:
  template <typename T>
  void put(T value) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    body_.append(raw, sizeof(T));
  }
  void put_string(const std::string& value) {
    put(uint64_t{value.size()});
    body_ += value;
  }
  void begin(const std::string& key, uint32_t type) {
    put_string(key);
    put(type);
    ++n_keys_;
  }

  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;
    float value;
  };
  std::string body_;
  uint64_t n_keys_ = 0;
  std::vector<Tensor> tensors_;
};

/// What a GGUF file says about the small tokenizer. Tests change it before they write it.
struct SmallGguf {
  std::string model = "gpt2", pre = "llama-bpe";
  std::vector<std::string> tokens, merges;
  std::vector<int32_t> types;
  uint32_t bos = 0, eos = 0;

  SmallGguf() {
    for (int b = 0; b < 256; ++b) add(alphabet_from_bytes(std::string(1, static_cast<char>(b))), 1);
    for (const auto& [left, right] : kSmallMerges) {
      if ((left[0] & 0x80) != 0) continue;  // its left side is no token here
      add(alphabet_from_bytes(left + right), 1);
      merges.push_back(alphabet_from_bytes(left) + " " + alphabet_from_bytes(right));
    }
    bos = static_cast<uint32_t>(tokens.size());
    eos = bos + 1;
    for (const std::string& text : kSmallSpecials) add(text, 3);
    add("<tool>", 4);
  }
  void add(const std::string& text, int32_t type) {
    tokens.push_back(text);
    types.push_back(type);
  }
  VocabularyGguf file() const {
    VocabularyGguf file;
    file.text("tokenizer.ggml.model", model)
        .texts("tokenizer.ggml.tokens", tokens)
        .int32s("tokenizer.ggml.token_type", types)
        .texts("tokenizer.ggml.merges", merges)
        .uint32("tokenizer.ggml.bos_token_id", bos)
        .uint32("tokenizer.ggml.eos_token_id", eos);
    if (!pre.empty()) file.text("tokenizer.ggml.pre", pre);
    return file;
  }
};

}  // namespace paddock::test
