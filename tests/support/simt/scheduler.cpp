// Launches: blocks one after another, their threads as fibers in an adversarial order.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "support/simt/machine.h"

namespace paddock::simt {

ThreadPlace place;

Machine& machine() {
  static auto* m = new Machine;  // outlives every static buffer
  return *m;
}

namespace {

/// Thrown through the kernel of a thread that failed.
struct Abandoned {};

constexpr int kErrorInvalidConfiguration = 9;  // cudaErrorInvalidConfiguration
constexpr int kErrorLaunchFailure = 719;       // cudaErrorLaunchFailure
constexpr uint16_t kWarpEpochs = 4096;         // as many as ByteShadow tells apart

/// Every thread has met the barrier: on to the next epoch.
void pass_barrier() {
  Machine& m = machine();
  ++m.epoch;
  m.at_barrier = 0;
  for (int i = 0; i < m.n_threads; ++i) {
    if (m.threads[i].state == Thread::State::kAtBarrier) m.threads[i].state = Thread::State::kReady;
  }
}

[[noreturn]] void end_thread() {
  Machine& m = machine();
  this_thread().state = Thread::State::kDone;
  --m.live;
  if (m.live > 0 && m.at_barrier == m.live) pass_barrier();
  for (;;) Fiber::suspend();
}

void thread_main() {
  try {
    (*machine().body)();
  } catch (const Abandoned&) {
  }
  end_thread();
}

/// The order in which threads take turns.
std::vector<int> turns(const Schedule& schedule, int n_threads) {
  std::vector<int> order(static_cast<size_t>(n_threads));
  std::iota(order.begin(), order.end(), 0);
  const int warps = n_threads / kWarpSize;
  const int chosen = static_cast<int>(schedule.seed) % warps;
  switch (schedule.order) {
    case Order::kReverse:
      std::reverse(order.begin(), order.end());
      break;
    case Order::kInterleaved:
      std::sort(order.begin(), order.end(), [](int a, int b) {
        return std::pair(a % kWarpSize, a) < std::pair(b % kWarpSize, b);
      });
      break;
    case Order::kOneWarpAhead:
      std::stable_partition(order.begin(), order.end(),
                            [=](int t) { return t / kWarpSize == chosen; });
      break;
    case Order::kOneWarpBehind:
      std::stable_partition(order.begin(), order.end(),
                            [=](int t) { return t / kWarpSize != chosen; });
      break;
    default:
      break;
  }
  return order;
}

/// The place in `order` of the thread to run next, or -1 if none can.
int next_turn(const std::vector<int>& order, int last) {
  Machine& m = machine();
  const int n = m.n_threads;
  const auto ready = [&](int i) {
    return m.threads[order[static_cast<size_t>(i)]].state == Thread::State::kReady;
  };
  const auto scan = [&](int from, int begin, int end) {
    for (int i = 0; i < end - begin; ++i) {
      const int at = begin + (from - begin + i) % (end - begin);
      if (ready(at)) return at;
    }
    return -1;
  };
  switch (m.schedule.order) {
    case Order::kRandom:
      return scan(static_cast<int>(m.random() % static_cast<uint32_t>(n)), 0, n);
    case Order::kOneWarpAhead: {
      const int ahead = scan(0, 0, kWarpSize);
      return ahead >= 0 ? ahead : scan((last + 1) % n, 0, n);
    }
    case Order::kOneWarpBehind: {
      const int others = n - kWarpSize;
      if (others == 0) return scan((last + 1) % n, 0, n);
      const int other = scan(last + 1 < others ? last + 1 : 0, 0, others);
      return other >= 0 ? other : scan(others, others, n);
    }
    default:
      return scan((last + 1) % n, 0, n);
  }
}

/// Nobody can run: says who waits for what.
void record_deadlock() {
  const Machine& m = machine();
  std::string text = "deadlock:";
  const int ended = m.n_threads - m.live;
  if (ended > 0) text += fmt::format(" {} threads ended;", ended);
  std::vector<std::pair<std::string, std::pair<int, int>>> places;  // what, first thread, count
  for (int i = 0; i < m.n_threads; ++i) {
    const Thread& t = m.threads[i];
    const Warp& w = m.warps[i / kWarpSize];
    std::string what;
    if (t.state == Thread::State::kAtBarrier) {
      what = fmt::format("the barrier '{}' ({})", m.barrier->name, line_of(m.barrier->where));
    } else if (t.state == Thread::State::kAtCollective) {
      what = fmt::format("{} of warp {} ({})", w.operation, i / kWarpSize, line_of(w.where));
    } else {
      continue;
    }
    if (places.empty() || places.back().first != what) places.push_back({what, {i, 0}});
    ++places.back().second.second;
  }
  for (size_t i = 0; i < places.size() && i < 8; ++i) {
    text += fmt::format(" {} from thread {} wait at {};", places[i].second.second,
                        places[i].second.first, places[i].first);
  }
  text.pop_back();
  record(Fault::kDeadlock, -1, {"", 0}, std::move(text));
}

void run_block(const std::vector<int>& order, size_t dynamic_shared) {
  Machine& m = machine();
  start_block_memory(dynamic_shared);
  m.live = m.n_threads;
  m.at_barrier = 0;
  while (m.fibers.size() < static_cast<size_t>(m.n_threads)) {
    m.fibers.push_back(std::make_unique<Fiber>());
  }
  for (int i = 0; i < m.n_threads; ++i) {
    m.threads[i].state = Thread::State::kReady;
    m.threads[i].groups = 0;
    m.threads[i].copies.clear();
    m.fibers[static_cast<size_t>(i)]->start(thread_main);
  }
  for (Warp& w : m.warps) w.arrived = 0;
  int turn = -1;
  while (m.live > 0 && !m.failed) {
    turn = next_turn(order, turn);
    if (turn < 0) {
      record_deadlock();
      break;
    }
    place.thread = order[static_cast<size_t>(turn)];
    m.fibers[static_cast<size_t>(place.thread)]->resume();
  }
  place.thread = -1;
}

bool launchable(Grid grid, int block, size_t dynamic_shared) {
  const auto refuse = [](std::string text) {
    record(Fault::kLaunch, -1, {"", 0}, std::move(text));
    return false;
  };
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7FFFFFFFU || grid.y > 65535 ||
      grid.z > 65535) {
    return refuse(fmt::format("launch: a grid of {} x {} x {} blocks", grid.x, grid.y, grid.z));
  }
  if (block <= 0 || block > kMaxThreads || block % kWarpSize != 0) {
    return refuse(fmt::format("launch: {} threads per block; 32 to 1024 in whole warps", block));
  }
  if (dynamic_shared > kMaxDynamicShared) {
    return refuse(fmt::format("launch: {} bytes of dynamic shared memory; at most {}",
                              dynamic_shared, kMaxDynamicShared));
  }
  return true;
}

}  // namespace

