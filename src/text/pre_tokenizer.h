// Cutting text into the pieces that BPE merges within.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

namespace paddock {

/// The pre-tokenizers the library has. Each is one regular expression that covers all text.
enum class PreTokenizer {
  kLlama3,  // "llama-bpe" in GGUF
  kGpt2,    // "gpt-2"
  kSmolLm,  // "smollm": every digit alone, then as GPT-2
};

/// By GGUF's name (tokenizer.ggml.pre).
std::optional<PreTokenizer> pre_tokenizer_from_gguf(std::string_view name);
/// By the regular expression in a Hugging Face Split pre-tokenizer.
std::optional<PreTokenizer> pre_tokenizer_from_pattern(std::string_view pattern);
/// What split() runs.
std::string_view pattern_of(PreTokenizer kind);

/// A compiled regular expression that cuts text into consecutive matches. Immutable.
class RegexSplitter {
 public:
  /// `pattern` is PCRE2 syntax, Unicode. `jit` false forces the interpreter.
  explicit RegexSplitter(std::string_view pattern, bool jit = true);
  ~RegexSplitter();
  RegexSplitter(RegexSplitter&&) noexcept;
  RegexSplitter& operator=(RegexSplitter&&) noexcept;

  /// One pass over one text, which must be valid UTF-8 and outlive it.
  class Pass {
   public:
    Pass(const RegexSplitter& splitter, std::string_view text);
    ~Pass();
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    /// Starts over with another text.
    void reset(std::string_view text);
    /// The next piece, empty at the end. Error kInternal, with the byte offset, where the regular
    /// expression does not match, or where matching exceeds the limits of steps and memory (they
    /// grow with the text, so that only a pattern of more than linear cost can reach them).
    std::string_view next();

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct Code;
  std::unique_ptr<const Code> code_;
};

}  // namespace paddock
