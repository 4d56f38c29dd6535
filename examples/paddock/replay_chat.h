// paddock replay --chat: a conversation once more under other rules.
#pragma once

#include <string>
#include <vector>

#include "common.h"

namespace cli {

struct ChatReplay {
  std::string log, template_name;
  std::vector<std::string> sweep;
};

/// The exit code.
int run_chat_replay(const ChatReplay& replay, const EngineArgs& engine);

}  // namespace cli
