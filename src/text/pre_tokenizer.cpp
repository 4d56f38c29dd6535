#include "text/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "core/fail.h"

namespace paddock {
namespace {

// White space as Unicode's White_Space property has it, written out because PCRE2's \s counts
// U+180E too. \p{L} and \p{N} are those of PCRE2's Unicode version: letters and numbers added to
// Unicode after it count as symbols.
#define PADDOCK_SPACE \
  R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})"

constexpr std::string_view kLlama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
    "|\\p{N}{1,3}"
    "| ?[^" PADDOCK_SPACE
    "\\p{L}\\p{N}]+[\\r\\n]*"
    "|[" PADDOCK_SPACE
    "]*[\\r\\n]+"
    "|[" PADDOCK_SPACE "]+(?![^" PADDOCK_SPACE
    "])"
    "|[" PADDOCK_SPACE "]+";

constexpr std::string_view kGpt2 =
    "'s|'t|'re|'ve|'m|'ll|'d"
    "| ?\\p{L}+"
    "| ?\\p{N}+"
    "| ?[^" PADDOCK_SPACE
    "\\p{L}\\p{N}]+"
    "|[" PADDOCK_SPACE "]+(?![^" PADDOCK_SPACE
    "])"
    "|[" PADDOCK_SPACE "]+";

// Two splits in one: numbers leave first, so the lookahead sees them as the end of the text.
constexpr std::string_view kSmolLm =
    "\\p{N}"
    "|'s|'t|'re|'ve|'m|'ll|'d"
    "| ?\\p{L}+"
    "| ?[^" PADDOCK_SPACE
    "\\p{L}\\p{N}]+"
    "|[" PADDOCK_SPACE "]+(?![^" PADDOCK_SPACE
    "\\p{N}])"
    "|[" PADDOCK_SPACE "]+";

#undef PADDOCK_SPACE

// The same expressions as tokenizer.json files write them.
constexpr std::string_view kLlama3Published =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt2Published =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr uint32_t kHeapLimitKib = 64 * 1024;
constexpr uint64_t kStepsAtLeast = 4096, kStepsPerByte = 16;

struct FreeCode {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
};
struct FreeContext {
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};
struct FreeData {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 160> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

std::optional<PreTokenizer> pre_tokenizer_from_gguf(std::string_view name) {
  if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") return PreTokenizer::kLlama3;
  if (name == "gpt-2" || name == "gpt2") return PreTokenizer::kGpt2;
  if (name == "smollm") return PreTokenizer::kSmolLm;
  return std::nullopt;
}

std::optional<PreTokenizer> pre_tokenizer_from_pattern(std::string_view pattern) {
  if (pattern == kLlama3Published) return PreTokenizer::kLlama3;
  if (pattern == kGpt2Published) return PreTokenizer::kGpt2;
  return std::nullopt;
}

std::string_view pattern_of(PreTokenizer kind) {
  switch (kind) {
    case PreTokenizer::kLlama3:
      return kLlama3;
    case PreTokenizer::kGpt2:
      return kGpt2;
    case PreTokenizer::kSmolLm:
      return kSmolLm;
  }
  fail(ErrorCode::kInternal, "pre-tokenizer {} does not exist", static_cast<int>(kind));
}

struct RegexSplitter::Code {
  std::unique_ptr<pcre2_code, FreeCode> code;
};

RegexSplitter::RegexSplitter(std::string_view pattern, bool jit) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  std::unique_ptr<pcre2_code, FreeCode> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &offset, nullptr));
  if (code == nullptr) {
    fail(ErrorCode::kInternal, "pre-tokenizer: {} at offset {} of its pattern",
         pcre2_message(error), offset);
  }
  // Where no executable memory is to be had, matching falls back to the interpreter.
  if (jit) pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  code_ = std::make_unique<const Code>(Code{std::move(code)});
}

RegexSplitter::~RegexSplitter() = default;
RegexSplitter::RegexSplitter(RegexSplitter&&) noexcept = default;
RegexSplitter& RegexSplitter::operator=(RegexSplitter&&) noexcept = default;

struct RegexSplitter::Pass::State {
  const pcre2_code* code;
  std::unique_ptr<pcre2_match_data, FreeData> data;
  std::unique_ptr<pcre2_match_context, FreeContext> context;
  std::string_view text;
  size_t at = 0;
};

RegexSplitter::Pass::Pass(const RegexSplitter& splitter, std::string_view text)
    : state_(std::make_unique<State>()) {
  state_->code = splitter.code_->code.get();
  state_->data.reset(pcre2_match_data_create_from_pattern(state_->code, nullptr));
  state_->context.reset(pcre2_match_context_create(nullptr));
  if (state_->data == nullptr || state_->context == nullptr) {
    fail(ErrorCode::kOutOfMemory, "pre-tokenizer: no memory for a match");
  }
  pcre2_set_heap_limit(state_->context.get(), kHeapLimitKib);
  reset(text);
}

RegexSplitter::Pass::~Pass() = default;

void RegexSplitter::Pass::reset(std::string_view text) {
  state_->text = text;
  state_->at = 0;
  const uint64_t steps = kStepsAtLeast + kStepsPerByte * text.size();
  pcre2_set_match_limit(state_->context.get(),
                        static_cast<uint32_t>(std::min<uint64_t>(steps, UINT32_MAX)));
}

std::string_view RegexSplitter::Pass::next() {
  State& s = *state_;
  if (s.at >= s.text.size()) return {};
  const auto match = [&](uint32_t options) {
    return pcre2_match(s.code, reinterpret_cast<PCRE2_SPTR>(s.text.data()), s.text.size(), s.at,
                       PCRE2_NO_UTF_CHECK | options, s.data.get(), s.context.get());
  };
  int rc = match(0);
  // The interpreter keeps its state on the heap and needs no machine stack.
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = match(PCRE2_NO_JIT);
  const size_t end = rc > 0 ? pcre2_get_ovector_pointer(s.data.get())[1] : s.at;
  if (rc < 0 || end <= s.at) {
    fail(ErrorCode::kInternal, "pre-tokenizer: {} at byte {} of the text",
         rc < 0 ? pcre2_message(rc) : "empty match", s.at);
  }
  const std::string_view piece = s.text.substr(s.at, end - s.at);
  s.at = end;
  return piece;
}

}  // namespace paddock
