#include "trace_export.h"

#include <fmt/format.h>
#include <paddock/trace.h>

#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <vector>

namespace cli {
namespace {

using Json = nlohmann::ordered_json;

/// Gives each kind of record to the method of `Reader` that takes it; others are passed over.
template <typename Reader>
paddock::TraceExtent read(const std::string& path, Reader& reader) {
  return paddock::read_trace(path, [&](const paddock::TraceRecord& record) {
    std::visit(
        [&](const auto& what) {
          if constexpr (requires { reader.take(record, what); }) reader.take(record, what);
        },
        record.what);
  });
}

/// A timeline. Without times a step takes a millisecond.
class Timeline {
 public:
  explicit Timeline(const WriteText& write) : write_(write) {
    write_("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
  }
  void end() { write_("\n]}\n"); }

  void take(const paddock::TraceRecord& r, const paddock::TraceHeader& header) {
    has_times_ = header.has_times;
    put({{"ph", "M"}, {"name", "process_name"}, {"args", {{"name", "paddock " + header.model}}}},
        r);
    put({{"ph", "M"}, {"name", "thread_name"}, {"args", {{"name", "steps"}}}}, r);
  }
  void take(const paddock::TraceRecord& r, const paddock::TraceRequest& request) {
    put({{"ph", "b"},
         {"cat", "request"},
         {"id", request.request},
         {"name", fmt::format("request {}", request.request)},
         {"args", {{"session", request.session}, {"prompt_tokens", request.prompt_tokens}}}},
        r);
  }
  void take(const paddock::TraceRecord& r, const paddock::TraceFinish& finish) {
    put({{"ph", "e"},
         {"cat", "request"},
         {"id", finish.request},
         {"name", fmt::format("request {}", finish.request)},
         {"args",
          {{"finish_reason", paddock::finish_reason_name(finish.reason)},
           {"made_tokens", finish.made_tokens},
           {"cached_tokens", finish.cached_tokens},
           {"preemptions", finish.preemptions}}}},
        r);
  }
  void take(const paddock::TraceRecord& r, const paddock::TraceStepBegin&) {
    begun_ = at(r);
    tokens_ = 0;
    sequences_ = 0;
  }
  void take(const paddock::TraceRecord&, const paddock::TraceCommit& commit) {
    tokens_ += commit.n_tokens;
    ++sequences_;
  }
  void take(const paddock::TraceRecord& r, const paddock::TraceTick& tick) {
    put({{"ph", "C"},
         {"name", "pages"},
         {"args", {{"free", tick.pages_free}, {"kept", tick.pages_cached}}}},
        r);
  }
  void take(const paddock::TraceRecord& r, const paddock::TraceStepEnd& end) {
    Json event = {{"ph", "X"},
                  {"name", "step"},
                  {"dur", has_times_ ? end.seconds * 1e6 : 1000.0},
                  {"args", {{"tokens", tokens_}, {"sequences", sequences_}}}};
    if (!end.completed) event["args"]["completed"] = false;
    put(std::move(event), r, begun_);
    flush(r);
  }
  void take(const paddock::TraceRecord& r, const paddock::TraceRemoval& removal) {
    const paddock::KvEvent& e = removal.event;
    if (!gone_.empty() && r.step != gone_step_) flush(r);
    gone_step_ = r.step;
    Gone& gone = gone_[{static_cast<int>(e.reason), e.sequence, e.layer}];
    gone.positions.push_back(e.first_position);
  }
  void take(const paddock::TraceRecord& r, const paddock::TraceBudget& budget) {
    const paddock::KvBudgetChange& c = budget.change;
    instant("budget of sequence " + std::to_string(c.sequence), Json::parse(to_json(c)), r);
  }
  void take(const paddock::TraceRecord& r, const paddock::TracePreemption& preemption) {
    const paddock::KvPreemption& p = preemption.preemption;
    instant(fmt::format("sequence {} is parked", p.sequence), Json::parse(to_json(p)), r);
  }
  void take(const paddock::TraceRecord& r, const paddock::TraceEnd&) { flush(r); }

 private:
  struct Gone {
    std::vector<int64_t> positions;
  };
  double at(const paddock::TraceRecord& r) const {
    return has_times_ ? r.seconds * 1e6 : 1000.0 * static_cast<double>(r.step);
  }
  void put(Json event, const paddock::TraceRecord& r, double when = -1) {
    event["pid"] = 1;
    event["tid"] = 1;
    event["ts"] = when < 0 ? at(r) : when;
    if (is_first_) {
      is_first_ = false;
    } else {
      write_(",\n");
    }
    write_(event.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  void instant(const std::string& name, Json args, const paddock::TraceRecord& r) {
    put({{"ph", "i"}, {"s", "p"}, {"name", name}, {"args", std::move(args)}}, r);
  }
  /// What left with a step: one instant for each reason, sequence and layer.
  void flush(const paddock::TraceRecord& r) {
    for (const auto& [key, gone] : gone_) {
      const auto& [reason, sequence, layer] = key;
      Json args = {{"layer", layer}, {"blocks", gone.positions.size()}, {"at", gone.positions}};
      if (sequence >= 0) args["sequence"] = sequence;
      instant(paddock::removal_reason_name(static_cast<paddock::RemovalReason>(reason)),
              std::move(args), r);
    }
    gone_.clear();
  }

  const WriteText& write_;
  bool has_times_ = true, is_first_ = true;
  double begun_ = 0;
  int64_t tokens_ = 0, sequences_ = 0, gone_step_ = 0;
  std::map<std::tuple<int, int32_t, int32_t>, Gone> gone_;
};

/// Collects what each request's prompt consists of.
class Requests {
 public:
  void take(const paddock::TraceRecord&, const paddock::TraceHeader& header) {
    block_size_ = header.block_size;
    block_bytes_ =
        static_cast<uint64_t>(header.page_bytes) * static_cast<uint64_t>(header.n_layers);
  }
  void take(const paddock::TraceRecord& r, const paddock::TraceRequest& request) {
    order_.push_back(request.request);
    Prompt& prompt = prompts_[request.request];
    prompt.milliseconds = static_cast<int64_t>(r.seconds * 1e3);
    prompt.length = request.prompt_tokens;
  }
  void take(const paddock::TraceRecord&, const paddock::TraceOpen& open) {
    texts_[open.sequence].clear();
    owners_.erase(open.sequence);
  }
  void take(const paddock::TraceRecord&, const paddock::TraceFork& fork) {
    const std::vector<uint64_t> text = texts_[fork.from];
    texts_[fork.to] = text;
  }
  void take(const paddock::TraceRecord&, const paddock::TraceRun& run) {
    owners_[run.sequence] = run.request;
    note(run.sequence);
  }
  void take(const paddock::TraceRecord&, const paddock::TraceBlock& block) {
    std::vector<uint64_t>& text = texts_[block.sequence];
    text.resize(static_cast<size_t>(block.block));
    text.push_back(block.hash);
    note(block.sequence);
  }
  void take(const paddock::TraceRecord&, const paddock::TraceCut& cut) {
    std::vector<uint64_t>& text = texts_[cut.sequence];
    const auto blocks = static_cast<size_t>(cut.length / block_size_);
    if (text.size() > blocks) text.resize(blocks);
  }
  void take(const paddock::TraceRecord&, const paddock::TraceFinish& finish) {
    prompts_[finish.request].made = finish.made_tokens;
  }

  uint64_t block_bytes() const { return block_bytes_; }
  void write(const WriteText& write) const {
    std::unordered_map<uint64_t, int64_t> ids;
    for (const int64_t request : order_) {
      const Prompt& prompt = prompts_.at(request);
      Json hashes = Json::array();
      for (const uint64_t hash : prompt.hashes) {
        hashes.push_back(ids.try_emplace(hash, static_cast<int64_t>(ids.size())).first->second);
      }
      const Json line = {{"timestamp", prompt.milliseconds},
                         {"input_length", prompt.length},
                         {"output_length", prompt.made},
                         {"hash_ids", std::move(hashes)}};
      write(line.dump() + "\n");
    }
  }

 private:
  struct Prompt {
    int64_t milliseconds = 0, length = 0, made = 0;
    std::vector<uint64_t> hashes;
  };
  /// What is known of the prompt of the request that the sequence serves.
  void note(int32_t sequence) {
    const auto owner = owners_.find(sequence);
    if (owner == owners_.end() || owner->second == 0) return;
    Prompt& prompt = prompts_[owner->second];
    const std::vector<uint64_t>& text = texts_[sequence];
    const auto full = static_cast<size_t>(prompt.length / block_size_);
    for (size_t i = prompt.hashes.size(); i < std::min(full, text.size()); ++i) {
      prompt.hashes.push_back(text[i]);
    }
  }

  int64_t block_size_ = 1;
  uint64_t block_bytes_ = 0;
  std::vector<int64_t> order_;
  std::map<int64_t, Prompt> prompts_;
  std::map<int32_t, std::vector<uint64_t>> texts_;  // of sequences
  std::map<int32_t, int64_t> owners_;
};

}  // namespace

void write_trace_lines(const std::string& path, const WriteText& write) {
  paddock::read_trace(
      path, [&](const paddock::TraceRecord& record) { write(paddock::to_json(record) + "\n"); });
}

void write_trace_timeline(const std::string& path, const WriteText& write) {
  Timeline timeline(write);
  read(path, timeline);
  timeline.end();
}

uint64_t write_trace_requests(const std::string& path, const WriteText& write) {
  Requests requests;
  read(path, requests);
  requests.write(write);
  return requests.block_bytes();
}

}  // namespace cli
