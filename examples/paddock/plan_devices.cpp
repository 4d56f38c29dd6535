#include "plan_devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "advice.h"
#include "common.h"

namespace cli {
namespace {

constexpr const char* kForm =
    R"([{"name": "mine", "memory": "24GB", "bytes_per_second": 1e12, "source": "its datasheet"}])";

std::vector<PlanDevice> parse(const std::string& text, const std::string& name) {
  const auto refuse = [&](const std::string& why) {
    throw UsageError(
        fmt::format("--devices {}: {}; it must be a list such as {}", name, why, kForm));
  };
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_array()) refuse("it is no JSON array");
  std::vector<PlanDevice> devices;
  for (const Json& entry : json) {
    const auto string = [&](const char* key) {
      const bool is_there = entry.is_object() && entry.contains(key) && entry[key].is_string();
      if (!is_there) refuse(fmt::format("device {} has no \"{}\"", devices.size(), key));
      return entry[key].get<std::string>();
    };
    PlanDevice device;
    device.name = string("name");
    device.memory_bytes = parse_size("--devices", string("memory"));
    device.source = string("source");
    const bool has_rate =
        entry.contains("bytes_per_second") && entry["bytes_per_second"].is_number();
    if (has_rate) device.bytes_per_second = entry["bytes_per_second"].get<double>();
    if (!(device.bytes_per_second > 0)) {
      refuse(fmt::format("device {} has no \"bytes_per_second\" above 0", devices.size()));
    }
    devices.push_back(std::move(device));
  }
  return devices;
}

std::string lowered(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace

std::vector<PlanDevice> plan_devices(const std::string& file) {
  std::vector<PlanDevice> devices = parse(kDevices, "built in");
  if (file.empty()) return devices;
  for (PlanDevice& own : parse(read_file(file), file)) devices.push_back(std::move(own));
  return devices;
}

const PlanDevice& find_device(const std::vector<PlanDevice>& devices, const std::string& name) {
  const std::string wanted = lowered(name);
  std::vector<const PlanDevice*> like;
  for (const PlanDevice& device : devices) {
    if (lowered(device.name) == wanted) return device;
    if (lowered(device.name).find(wanted) != std::string::npos) like.push_back(&device);
  }
  if (like.size() == 1) return *like[0];
  std::string names;
  for (const PlanDevice* device : like) {
    names += fmt::format("{}'{}'", names.empty() ? "" : ", ", device->name);
  }
  throw UsageError(
      like.empty() ? fmt::format("--device {}: none is called so; `paddock plan PATH` lists them, "
                                 "and --devices FILE adds yours",
                                 name)
                   : fmt::format("--device {}: that may be {}", name, names));
}

}  // namespace cli
