#include "text/vocabulary.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <iterator>
#include <random>

#include "core/fail.h"
#include "core/utf8.h"
#include "text/byte_alphabet.h"

namespace paddock {
namespace {

// Tokens whose forging would let a message pretend to be another turn.
constexpr std::string_view kTurnTokens[] = {
    "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>",   "<|start_header_id|>",
    "<|end_header_id|>", "<|im_start|>",    "<|im_end|>", "<|endoftext|>"};

uint64_t multiply_fold(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t random_seed() {
  static const uint64_t seed = []() -> uint64_t {
    try {
      std::random_device device;
      return uint64_t{device()} << 32 | device();
    } catch (const std::exception&) {
      return 0x5851F42D4C957F2Du;  // no source of randomness: collisions can be made, no worse
    }
  }();
  return seed;
}

}  // namespace

TokenIndex::TokenIndex() : seed_(random_seed()) {}

void TokenIndex::reserve(size_t n) {
  size_t slots = 2;
  while (slots < n * 2 + 1) slots *= 2;
  slots_.assign(slots, -1);
  mask_ = slots - 1;
}

uint64_t TokenIndex::hash(std::string_view bytes) const {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15u;
  uint64_t h = multiply_fold(seed_ ^ bytes.size(), kOdd);
  while (bytes.size() > 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data(), 8);
    h = multiply_fold(h ^ word, seed_ | 1);
    bytes.remove_prefix(8);
  }
  uint64_t word = 0;
  std::memcpy(&word, bytes.data(), bytes.size());
  h = multiply_fold(h ^ word, seed_ | 1);
  return multiply_fold(h ^ seed_, kOdd);
}

void Vocabulary::append(int64_t id, std::string_view bytes, TokenKind kind, bool late,
                        bool change) {
  if (id < 0 || id > INT32_MAX - 1) {
    fail(ErrorCode::kBadFile, "token {}: id {} is out of range", quote(bytes), id);
  }
  if (bytes.size() > kMaxTokenBytes) {
    fail(ErrorCode::kBadFile, "token {}: its text has {} bytes, more than {}", id, bytes.size(),
         kMaxTokenBytes);
  }
  if (kind != TokenKind::kNormal && find_invalid_utf8(bytes) != std::string_view::npos) {
    fail(ErrorCode::kBadFile, "token {}: its text {} is not valid UTF-8", id, quote(bytes));
  }
  if (arena_.size() + bytes.size() > UINT32_MAX) {
    fail(ErrorCode::kBadFile, "the vocabulary's texts exceed 4 GiB");
  }
  if (std::find(std::begin(kTurnTokens), std::end(kTurnTokens), bytes) != std::end(kTurnTokens)) {
    kind = TokenKind::kSpecial;
  }
  entries_.push_back({static_cast<TokenId>(id),
                      {static_cast<uint32_t>(arena_.size()), static_cast<uint16_t>(bytes.size()),
                       bytes.empty() ? TokenKind::kUnreachable : kind, late},
                      change});
  arena_.append(bytes);
}

void Vocabulary::add(int64_t id, std::string_view bytes, TokenKind kind) {
  append(id, bytes, kind, false, false);
}

void Vocabulary::add_or_change(int64_t id, std::string_view text, TokenKind kind, bool late) {
  append(id, text, kind, late, true);
}

/// `e` gives the id of `place` again.
void Vocabulary::change(Place& place, const Entry& e) {
  const auto text = [&](const Place& p) {
    return std::string_view(arena_).substr(p.begin, p.length);
  };
  if (text(place) == text(e.place)) {
    place = e.place;
    return;
  }
  if (text(place) != bytes_from_alphabet(text(e.place))) {
    fail(ErrorCode::kBadFile, "token id {} is {} in the vocabulary but {} as an added token", e.id,
         quote(text(place)), quote(text(e.place)));
  }
  if (place.kind == TokenKind::kNormal && e.place.kind == TokenKind::kUserDefined) {
    spelled_.push_back(e);  // merges still make it
  } else {
    place = e.place;
  }
}

void Vocabulary::seal() {
  if (entries_.empty()) fail(ErrorCode::kBadFile, "the vocabulary is empty");
  std::stable_sort(entries_.begin(), entries_.end(),
                   [](const Entry& a, const Entry& b) { return a.id < b.id; });
  const uint64_t size = static_cast<uint64_t>(entries_.back().id) + 1;
  if (size > 2 * entries_.size() + 1024) {
    fail(ErrorCode::kBadFile, "token id {} is out of range for a vocabulary of {} tokens", size - 1,
         entries_.size());
  }
  places_.assign(size, {});
  const auto text = [&](const Place& p) {
    return std::string_view(arena_).substr(p.begin, p.length);
  };
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& e = entries_[i];
    Place& place = places_[static_cast<size_t>(e.id)];
    if (i == 0 || entries_[i - 1].id != e.id) {
      place = e.place;
      continue;
    }
    if (!e.change || entries_[i - 1].change) {
      fail(ErrorCode::kBadFile, "token id {} is given twice: {} and {}", e.id, quote(text(place)),
           quote(text(e.place)));
    }
    change(place, e);
  }
  size_t normal = 0;
  for (const Place& p : places_) normal += p.kind == TokenKind::kNormal;
  normal_.reserve(normal);
  added_.reserve(places_.size() - normal);
  for (const Entry& e : entries_) {
    const Place& p = places_[static_cast<size_t>(e.id)];
    if (p.length == 0 || p.begin != e.place.begin) continue;  // nameless, or replaced
    TokenIndex& index = p.kind == TokenKind::kNormal ? normal_ : added_;
    if (const auto other = index.insert(text(p), e.id, *this)) {
      fail(ErrorCode::kBadFile, "token {} has two ids, {} and {}", quote(text(p)), *other, e.id);
    }
  }
  entries_ = {};
}

std::vector<Vocabulary::Added> Vocabulary::added(bool specials) const {
  std::vector<Added> all;
  for (TokenId id = 0; id < size(); ++id) {
    const Place& p = places_[static_cast<size_t>(id)];
    if (p.kind == TokenKind::kUserDefined || (specials && p.kind == TokenKind::kSpecial)) {
      all.push_back({bytes(id), id, p.late});
    }
  }
  for (const Entry& e : spelled_) {
    const Place& p = e.place;
    all.push_back({std::string_view(arena_).substr(p.begin, p.length), e.id, p.late});
  }
  return all;
}

std::optional<TokenId> Vocabulary::find(std::string_view text) const {
  if (text.empty()) return std::nullopt;
  if (const auto id = find_added(text)) return id;
  return find_normal(text);
}

}  // namespace paddock
