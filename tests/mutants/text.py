# Faults of the area "text": see faults.py.

source("src/engine/text_stream.cpp", "engine_test sampling_test")
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
