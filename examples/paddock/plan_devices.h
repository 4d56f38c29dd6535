// Machines and devices that a plan may be for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cli {

struct PlanDevice {
  std::string name;
  uint64_t memory_bytes = 0;
  double bytes_per_second = 0;  // copied at most
  std::string source;           // of both figures
};

/// devices.json as it was when the tool was built.
extern const char* const kDevices;

/// The tool's own, and behind them those of `file` if it is not empty. UsageError where that is
/// wrong.
std::vector<PlanDevice> plan_devices(const std::string& file);
/// The one whose name is `name`, or alone has it in it, in capitals or not. UsageError where there
/// is none, or are several.
const PlanDevice& find_device(const std::vector<PlanDevice>& devices, const std::string& name);

}  // namespace cli
