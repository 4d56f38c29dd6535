# Faults of the area "backend": see faults.py.

source("src/backend/devices.cpp", "cuda_engine_test:*Devices*")
fault("backend-001", "a device of a negative number counts as known",
      "if (error == std::errc() && at == end && «index >= 0») return",
      "true")
fault("backend-002", "what follows a device's number is ignored",
      "if (error == std::errc() && «at == end» && index >= 0) return",
      "true")

source("src/backend/cpu/cpu_steps.cpp", "logits_test engine_behaviour_test engine_test")
fault("backend-010", "rotary angles: the sine lacks the attention factor",
      "static_cast<float>(std::sin(angle)) * «limits_.model.attention_factor»;",
      "1.0F")
fault("backend-011", "the time of attention is not counted",
      "«clocks_.add(layer, std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count());»",
      "", tests="engine_behaviour_test")
fault("backend-012", "keys and values that do not fit are not counted",
      "«if (overflows > 0) overflows_.add(layer, overflows);»",
      "", tests="engine_test:Overflow*")
fault("backend-013", "masses of the last step are added to",
      "«std::fill_n(masses, int64_t{s.n_tokens} * n_entries, int64_t{0});»",
      "", tests="eviction_test logits_test policy_test")

source("src/backend/cpu/cpu_pages.cpp", "cuda_engine_test:*DevicePages*")
fault("backend-020", "pages do not come back from the host",
      "«std::memcpy(view_.page(c.page), c.host, page_bytes());»",
      "")

source("src/backend/cuda/step_recorder.cpp", "cuda_engine_test:CudaStep.*")
fault("backend-030", "a step that was stopped while it was recorded is replayed later",
      "if («!completed») { runtime_->discard_recording(); return false; }",
      "false")
fault("backend-031", "where a recording fails the step is left out",
      "«if (!enabled_) return launches();» } runtime_->replay",
      "if (!enabled_) return true;")
fault("backend-032", "after a recording failed the next step is recorded all the same",
      "entries_.clear(); «enabled_ = false;»",
      "")

source("src/backend/cuda/cuda_steps.cpp", "cuda_engine_test:*Attention*Counted*")
fault("backend-040", "the attention of steps that nobody waits for is not counted",
      "«timed_layers_ = static_cast<int32_t>(plan.layers.size());»",
      "")

source("src/backend/cuda/cuda_results.cpp", "cuda_engine_test:*Attention*Counted*")
fault("backend-041", "the attention of a step is counted with every wait",
      "std::min(«std::exchange(timed_layers_, 0)», DeviceRuntime::kMarks / 2);",
      "timed_layers_")

fault("backend-042", "tokens are drawn from the first rows, whichever are asked for",
      "SampleArgs args{.logits = «logits.data», .stride",
      "logits.data - logits.stride", tests="cuda_engine_test:*EitherOrder*")

source("src/model/make_weights.cpp", "engine_test logits_test")
fault("backend-050", "up stands in the place of gate",
      "visitor.linear({«&from.gate», &from.up}, to.gate_up);",
      "&from.up", tests="logits_test")

source("kernels/cpu/float_linear.h", "kernels_test:*Linear*")
fault("backend-060", "sums of a batch of tokens begin with those of the batch before",
      "«std::memset(panel.sums, 0, static_cast<size_t>(n * kPanelRows) * sizeof(float));»",
      "")
fault("backend-061", "every tile of a batch is multiplied with the batch's first tokens",
      "panel.weights, input_floats(input, «token + t», k),",
      "token")
source("kernels/cpu/panels.h", "kernels_test:*Linear*")
fault("backend-062", "where many tokens are added to what is there, that is lost",
      "store_lanes(y + row + r, «accumulate» ? load_lanes<Lanes>",
      "false")
fault("backend-073", "a last batch of tokens is as large as the others",
      "const int64_t n = «n_tokens - token < size ? n_tokens - token : size»; for (int64_t row",
      "n_tokens < size ? n_tokens : size")
source("kernels/cpu/float_linear.h", "kernels_test:*Linear*")
fault("backend-063", "a panel takes the first rows of a group for its later ones",
      "float_weights<kFormat>(from + c * kBytes, «at % kGroupRows»);",
      "0")

source("kernels/cpu/integer_linear.h", "kernels_test:*Linear*")
fault("backend-075", "minima of large blocks are added",
      "store_lanes(minima, «-(halves(w + 32 + 2 * row) * bytes_to_float<uint8_t>(sub + 16 + row))»);",
      "halves(w + 32 + 2 * row) * bytes_to_float<uint8_t>(sub + 16 + row)")
fault("backend-076", "every part of a large block has the first one's scale",
      "const uint8_t* sub = w + 64 + «j» * 288;",
      "0 * j")
fault("backend-077", "sums of a batch of tokens begin with those of the batch before",
      "«std::memset(panel.sums, 0, static_cast<size_t>(n * kIntRows) * sizeof(float));»",
      "")
fault("backend-078", "every tile of a batch is multiplied with the batch's first tokens",
      "panel, &input_panel(input, «token + t», k),",
      "token")
fault("backend-079", "a panel's second half of 32 takes the sum of its first",
      "form.values == 32 ? in.scaled_sum : in.scale * static_cast<float>(in.sum[«k / 16 % 2»]);",
      "0")

source("kernels/cpu/fast_avx2.cpp", "kernels_test:*Linear*")
fault("backend-088", "the second vector of a panel's rows is the first",
      "load(values + (c * kIntVectors + «v») * 32);",
      "0")

source("kernels/cpu/input_body.h", "kernels_test:*Linear*")
fault("backend-080", "what is infinite becomes a whole number",
      "if («!(largest <= 3.4e38F)») {",
      "largest != largest")
fault("backend-081", "the largest is that of the first values",
      "«most = most > bits ? most : bits;»",
      "if (v == 0) most = bits;")
fault("backend-082", "both halves' sums are counted as the first's",
      "sums[«v * kRows / 16»] += whole;",
      "0")
fault("backend-083", "values beyond the first panel lie where its own do",
      "quantize_block(row + k, panel.values + «c»,",
      "0")

source("kernels/cpu/fast_amx.cpp", "kernels_test:*Linear*")
fault("backend-084", "the last tokens of a block of one tile are left out",
      "with_count<kTokenTiles>(«n - t > kTileTokens ? 2 : 1»,",
      "1")
fault("backend-085", "sums of later panels begin anew",
      "input_bf16(input, token + t, k), columns, «k == 0»,",
      "true")
fault("backend-086", "both groups of a block are multiplied with the first one's weights",
      "_tile_loadd(7, w + «w_stride», 64);",
      "0")

source("kernels/cpu/linear_pack.h", "kernels_test:*Linear*")
fault("backend-064", "activations of a token's later columns lie where its first ones do",
      "reinterpret_cast<const float*>(input.data) + «k * input.n_tokens» + t * kInputCols;",
      "0")

source("kernels/cpu/linear_pack.cpp", "kernels_test:*Linear*")
fault("backend-070", "columns beyond the last whole square are left out",
      "pack_floats(format, rows + lane * stride, «done», cols, lane, out);",
      "cols")
fault("backend-071", "the last group's rows are turned with those beyond the matrix",
      "if («n_rows == kGroupRows») { done =",
      "n_rows > 0")
fault("backend-072", "every square of a group's rows is that of its first ones",
      "square(rows + «lane * stride» + i",
      "0")