std::string line_of(Where where) {
  const std::string file = where.file;
  return fmt::format("{}:{}", file.substr(file.find_last_of('/') + 1), where.line);
}

void record(Fault fault, int thread, Where where, std::string text) {
  Machine& m = machine();
  const Grid b = place.block;
  std::string all = fmt::format("kernel {}, block ({}, {}, {})", m.kernel, b.x, b.y, b.z);
  if (thread >= 0)
    all += fmt::format(", thread {} (warp {}, lane {})", thread, thread / 32, thread % 32);
  if (where.line > 0) all += fmt::format(", {}", line_of(where));
  all += ": " + text + fmt::format(" [schedule {}]", to_string(m.schedule));
  m.reports.push_back({fault, m.kernel, b, thread, where.file, where.line, std::move(all)});
  m.failed = true;
}

void fail(Fault fault, Where where, std::string text) {
  record(fault, place.thread, where, std::move(text));
  throw Abandoned{};
}

void pause() { Fiber::suspend(); }

void step(bool may_pause) {
  Machine& m = machine();
  if (++m.steps > m.step_limit) {
    fail(Fault::kEndless, {"", 0}, fmt::format("no end after {} steps", m.step_limit));
  }
  if (may_pause && m.schedule.order == Order::kRandom && m.random() % 16 == 0) pause();
}

