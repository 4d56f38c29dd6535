// What tests set and ask: schedules, sites, mutants, reports.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "support/simt/machine.h"

namespace paddock::simt {

std::vector<std::function<int()>>* recorder = nullptr;
void set_recorder(std::vector<std::function<int()>>* into) { recorder = into; }
namespace {

std::string stem(const char* file) {
  std::string name = file;
  name = name.substr(name.find_last_of('/') + 1);
  return name.substr(0, name.find('.'));
}
std::string full_name(const Site& site) { return stem(site.where.file) + "." + site.name; }
}  // namespace

bool meet(Site& site) {
  if (site.known) return site.skipped;
  Machine& m = machine();
  const std::string name = full_name(site);
  for (const Site* other : m.sites) {
    if (full_name(*other) == name && other->where.line != site.where.line) {
      record(Fault::kSites, place.thread, site.where,
             fmt::format("the site '{}' is at line {} too", name, other->where.line));
    }
  }
  m.sites.push_back(&site);
  site.known = true;
  site.skipped = name == m.mutant;
  return site.skipped;
}

int32_t multiprocessors() { return 132; }  // an H100's

std::vector<Report> take_reports() { return std::exchange(machine().reports, {}); }
std::string take_report_text() {
  std::string text;
  for (const Report& r : take_reports()) text += (text.empty() ? "" : "\n") + r.text;
  return text;
}
void set_schedule(Schedule schedule) { machine().schedule = schedule; }
std::string to_string(const Schedule& schedule) {
  static const char* const kNames[] = {"forward",        "reverse",         "interleaved",
                                       "one warp ahead", "one warp behind", "random"};
  return fmt::format("{} {}", kNames[static_cast<int>(schedule.order)], schedule.seed);
}
std::vector<Schedule> all_schedules() {
  return {{Order::kForward, 0},       {Order::kReverse, 0},      {Order::kInterleaved, 0},
          {Order::kOneWarpAhead, 0},  {Order::kOneWarpAhead, 1}, {Order::kOneWarpBehind, 0},
          {Order::kOneWarpBehind, 1}, {Order::kRandom, 1},       {Order::kRandom, 2},
          {Order::kRandom, 3}};
}
void for_each_schedule(const std::function<void(const std::string&)>& run) {
  for (const Schedule& schedule : all_schedules()) {
    set_schedule(schedule);
    run(to_string(schedule));
  }
  set_schedule({});
}
void set_race_checks(bool on) { machine().race_checks = on; }
void set_step_limit(uint64_t steps) { machine().step_limit = steps; }

std::vector<std::string> sites_met() {
  std::vector<std::string> names;
  for (const Site* site : machine().sites) names.push_back(full_name(*site));
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}
void forget_sites() {
  for (Site* site : machine().sites) site->known = site->skipped = false;
  machine().sites.clear();
}
void set_mutant(const std::string& site) {
  machine().mutant = site;
  for (Site* known : machine().sites) known->skipped = full_name(*known) == site;
}
std::vector<std::string> surviving_mutants(const std::function<bool()>& run) {
  const auto noticed = [&run] {
    bool bad = false;
    for (const Schedule& schedule : all_schedules()) {
      set_schedule(schedule);
      bad = !run();
      bad = !machine().reports.empty() || bad;
      if (bad) break;
    }
    set_schedule({});
    return bad;
  };
  forget_sites();
  set_mutant("");
  take_reports();
  if (noticed()) return {"unmutated", take_report_text()};
  std::vector<std::string> survivors;
  for (const std::string& site : sites_met()) {
    set_mutant(site);
    if (!noticed()) survivors.push_back(site);
    take_reports();
  }
  set_mutant("");
  return survivors;
}

}  // namespace paddock::simt
