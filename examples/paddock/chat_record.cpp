#include "chat_record.h"

#include <fmt/format.h>
#include <paddock/explain.h>
#include <paddock/trace.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <variant>

#include "explain_text.h"

namespace cli {
namespace {

constexpr const char* kName = "the chat's record";

/// What a rule took last from the sequence that serves this session.
std::optional<paddock::KvEvent> last_removal(const std::string& bytes, int64_t session) {
  std::optional<paddock::KvEvent> last;
  std::map<int32_t, int64_t> session_of;  // of each sequence
  paddock::read_trace(bytes, kName, [&](const paddock::TraceRecord& record) {
    if (const auto* run = std::get_if<paddock::TraceRun>(&record.what)) {
      session_of[run->sequence] = run->session;
    }
    const auto* removal = std::get_if<paddock::TraceRemoval>(&record.what);
    if (removal == nullptr) return;
    const bool is_by_rule = paddock::is_by_rule(removal->event.reason);
    if (is_by_rule && session_of[removal->event.sequence] == session) last = removal->event;
  });
  return last;
}

}  // namespace

ChatRecord::ChatRecord(paddock::EngineOptions& options) {
  paddock::KvTrace& trace = options.kv.trace;
  if (!trace.sink) trace.tokens = true;
  has_tokens_ = trace.tokens;
  trace.sink = [this, next = std::move(trace.sink)](std::string_view bytes) {
    bytes_ += bytes;
    if (next) next(bytes);
  };
}

std::string ChatRecord::why(const std::string& text, paddock::SessionId session) const {
  if (!text.empty() && !has_tokens_) {
    throw paddock::Error(
        paddock::ErrorCode::kInvalidArgument,
        fmt::format("/why {}: the record has no texts, as --kv-trace is without --trace-tokens; "
                    "add that, or ask /why alone",
                    text));
  }
  paddock::ExplainQuery query;
  const auto last = last_removal(bytes_, session);
  if (text.empty()) {
    if (!last) return "nothing has left the conversation\n";
    query.position = last->first_position;
    query.sequence = last->sequence;
  } else {
    query.text = text;
  }
  const paddock::Explanation e = paddock::explain(bytes_, kName, query);
  std::vector<paddock::ExplainedSpan> spans = e.spans;
  std::erase_if(spans, [&](const auto& span) { return span.session != session; });
  if (spans.empty()) return "that is nowhere in the conversation\n";
  // What was read again lies there once more: the newest place is that of what left last.
  if (text.empty()) spans.erase(spans.begin(), spans.end() - 1);
  std::string out;
  for (const paddock::ExplainedSpan& span : spans) out += span_text(span, e.header.n_layers);
  return out;
}

}  // namespace cli