void sync_block(const Site& site) {
  step(false);
  Machine& m = machine();
  if (m.at_barrier == 0) {
    m.barrier = &site;
  } else if (m.barrier->where.line != site.where.line) {
    fail(Fault::kDivergence, site.where,
         fmt::format("at the barrier '{}' while others wait at '{}' ({})", site.name,
                     m.barrier->name, line_of(m.barrier->where)));
  }
  this_thread().state = Thread::State::kAtBarrier;
  if (++m.at_barrier == m.live) {
    pass_barrier();
    if (m.schedule.order != Order::kRandom) return;
  }
  pause();
}

void sync_warp(const Site& site) {
  int unused = 0;
  collective(
      "the warp barrier", &unused,
      [](void**) {
        Warp& w = this_warp();
        w.epoch = static_cast<uint16_t>((w.epoch + 1) % kWarpEpochs);
      },
      site.where);
}

void fence() {
  step(false);
  BlockRecord& block = machine().blocks.back();
  block.fenced = machine().epoch;
  block.acquired = block.atomic;
}

void collective(const char* name, void* operand, void (*combine)(void** operands), Where where) {
  step(false);
  Machine& m = machine();
  Warp& w = this_warp();
  if (w.arrived == 0) {
    w.operation = name;
    w.where = where;
  } else if (w.where.line != where.line || std::strcmp(w.operation, name) != 0) {
    fail(
        Fault::kDivergence, where,
        fmt::format("at {} while other lanes are at {} ({})", name, w.operation, line_of(w.where)));
  }
  w.operands[place.thread % kWarpSize] = operand;
  if (++w.arrived < kWarpSize) {
    this_thread().state = Thread::State::kAtCollective;
    pause();
    return;
  }
  combine(w.operands);
  w.arrived = 0;
  const int first = place.thread / kWarpSize * kWarpSize;
  for (int i = first; i < first + kWarpSize; ++i) m.threads[i].state = Thread::State::kReady;
  if (m.schedule.order == Order::kRandom) pause();
}

int run_grid(const char* kernel, Grid grid, int block, size_t dynamic_shared,
             const std::function<void()>& body) {
  Machine& m = machine();
  m.kernel = kernel;
  place = {-1, block, {0, 0, 0}, grid};
  m.failed = false;
  if (!launchable(grid, block, dynamic_shared)) return kErrorInvalidConfiguration;
  install_fault_handler();
  m.body = &body;
  m.n_threads = block;
  m.steps = 0;
  m.blocks.clear();
  m.launch_epoch = ++m.epoch;
  m.random.seed(m.schedule.seed);
  m.shared.clear();
  const std::vector<int> order = turns(m.schedule, block);
  const uint64_t n_blocks = uint64_t{grid.x} * grid.y * grid.z;
  std::vector<uint64_t> blocks(n_blocks);
  std::iota(blocks.begin(), blocks.end(), uint64_t{0});
  if (m.schedule.order == Order::kReverse) std::reverse(blocks.begin(), blocks.end());
  if (m.schedule.order == Order::kRandom) std::shuffle(blocks.begin(), blocks.end(), m.random);
  m.running = true;
  for (const uint64_t b : blocks) {
    place.block = {static_cast<uint32_t>(b % grid.x), static_cast<uint32_t>(b / grid.x % grid.y),
                   static_cast<uint32_t>(b / grid.x / grid.y)};
    m.block_epoch = ++m.epoch;
    m.blocks.push_back({.first_epoch = m.epoch, .block = place.block});
    run_block(order, dynamic_shared);
    if (m.failed) break;
  }
  m.running = false;
  ++m.epoch;
  m.launch_epoch = m.epoch;
  return m.failed ? kErrorLaunchFailure : 0;
}

}  // namespace paddock::simt
