#include "model/settings.h"

#include "core/fail.h"

namespace paddock {
namespace {

constexpr int64_t kMaxSize = 1 << 24;

void check_size(const char* file, const std::string& name, int64_t value) {
  if (value < 1 || value > kMaxSize) {
    fail(ErrorCode::kBadFile, "{}: {} is {}; it must be from 1 to {}", file, name, value, kMaxSize);
  }
}

}  // namespace

std::optional<int32_t> GgufSettings::size(const std::string& key, int32_t n_layers) {
  asked_.insert(key);
  const auto value = n_layers > 0 ? file_.get_int_of_layers(key, n_layers) : file_.get_int(key);
  if (!value) return std::nullopt;
  check_size("GGUF", key, *value);
  return static_cast<int32_t>(*value);
}

int32_t GgufSettings::required_size(const std::string& key, int32_t n_layers) {
  const auto value = size(key, n_layers);
  if (!value) fail(ErrorCode::kBadFile, "GGUF: the key '{}' is missing", key);
  return *value;
}

std::vector<std::string> GgufSettings::unasked(std::string_view prefix) const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : file_.header().metadata) {
    if (key.starts_with(prefix) && !asked_.contains(std::string(key))) keys.emplace_back(key);
  }
  return keys;
}

const JsonSettings::Json* JsonSettings::find(const std::string& key) {
  asked_.insert(key);
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::optional<double> JsonSettings::number(const std::string& key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) {
    fail(ErrorCode::kBadFile, "config.json: {} is not a number", name(key));
  }
  return value->get<double>();
}

std::optional<int64_t> JsonSettings::integer(const std::string& key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_integer()) {
    fail(ErrorCode::kBadFile, "config.json: {} is not an integer", name(key));
  }
  if (value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX) {
    fail(ErrorCode::kBadFile, "config.json: {} is too large", name(key));
  }
  return value->get<int64_t>();
}

std::optional<std::string> JsonSettings::text(const std::string& key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) {
    fail(ErrorCode::kBadFile, "config.json: {} is not a string", name(key));
  }
  return value->get<std::string>();
}

std::optional<bool> JsonSettings::flag(const std::string& key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) {
    fail(ErrorCode::kBadFile, "config.json: {} is not a boolean", name(key));
  }
  return value->get<bool>();
}

std::optional<int32_t> JsonSettings::size(const std::string& key) {
  const auto value = integer(key);
  if (!value) return std::nullopt;
  check_size("config.json", name(key), *value);
  return static_cast<int32_t>(*value);
}

int32_t JsonSettings::required_size(const std::string& key) {
  const auto value = size(key);
  if (!value) fail(ErrorCode::kBadFile, "config.json: {} is missing", name(key));
  return *value;
}

std::vector<std::string> JsonSettings::unasked() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object_.items()) {
    if (!value.is_null() && !asked_.contains(key)) keys.push_back(key);
  }
  return keys;
}

}  // namespace paddock
