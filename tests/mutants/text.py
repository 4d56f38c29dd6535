# Faults of the area "text": see faults.py.

source("src/engine/text_stream.cpp", "sampling_test engine_behaviour_test")
fault("text-001", "stop strings that end together: the later one wins",
      "end == stop_end && at < stop_begin",
      "end == stop_end && (MUT ? at > stop_begin : at < stop_begin)")
fault("text-002", "stop string that begins first wins, not the one complete first",
      "if (end < stop_end || (",
      "if ((MUT ? at < stop_begin : end < stop_end) || (")
fault("text-003", "hold-back one byte short",
      "std::min(stop.size() - 1, open.size())",
      "std::min(stop.size() - (MUT && stop.size() > 2 ? 2 : 1), open.size())")
fault("text-004", "begun stop string is lost at the end",
      "final_ = text_.size(); // a stop",
      "if (!MUT) final_ = text_.size(); // a stop")
fault("text-005", "stop string stays in the result's text",
      "text_.resize(final_);",
      "if (!MUT) text_.resize(final_);")
fault("text-006", "text goes on after a stop string",
      "if («!decoder_ || stopped_») return; if (std::find",
      "!decoder_")
fault("text-007", "a special token that ends the text takes what was held back with it",
      "«finish();» stopped_ = true;",
      "")
fault("text-008", "any token whose text is a stop string ends the text before it",
      "if (id && «tokenizer->is_special(*id)») stop_tokens_.push_back(*id);",
      "true")
fault("text-009", "text is given out twice",
      "«taken_ = final_;»",
      "")
fault("text-010", "the last stop string decides what is held back",
      "n > «keep»; --n) {",
      "0")
fault("text-011", "an unfinished character is lost at the end",
      "«text_ += decoder_->finish();»",
      "")
fault("text-012", "the end completes no stop string",
      "text_ += decoder_->finish(); «settle();»",
      "")
fault("text-013", "special tokens stop nothing",
      "if («id && tokenizer->is_special(*id)») stop_tokens_.push_back(*id);",
      "false")

source("src/engine/text_stream.h", "sampling_test engine_behaviour_test")
fault("text-014", "what is held back is in the result",
      "«text_.resize(final_);» return std::move(text_);",
      "")
