// What the cache did in a chat, recorded as it runs, so that /why can tell of it.
#pragma once

#include <paddock/paddock.h>

#include <string>
#include <string_view>

namespace cli {

/// A trace in memory: up to some hundred bytes for each token and what leaves for it. It outlives
/// the engine, which writes to it until it goes.
class ChatRecord {
 public:
  /// Hooks itself into `options`, before the sink that is there, if any, which gets the same bytes:
  /// the record has texts where that one has them, or there is none.
  explicit ChatRecord(paddock::EngineOptions& options);
  ChatRecord(const ChatRecord&) = delete;
  ChatRecord& operator=(const ChatRecord&) = delete;

  /// What became of this text in a session, wherever it occurs; of none: of what left last.
  std::string why(const std::string& text, paddock::SessionId session) const;

 private:
  std::string bytes_;
  bool has_tokens_ = false;
};

}  // namespace cli
