// Request traces as JSON lines.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "core/fail.h"
#include "core/json.h"
#include "core/utf8.h"
#include "io/mapped_file.h"
#include "paddock/replay.h"

namespace paddock {
namespace {

constexpr const char* kExample = R"({"timestamp": 0, "input_length": 700, "hash_ids": [0, 1]})";

/// One line: an object whose list of blocks goes straight into the trace.
class Line : private StrictJson {
 public:
  /// `where`: file and line.
  void read(std::string_view line, const std::string& where, RequestTrace& trace) {
    where_ = &where;
    ids_.clear();
    Json json;
    try {
      json = parse(std::as_bytes(std::span(line)), where);
    } catch (const Error& e) {
      refuse(e.what());
    }
    if (!json.is_object() || !json.contains("hash_ids"))
      refuse(where + ": no \"hash_ids\" is here");
    if (!json["hash_ids"].is_null() || !has_ids_) refuse(where + ": \"hash_ids\" is no list");
    has_ids_ = false;
    const bool in_seconds = json.contains("chat_id");  // Bailian's
    const double time = number(json, "timestamp");
    trace.add(ids_, in_seconds ? time : time / 1000, count(json, "input_length"),
              count(json, "output_length"));
  }

 private:
  bool takes(const std::vector<std::string>& path, bool is_object) override {
    const bool is_list = path.size() == 1 && path[0] == "hash_ids" && !is_object;
    has_ids_ = has_ids_ || is_list;
    return is_list;
  }
  void taken_value(size_t, const std::string&, Json&& value) override {
    if (!value.is_number_integer()) {
      fail(ErrorCode::kBadFile, "{}: {} in \"hash_ids\" is no whole number from -2^63 to 2^64 - 1",
           *where_, quote(value.dump()));
    }
    ids_.push_back(value.is_number_unsigned() ? value.get<uint64_t>()
                                              : static_cast<uint64_t>(value.get<int64_t>()));
  }
  void taken_begin(size_t, bool) override {
    fail(ErrorCode::kBadFile, "{}: \"hash_ids\" has a list in it", *where_);
  }

  double number(const Json& json, const char* key) const {
    if (!json.contains(key)) return 0;
    if (!json[key].is_number()) refuse(fmt::format("{}: \"{}\" is no number", *where_, key));
    return json[key].get<double>();
  }
  int64_t count(const Json& json, const char* key) const {
    const double n = number(json, key);
    constexpr double kMost = 1e15;
    if (!(n >= 0 && n <= kMost) || n != static_cast<double>(static_cast<int64_t>(n))) {
      refuse(fmt::format("{}: \"{}\" is {}; it must be a whole number of tokens", *where_, key, n));
    }
    return static_cast<int64_t>(n);
  }
  [[noreturn]] static void refuse(const std::string& what) {
    fail(ErrorCode::kBadFile, "{}; mend the line, a request such as {}, or take it out", what,
         kExample);
  }

  const std::string* where_ = nullptr;
  std::vector<uint64_t> ids_;
  bool has_ids_ = false;
};

}  // namespace

RequestTrace parse_request_trace(std::string_view lines, const std::string& name) {
  return at_the_edge([&] {
    RequestTrace trace;
    Line reader;
    for (int64_t n = 1; !lines.empty(); ++n) {
      const std::string_view line = lines.substr(0, lines.find('\n'));
      lines.remove_prefix(std::min(lines.size(), line.size() + 1));
      if (trim_spaces(line).empty()) continue;
      reader.read(line, fmt::format("{}, line {}", name, n), trace);
    }
    return trace;
  });
}

RequestTrace read_request_trace(const std::string& path) {
  return at_the_edge([&] {
    const MappedFile file(path);
    const auto* begin = reinterpret_cast<const char*>(file.bytes().data());
    return parse_request_trace({begin, file.bytes().size()}, path);
  });
}

}  // namespace paddock
