#include "core/system.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <set>
#include <thread>

namespace paddock {
namespace {

/// What a file of the kernel's says; empty if it cannot be read. An engine is made with this, so it
/// does without std::ifstream and std::filesystem::path: where they get no memory, those of GCC 12
/// free twice.
std::string read_text(const std::string& path) {
  struct File {
    int descriptor;
    ~File() {
      if (descriptor >= 0) close(descriptor);
    }
  } const file{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  std::string text;
  char part[4096];
  while (file.descriptor >= 0) {
    const ssize_t n = read(file.descriptor, part, sizeof(part));
    if (n <= 0) break;
    text.append(part, static_cast<size_t>(n));
  }
  return text;
}

std::optional<uint64_t> number(std::string_view text) {
  const size_t begin = text.find_first_of("0123456789");
  if (begin == std::string_view::npos) return std::nullopt;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data() + begin, text.data() + text.size(), value);
  (void)end;
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

/// Calls fn for a cgroup's directory and each of its parents up to the controller's root.
void walk_up(const std::string& root, std::string_view path,
             const std::function<void(const std::string&)>& fn) {
  for (;;) {
    while (path.ends_with('/')) path.remove_suffix(1);
    fn(root + std::string(path) + "/");
    if (path.empty()) return;
    path = path.substr(0, path.rfind('/') == std::string_view::npos ? 0 : path.rfind('/'));
  }
}

/// Different physical cores among the CPUs of the affinity mask; 0 if unknown.
int physical_cores() {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return 0;
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    const std::string siblings = read_text("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                                           "/topology/thread_siblings_list");
    cores.insert(siblings.empty() ? "cpu" + std::to_string(cpu) : siblings);
  }
  return static_cast<int>(cores.size());
}

}  // namespace

namespace system_text {

std::optional<uint64_t> mem_available(std::string_view meminfo) {
  constexpr std::string_view kKey = "MemAvailable:";
  const size_t at = meminfo.find(kKey);
  if (at == std::string_view::npos) return std::nullopt;
  const auto kib = number(meminfo.substr(at + kKey.size()));
  return kib ? std::optional(*kib * 1024) : std::nullopt;
}

std::optional<int> cpu_max(std::string_view text) {
  if (text.starts_with("max")) return std::nullopt;
  const size_t space = text.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const auto quota = number(text.substr(0, space));
  const auto period = number(text.substr(space));
  if (!quota || !period || *period == 0) return std::nullopt;
  return static_cast<int>(std::max<uint64_t>(1, (*quota + *period - 1) / *period));
}

std::optional<uint64_t> memory_limit(std::string_view text) {
  constexpr uint64_t kNoLimit = uint64_t{1} << 60;  // v1 writes a huge number
  const auto limit = number(text);
  return limit && *limit < kNoLimit ? limit : std::nullopt;
}

std::string cgroup_path(std::string_view text, std::string_view controller) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    const size_t first = line.find(':');
    const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second != std::string_view::npos) {
      const std::string_view names = line.substr(first + 1, second - first - 1);
      const std::string listed = "," + std::string(names) + ",";
      const bool match = controller.empty() ? names.empty()
                                            : listed.find("," + std::string(controller) + ",") !=
                                                  std::string::npos;
      if (match) return std::string(line.substr(second + 1));
    }
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return "";
}

}  // namespace system_text

int usable_cores() {
  int cores = physical_cores();
  if (cores == 0) cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const std::string cgroups = read_text("/proc/self/cgroup");
  walk_up("/sys/fs/cgroup", system_text::cgroup_path(cgroups, ""), [&](const std::string& group) {
    if (const auto quota = system_text::cpu_max(read_text(group + "cpu.max"))) {
      cores = std::min(cores, *quota);
    }
  });
  walk_up("/sys/fs/cgroup/cpu", system_text::cgroup_path(cgroups, "cpu"),
          [&](const std::string& group) {
            const std::string quota = read_text(group + "cpu.cfs_quota_us");
            if (quota.empty() || quota[0] == '-') return;
            if (const auto limit = system_text::cpu_max(quota.substr(0, quota.find('\n')) + " " +
                                                        read_text(group + "cpu.cfs_period_us"))) {
              cores = std::min(cores, *limit);
            }
          });
  return cores;
}

uint64_t resident_memory() {
  // Second field of statm: resident pages.
  const std::string text = read_text("/proc/self/statm");
  const size_t at = text.find(' ');
  const auto pages = at == std::string::npos ? std::nullopt : number(text.substr(at + 1));
  return pages ? *pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) : 0;
}

uint64_t available_memory() {
  std::optional<uint64_t> least = system_text::mem_available(read_text("/proc/meminfo"));
  const std::string cgroups = read_text("/proc/self/cgroup");
  const auto consider = [&](const std::string& limit_file, const std::string& usage_file) {
    const auto limit = system_text::memory_limit(read_text(limit_file));
    const auto used = number(read_text(usage_file));
    if (!limit || !used) return;
    const uint64_t left = *limit > *used ? *limit - *used : 0;
    least = least ? std::min(*least, left) : left;
  };
  walk_up("/sys/fs/cgroup", system_text::cgroup_path(cgroups, ""), [&](const std::string& group) {
    consider(group + "memory.max", group + "memory.current");
  });
  walk_up("/sys/fs/cgroup/memory", system_text::cgroup_path(cgroups, "memory"),
          [&](const std::string& group) {
            consider(group + "memory.limit_in_bytes", group + "memory.usage_in_bytes");
          });
  return least.value_or(0);
}

}  // namespace paddock
