// The keys of a model file as its reader asks for them, so that what nobody asked for can be named.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/gguf.h"
#include "model/config.h"

namespace paddock {

/// Metadata of a GGUF file. Errors kBadFile name the key and what is wrong with it.
class GgufSettings {
 public:
  explicit GgufSettings(const gguf::File& file) : file_(file) {}

  std::optional<int64_t> integer(const std::string& key) {
    return asked_.insert(key), file_.get_int(key);
  }
  std::optional<double> number(const std::string& key) {
    return asked_.insert(key), file_.get_float(key);
  }
  std::optional<bool> flag(const std::string& key) {
    return asked_.insert(key), file_.get_bool(key);
  }
  std::optional<std::string> text(const std::string& key) {
    return asked_.insert(key), file_.get_string(key);
  }
  int64_t required_integer(const std::string& key) {
    return asked_.insert(key), file_.require_int(key);
  }
  double required_number(const std::string& key) {
    return asked_.insert(key), file_.require_float(key);
  }
  /// A number from 1 to 2^24, or an array of `n_layers` equal ones. kUnsupported where they differ.
  std::optional<int32_t> size(const std::string& key, int32_t n_layers = 0);
  int32_t required_size(const std::string& key, int32_t n_layers = 0);

  /// A key that says nothing which matters here.
  void ignore(const std::string& key) { asked_.insert(key); }
  /// Keys that begin with `prefix` and were not asked for, in file order.
  std::vector<std::string> unasked(std::string_view prefix) const;
  const KeySet& asked() const { return asked_; }

 private:
  const gguf::File& file_;
  KeySet asked_;
};

/// An object of config.json. A null counts as absent. Errors kBadFile name the key and what is
/// wrong with it; `place` is put before it, such as "rope_scaling.".
class JsonSettings {
 public:
  using Json = nlohmann::json;

  explicit JsonSettings(const Json& object, std::string place = "")
      : object_(object), place_(std::move(place)) {}

  const Json* find(const std::string& key);  // nullptr if absent
  std::optional<double> number(const std::string& key);
  std::optional<int64_t> integer(const std::string& key);
  std::optional<std::string> text(const std::string& key);
  std::optional<bool> flag(const std::string& key);
  /// From 1 to 2^24.
  std::optional<int32_t> size(const std::string& key);
  int32_t required_size(const std::string& key);

  /// "'rope_scaling.factor'", for messages.
  std::string name(const std::string& key) const { return "'" + place_ + key + "'"; }
  std::vector<std::string> unasked() const;
  const KeySet& asked() const { return asked_; }

 private:
  const Json& object_;
  std::string place_;
  KeySet asked_;
};

}  // namespace paddock
