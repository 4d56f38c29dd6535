#include "engine/sequence.h"

#include "core/fail.h"

namespace paddock {
namespace {

/// Of a log, taken before anything is decided.
constexpr int64_t kReservedBytes = 1 << 20;

}  // namespace

void Sequence::open() {
  tables_ = cache_.open(&log_, rules_, &protected_);
  n_told_ = 0;
}

void Sequence::note_parking(int64_t pages) {
  if (peak_pages_ > 0) peak_pages_ = std::max({peak_pages_, cache_.pages_listed(*tables_), pages});
  reached_ = reached();
  trims_ = trims();
}

void Sequence::park(int64_t pages) {
  note_parking(pages);
  cache_.park(*tables_, tokens);
  tables_.reset();
}

KvPreemption Sequence::give_way(int64_t parked, int64_t request, int64_t pages) {
  note_parking(pages);
  const KvPreemption told = cache_.preempt(
      *tables_, tokens,
      {.parked = parked, .session = session, .request = request, .tokens = reached_});
  tables_.reset();
  return told;
}

KvBudgetChange Sequence::fall(int64_t request) {
  const int32_t before = log_.last_budget();
  if (comes_back()) {
    cache_.forget_decisions(*tables_, computed());
    peak_pages_ = 0;
  }
  peak_pages_ = std::max(peak_pages_, cache_.pages_listed(*tables_));
  return cache_.fall(*tables_, request, before);
}

std::optional<KvBudgetChange> Sequence::lift() {
  const int32_t before = log_.last_budget();
  if (before == kUnlimited) return std::nullopt;
  // What lies beyond what the log knows is decided anew, without that budget: of one that fell on
  // its way back, and was interrupted there, that is less than it had reached.
  return cache_.lift(log_, std::max(log_.reaches(), computed()), before, tables_);
}

void Sequence::copy(const Sequence& other) {
  tokens = other.tokens;
  protected_ = other.protected_;
  least_budget_ = other.least_budget_;
  prompt_ends_ = other.prompt_ends_;
  reached_ = other.reached();
  trims_ = other.trims();
  log_.begin_as(other.log_, other.reached());
  peak_pages_ = other.peak_pages_;
}

void Sequence::fork(const Sequence& other) {
  cache_.fork(other.tables(), *tables_);
  n_told_ = other.n_told_;
  peak_pages_ = other.peak_pages_;
}

void Sequence::make_room(int64_t length) {
  tokens.reserve(static_cast<size_t>(length));
  const int64_t entries =
      std::min(cache_.max_logged(rules_, length), kReservedBytes / int64_t{sizeof(DecisionEntry)});
  log_.make_room(std::max<int64_t>(0, entries - log_.n_entries()));
}

void Sequence::set_prompt(int64_t end) {
  if (end > reached() && cache_.heeds_prompts(rules_)) prompt_ends_.push_back({reached(), end});
}

int64_t Sequence::max_next() {
  const int64_t at = computed();
  for (; n_told_ < prompt_ends_.size() && prompt_ends_[n_told_].said_at <= at; ++n_told_) {
    cache_.set_prompt(*tables_, prompt_ends_[n_told_].end);
  }
  const int64_t max = cache_.max_next(*tables_);
  return n_told_ == prompt_ends_.size() ? max : std::min(max, prompt_ends_[n_told_].said_at - at);
}

void Sequence::protect(PositionRange range) {
  Protection next = protected_.with(range);
  const int32_t least = cache_.check_protection(rules_, next);
  if (const int32_t fallen = log_.least_budget(); fallen < least) {
    fail(ErrorCode::kInvalidArgument,
         "the sequence's budget has fallen to {} positions before, too few to choose from beside "
         "what is to be protected, which takes {}; protect fewer positions, or earlier",
         fallen, least);
  }
  cache_.set_protection(protected_, next, tables_);
  least_budget_ = least;
}

void Sequence::unprotect(PositionRange range) {
  Protection next = protected_.without(range);
  const int32_t least = cache_.check_protection(rules_, next);
  cache_.set_protection(protected_, next, tables_);
  least_budget_ = least;
}

void Sequence::truncate(int64_t length) {
  // A host's rule may answer otherwise than it did: it is asked before anything changes.
  Protection kept = protected_;
  kept.cut(length);
  const int32_t least = cache_.check_protection(rules_, kept);
  const int64_t had = reached();
  if (length < computed()) {
    cache_.truncate(*tables_, length);
  } else if (tables_) {
    cache_.forget_decisions(*tables_, length);
  } else {
    log_.cut(length);
  }
  reached_ = std::min(had, length);
  if (length == 0) trims_ = peak_pages_ = 0;
  const auto told = static_cast<std::ptrdiff_t>(n_told_);
  const auto is_void = [&](const PromptEnd& prompt) { return prompt.end > length; };
  n_told_ -= std::count_if(prompt_ends_.begin(), prompt_ends_.begin() + told, is_void);
  std::erase_if(prompt_ends_, is_void);
  // The cache goes by the last one that it was told and that is left.
  if (tables_) cache_.restore_prompt(*tables_, n_told_ > 0 ? prompt_ends_[n_told_ - 1].end : 0);
  tokens.resize(static_cast<size_t>(length));
  cache_.set_protection(protected_, kept, tables_);
  least_budget_ = least;
}

}  // namespace paddock
