// JSON from files nobody vouches for: depth bounded, duplicate keys refused, big containers
// streamed.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace paddock {

/// Deepest nesting accepted.
inline constexpr size_t kMaxJsonDepth = 32;

/// Of UTF-8. tokenizers and transformers refuse JSON that begins with it, and so does parse().
inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// Builds a document. A subclass may take containers out of it and receive their events instead.
class StrictJson : public nlohmann::json_sax<nlohmann::json> {
 public:
  using Json = nlohmann::json;

  /// Parses `bytes`, which are called `what` in errors. Error kBadFile for anything but one JSON
  /// document within the bounds.
  Json parse(std::span<const std::byte> bytes, const std::string& what);

 protected:
  /// Asked when a container begins at `path` (keys from the root; "" for an array's elements).
  /// True: its events go to taken_*() and it is not stored.
  virtual bool takes(const std::vector<std::string>& /*path*/, bool /*is_object*/) { return false; }
  /// A value inside a taken container. `depth` 1: directly inside; `key` is empty in arrays.
  virtual void taken_value(size_t /*depth*/, const std::string& /*key*/, Json&& /*value*/) {}
  /// A container inside a taken one begins or ends at `depth`.
  virtual void taken_begin(size_t /*depth*/, bool /*is_object*/) {}
  virtual void taken_end(size_t /*depth*/) {}

 private:
  bool null() override { return value(nullptr); }
  bool boolean(bool v) override { return value(v); }
  bool number_integer(number_integer_t v) override { return value(v); }
  bool number_unsigned(number_unsigned_t v) override { return value(v); }
  bool number_float(number_float_t v, const string_t&) override { return value(v); }
  bool string(string_t& v) override { return value(std::move(v)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return begin(true); }
  bool start_array(std::size_t) override { return begin(false); }
  bool end_object() override { return end(); }
  bool end_array() override { return end(); }
  bool key(string_t& v) override;
  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception& error) override;

  bool value(Json v);
  bool begin(bool is_object);
  bool end();
  Json* store(Json v);

  std::string what_;
  Json root_;
  std::vector<Json*> open_;        // containers being stored
  std::vector<std::string> path_;  // key of each open container's current member
  size_t taken_depth_ = 0;         // 0: storing
};

}  // namespace paddock
