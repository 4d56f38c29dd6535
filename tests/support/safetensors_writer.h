// A safetensors file of float32 tensors, made one after the other.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace paddock::test {

class SafetensorsWriter {
 public:
  void add(const std::string& name, const std::vector<int32_t>& dims,
           std::span<const float> values) {
    const size_t begin = data_.size();
    data_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
    header_ +=
        fmt::format(R"({}"{}":{{"dtype":"F32","shape":[{}],"data_offsets":[{},{}]}})",
                    header_.empty() ? "" : ",", name, fmt::join(dims, ","), begin, data_.size());
  }
  /// The whole file.
  std::string text() const {
    std::string header = "{" + header_ + "}";
    header.append((8 - header.size() % 8) % 8, ' ');
    std::string length(8, '\0');
    for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i) & 0xFF);
    return length + header + data_;
  }

 private:
  std::string header_, data_;
};

}  // namespace paddock::test
