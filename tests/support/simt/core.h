// What kernels compiled for the harness call; device_host.h wraps it in the names of device.h.
// Include cuda/device.h instead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace paddock::simt {

/// A line of a kernel, for reports.
struct Where {
  const char* file;
  int line;
};

enum class SiteKind : uint8_t { kBarrier, kWarpBarrier, kFence, kCopyWait, kBoundsCheck };

/// A barrier, wait or bounds check in the source of a kernel; a static object there.
struct Site {
  SiteKind kind;
  const char* name;
  Where where;
  bool known = false;    // has been met by a thread
  bool skipped = false;  // switched off by set_mutant
};
/// Notes that the site was met; true if it is to be skipped.
bool meet(Site& site);

enum class Access : uint8_t { kRead, kReadConst, kWrite, kAtomic };
/// Checks an access of the running thread and returns where the bytes really are. Does not return
/// if the access is wrong: the launch ends with a report.
std::byte* access(const void* address, size_t bytes, size_t alignment, Access kind, Where where);

struct ThreadPlace {
  int thread = 0;
  int block_size = 0;
  Grid block{0, 0, 0};
  Grid grid;
};
extern ThreadPlace place;  // of the running thread

void sync_block(const Site& site);
void sync_warp(const Site& site);
void fence();

/// Waits until all 32 lanes are here with an operand each; then one of them runs `combine`.
void collective(const char* name, void* operand, void (*combine)(void** operands), Where where);

void* static_shared(const void* key, size_t bytes, const char* name, Where where);
void* dynamic_shared_base();

void copy_async(void* shared, const void* global, int bytes, Where where);
void copy_async_commit();
void copy_async_wait(int groups, Where where);

struct MmaOperand {
  float* d;           // [4]
  const uint32_t* a;  // [4]
  const uint32_t* b;  // [2]
};
void mma_bf16(void** operands);
void mma_f16(void** operands);
struct MatrixOperand {
  const std::byte* row;  // real memory; null where the lane gives no row
  uint32_t* r;           // [n_matrices]
};
void load_matrices(void** operands, int n_matrices, bool transposed);

/// Where launches go instead of running, if anywhere (harness.h).
extern std::vector<std::function<int()>>* recorder;

/// Runs every block; 0 or the number of a CUDA error, with a report recorded.
int run_grid(const char* kernel, Grid grid, int block, size_t dynamic_shared,
             const std::function<void()>& body);

}  // namespace paddock::simt
