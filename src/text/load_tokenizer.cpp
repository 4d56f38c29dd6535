// Tokenizers from paths: a file of any kind, or a Hugging Face folder.
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "core/fail.h"
#include "core/json.h"
#include "core/utf8.h"
#include "io/mapped_file.h"
#include "text/tokenizer_readers.h"
#include "text/tokenizer_source.h"

namespace paddock {
namespace {

namespace fs = std::filesystem;
using Json = StrictJson::Json;

constexpr size_t kMaxSettingsBytes = 16u << 20;

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

// A JSON object from a file that need not exist.
std::optional<Json> read_settings(const fs::path& path) {
  if (!is_file(path)) return std::nullopt;
  const MappedFile file(path);
  if (file.bytes().size() > kMaxSettingsBytes) {
    fail(ErrorCode::kBadFile, "{}: {} bytes, more than {}", path.string(), file.bytes().size(),
         kMaxSettingsBytes);
  }
  Json document = StrictJson().parse(file.bytes(), path.string());
  if (!document.is_object()) fail(ErrorCode::kBadFile, "{}: no JSON object", path.string());
  return document;
}

// Adds the ids in a member that is absent, null, an integer or an array of integers; -1: none.
void add_stop_ids(const fs::path& path, const Json& settings, TokenizerSource& source) {
  const auto it = settings.find("eos_token_id");
  if (it == settings.end() || it->is_null()) return;
  const auto add = [&](const Json& id) {
    if (id == -1) return;
    if (!id.is_number_integer() || !source.vocabulary.contains(id.get<int64_t>())) {
      fail(ErrorCode::kBadFile, "{}: eos_token_id {} is no id of the vocabulary of {} tokens",
           path.string(), quote(id.dump(-1, ' ', true)), source.vocabulary.size());
    }
    source.stop_tokens.push_back(static_cast<TokenId>(id.get<int64_t>()));
  };
  if (!it->is_array()) return add(*it);
  for (const Json& id : *it) add(id);
}

// The token that settings name as `key`: a string, or an object with "content".
std::optional<TokenId> named_token(const fs::path& path, const Json& settings, const char* key,
                                   const TokenizerSource& source) {
  auto it = settings.find(key);
  if (it == settings.end() || it->is_null()) return std::nullopt;
  const Json* name = &*it;
  if (it->is_object() && it->contains("content")) name = &(*it)["content"];
  if (!name->is_string()) fail(ErrorCode::kBadFile, "{}: {} is no string", path.string(), key);
  const auto& text = name->get_ref<const std::string&>();
  const auto id = source.vocabulary.find(text);
  if (!id) {
    fail(ErrorCode::kBadFile, "{}: {} {} is not in the vocabulary", path.string(), key,
         quote(text));
  }
  return id;
}

// The template text, or the one called "default" in a list of named ones.
std::string chat_template_of(const fs::path& path, const Json& settings) {
  const auto it = settings.find("chat_template");
  if (it == settings.end() || it->is_null()) return {};
  if (it->is_string()) return it->get<std::string>();
  if (it->is_array()) {
    for (const Json& entry : *it) {
      if (entry.is_object() && entry.value("name", Json()) == "default" &&
          entry.contains("template") && entry["template"].is_string()) {
        return entry["template"].get<std::string>();
      }
    }
    return {};
  }
  fail(ErrorCode::kBadFile, "{}: chat_template is neither a string nor a list", path.string());
}

void apply_folder_settings(const fs::path& folder, TokenizerSource& source) {
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    const fs::path path = folder / name;
    const auto settings = read_settings(path);
    if (!settings) continue;
    if (const auto id = named_token(path, *settings, "bos_token", source)) source.bos = id;
    if (const auto id = named_token(path, *settings, "eos_token", source)) {
      source.stop_tokens.push_back(*id);
    }
    const auto adds_bos = settings->find("add_bos_token");
    if (adds_bos != settings->end() && adds_bos->is_boolean()) source.adds_bos = *adds_bos;
    source.chat_template = chat_template_of(path, *settings);
  }
  for (const char* name : {"config.json", "generation_config.json"}) {
    if (const auto settings = read_settings(folder / name)) {
      add_stop_ids(folder / name, *settings, source);
    }
  }
  const fs::path jinja = folder / "chat_template.jinja";
  if (!is_file(jinja)) return;
  const MappedFile file(jinja);
  if (file.bytes().size() > kMaxSettingsBytes) {
    fail(ErrorCode::kBadFile, "{}: more than {} bytes", jinja.string(), kMaxSettingsBytes);
  }
  source.chat_template = text_of(file);
}

}  // namespace

std::shared_ptr<const Tokenizer> load_folder_tokenizer(const std::string& folder) {
  TokenizerSource source;
  const fs::path root(folder);
  if (is_file(root / "tokenizer.json")) {
    const auto config = read_settings(root / "tokenizer_config.json");
    source = read_tokenizer_json(MappedFile(root / "tokenizer.json").bytes(),
                                 config ? *config : Json::object());
  } else if (is_file(root / "tokenizer.model")) {
    source = read_tiktoken_model(MappedFile(root / "tokenizer.model").bytes());
  } else {
    fail(ErrorCode::kNotFound, "{}: there is neither a tokenizer.json nor a tokenizer.model",
         folder);
  }
  apply_folder_settings(root, source);
  return make_tokenizer(std::move(source));
}

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::string& path) try {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return load_folder_tokenizer(path);
  const MappedFile file{fs::path(path)};
  const std::string_view text = text_of(file);
  try {
    if (text.starts_with("GGUF")) return load_gguf_tokenizer(*gguf::File::open(path));
    const size_t mark = text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
    const size_t first = text.find_first_not_of(" \t\r\n", mark);
    if (first != std::string_view::npos && text[first] == '{') {
      return parse_tokenizer_json(file.bytes());
    }
    return parse_tiktoken_model(file.bytes());
  } catch (const Error& error) {
    const std::string_view message = error.what();
    if (message.starts_with(path) || message.starts_with("'" + path)) throw;
    throw Error(error.code(), path + ": " + error.what());
  }
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

}  // namespace paddock
