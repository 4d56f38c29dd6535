// Token texts and their ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/tokenizer.h"

namespace paddock {

/// Longest token accepted, in bytes. Published vocabularies stay below 512.
inline constexpr size_t kMaxTokenBytes = 1024;

enum class TokenKind : uint8_t {
  kNormal,       // made by merging bytes
  kSpecial,      // control token: from text only where the caller asks for it
  kUserDefined,  // added token that text always turns into
  kUnreachable,  // has a text, but no input gives it
};

/// A hash table from bytes to ids. The hash is seeded at random, so that a file cannot be made to
/// collide.
class TokenIndex {
 public:
  TokenIndex();
  void reserve(size_t n);  // room for n insertions in all
  /// Adds (bytes, id) and returns nullopt, or returns the id that those bytes have already. `texts`
  /// maps ids to bytes.
  template <typename Texts>
  std::optional<TokenId> insert(std::string_view bytes, TokenId id, const Texts& texts) {
    for (size_t slot = hash(bytes) & mask_;; slot = (slot + 1) & mask_) {
      if (slots_[slot] < 0) {
        slots_[slot] = id;
        return std::nullopt;
      }
      if (texts.bytes(slots_[slot]) == bytes) return slots_[slot];
    }
  }
  template <typename Texts>
  std::optional<TokenId> find(std::string_view bytes, const Texts& texts) const {
    for (size_t slot = hash(bytes) & mask_; slots_[slot] >= 0; slot = (slot + 1) & mask_) {
      if (texts.bytes(slots_[slot]) == bytes) return slots_[slot];
    }
    return std::nullopt;
  }

 private:
  uint64_t hash(std::string_view bytes) const;
  uint64_t seed_;
  size_t mask_ = 0;
  std::vector<TokenId> slots_{-1};
};

/// All tokens of a tokenizer. Filled with add(), then sealed once, then immutable.
class Vocabulary {
 public:
  /// One token. Errors kBadFile: negative or absurd id, text longer than kMaxTokenBytes, no UTF-8
  /// where the kind needs it. A token that ends or begins turns ("<|eot_id|>", "<|im_start|>", ...)
  /// is special whatever `kind` says, so that message text cannot forge it.
  void add(int64_t id, std::string_view bytes, TokenKind kind);

  /// Says that the already added token `id` is of kind `kind`, or adds it. Error kBadFile if its
  /// text is another one. `late`: it is cut out of a text only after those that are not.
  void add_or_change(int64_t id, std::string_view text, TokenKind kind, bool late);

  /// Ends the filling. Errors kBadFile: no tokens, one id twice, one text twice within a kind, more
  /// ids without a token than with one.
  void seal();

  int32_t size() const { return static_cast<int32_t>(places_.size()); }
  std::string_view bytes(TokenId id) const {
    const Place& p = places_[static_cast<size_t>(id)];
    return std::string_view(arena_).substr(p.begin, p.length);
  }
  TokenKind kind(TokenId id) const { return places_[static_cast<size_t>(id)].kind; }
  bool contains(int64_t id) const { return id >= 0 && id < size(); }

  /// A text that always turns into `id`, as it stands in messages.
  struct Added {
    std::string_view text;
    TokenId id;
    bool late;
  };
  /// All tokens of kind kUserDefined, with `specials` those of kind kSpecial too, and normal tokens
  /// that were added under the spelling of their bytes ("Ġthe" for " the"). By id.
  std::vector<Added> added(bool specials) const;

  /// Normal tokens only, by their bytes.
  std::optional<TokenId> find_normal(std::string_view bytes) const {
    return normal_.find(bytes, *this);
  }
  /// All others, by their text.
  std::optional<TokenId> find_added(std::string_view text) const {
    return added_.find(text, *this);
  }
  /// Any token; added ones take precedence.
  std::optional<TokenId> find(std::string_view text) const;

 private:
  struct Place {
    uint32_t begin = 0;  // in arena_
    uint16_t length = 0;
    TokenKind kind = TokenKind::kUnreachable;
    bool late = false;
  };
  struct Entry {
    TokenId id;
    Place place;
    bool change;  // may repeat an id
  };
  void append(int64_t id, std::string_view bytes, TokenKind kind, bool late, bool change);
  void change(Place& place, const Entry& e);

  std::string arena_;
  std::vector<Entry> entries_;  // until sealed
  std::vector<Place> places_;   // by id, once sealed
  std::vector<Entry> spelled_;  // second texts of normal tokens
  TokenIndex normal_, added_;
};

}  // namespace paddock
