// What the operating system lets this process use.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace paddock {

/// Cores this process may use: the CPU affinity mask's physical cores and the cgroups' CPU quota,
/// whichever is less; at least 1.
int usable_cores();

/// Bytes this process could still take: the least of what the machine has free and what its cgroups
/// (v1 and v2) leave; 0 if unknown.
uint64_t available_memory();

/// Bytes of this process that lie in memory now; 0 if unknown.
uint64_t resident_memory();

namespace system_text {  // parsers of the kernel's files, apart for tests

/// "MemAvailable" of /proc/meminfo in bytes.
std::optional<uint64_t> mem_available(std::string_view meminfo);
/// Whole cores of a cgroup v2 cpu.max such as "150000 100000" (rounded up), nullopt for "max".
std::optional<int> cpu_max(std::string_view text);
/// A cgroup limit in bytes; nullopt for "max" or v1's "no limit" number.
std::optional<uint64_t> memory_limit(std::string_view text);
/// Path of this process in the cgroup hierarchy of `controller` ("" for v2) in /proc/self/cgroup.
std::string cgroup_path(std::string_view text, std::string_view controller);

}  // namespace system_text
}  // namespace paddock
