// A line on stderr whenever the cache has acted: what left, how full it is, what can be done.
#pragma once

#include <paddock/paddock.h>

#include <cstdint>
#include <functional>
#include <string>

namespace cli {

/// "284 of 341 pages (83%)".
std::string pages_text(const paddock::KvStats& stats);

class KvNotes {
 public:
  /// `policy`: how a rule is set here, such as "--kv-policy" or "/policy".
  KvNotes(const paddock::Engine& engine, std::string policy);

  /// What rules took since the last call; empty if nothing. `turn_of`: the turn that a position
  /// belongs to, where there are turns. `positions`: of the sequence so far.
  std::string news(int64_t positions, const std::function<int64_t(int64_t)>& turn_of = {});

 private:
  /// What became of budgets since the last call; empty if nothing.
  std::string budgets();
  std::string remedy(int64_t positions) const;

  const paddock::Engine& engine_;
  std::string policy_;
  uint64_t next_ = 0;        // event
  int64_t next_change_ = 0;  // of a budget
  bool has_lost_ = false;    // which was said
  int64_t pages_ = 0;       // that rules have taken so far
  std::string remedy_for_;  // the rule whose remedy was said
};

}  // namespace cli
