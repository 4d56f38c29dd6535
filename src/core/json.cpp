#include "core/json.h"

#include <string_view>
#include <utility>

#include "core/fail.h"
#include "core/utf8.h"

namespace paddock {

StrictJson::Json StrictJson::parse(std::span<const std::byte> bytes, const std::string& what) {
  what_ = what;
  root_ = nullptr;
  open_.clear();
  path_.clear();
  taken_depth_ = 0;
  const auto* begin = reinterpret_cast<const char*>(bytes.data());
  if (std::string_view(begin, bytes.size()).starts_with(kByteOrderMark)) {
    fail(
        ErrorCode::kBadFile,
        "{}: it begins with a byte order mark, which JSON must not have; remove its first {} bytes",
        what_, kByteOrderMark.size());
  }
  nlohmann::json_sax<Json>* events = this;
  if (!Json::sax_parse(begin, begin + bytes.size(), events)) {
    fail(ErrorCode::kBadFile, "{}: not valid JSON", what_);
  }
  return std::move(root_);
}

bool StrictJson::parse_error(std::size_t position, const std::string& /*token*/,
                             const nlohmann::detail::exception& /*error*/) {
  fail(ErrorCode::kBadFile, "{}: not valid JSON at byte {}", what_, position);
}

bool StrictJson::key(string_t& v) {
  if (taken_depth_ == 0 && open_.back()->contains(v)) {
    fail(ErrorCode::kBadFile, "{}: the key {} is there twice in one object", what_, quote(v));
  }
  path_.back() = std::move(v);
  return true;
}

StrictJson::Json* StrictJson::store(Json v) {
  if (open_.empty()) {
    root_ = std::move(v);
    return &root_;
  }
  Json& parent = *open_.back();
  if (parent.is_object()) return &(parent[path_.back()] = std::move(v));
  parent.push_back(std::move(v));
  return &parent.back();
}

bool StrictJson::value(Json v) {
  if (taken_depth_ > 0) {
    taken_value(taken_depth_, path_.back(), std::move(v));
  } else {
    store(std::move(v));
  }
  return true;
}

bool StrictJson::begin(bool is_object) {
  if (path_.size() >= kMaxJsonDepth) {
    fail(ErrorCode::kBadFile, "{}: nested deeper than {} levels", what_, kMaxJsonDepth);
  }
  if (taken_depth_ > 0) {
    taken_begin(++taken_depth_, is_object);
  } else if (takes(path_, is_object)) {
    store(nullptr);  // so that a second one is noticed
    taken_depth_ = 1;
  } else {
    open_.push_back(store(is_object ? Json::object() : Json::array()));
  }
  path_.emplace_back();
  return true;
}

bool StrictJson::end() {
  path_.pop_back();
  if (taken_depth_ > 0) {
    if (--taken_depth_ > 0) taken_end(taken_depth_ + 1);
  } else {
    open_.pop_back();
  }
  return true;
}

}  // namespace paddock
