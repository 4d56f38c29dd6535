// A number per layer (nanoseconds, overflows), added to by the thread that drives a backend and
// read from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace paddock {

class LayerCounters {
 public:
  /// Before the first reader; a later call with the same number changes nothing.
  void resize(size_t n_layers) {
    if (n_layers == size_) return;
    counts_ = std::make_unique<std::atomic<int64_t>[]>(n_layers);
    size_ = n_layers;
  }
  void add(int32_t layer, int64_t n) { counts_[layer].fetch_add(n, std::memory_order_relaxed); }
  int64_t read(int32_t layer) const { return counts_[layer].load(std::memory_order_relaxed); }

 private:
  std::unique_ptr<std::atomic<int64_t>[]> counts_;
  size_t size_ = 0;
};

}  // namespace paddock
