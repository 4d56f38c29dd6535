# Faults of the area "models": see faults.py.

SETTINGS = "model_settings_test"

source("src/model/config_json.cpp", SETTINGS)
fault("models-001", "another model_type is taken",
      'if («type != "llama"») {',
      "false")
fault("models-002", "architectures are not looked at",
      'if («name != "LlamaForCausalLM"») {',
      "false")
fault("models-003", "any activation is taken",
      'if («activation != "silu" && activation != "swish"») {',
      "false")
fault("models-004", "swish is refused",
      'activation != "silu" && «activation != "swish"») {',
      "true")
fault("models-005", "biases are ignored",
      "if («config.flag(key).value_or(false)») {",
      "false")
fault("models-006", "biases of the MLP are ignored",
      '"attention_bias", «"mlp_bias"»}',
      '"attention_bias"')
fault("models-007", "quantization_config is ignored",
      'if («config.find("quantization_config") != nullptr») {',
      "false")
fault("models-008", "-1 is no absent stop token",
      "if («id == -1») return;",
      "false",
      tests="field_reports_test:FieldReports.MinusOneIsNoToken")
fault("models-009", "of a list of stop tokens the first counts",
      "for (const Json& id : *value) «add(id);»",
      "if (&id == &value->front()) add(id);")
fault("models-010", "generation_config.json names no stop tokens",
      "if (generation.is_object()) «add_stop_tokens(settings, c.stop_tokens);»",
      "")
fault("models-011", "heads of keys and values: one unless said",
      'config.size("num_key_value_heads").value_or(«c.n_heads»)',
      "1")
fault("models-012", "head_dim: 64 unless said",
      'config.size("head_dim").value_or(«c.hidden_size / c.n_heads»)',
      "64")
fault("models-013", "the context: 4096 unless said",
      'config.integer("max_position_embeddings").value_or(«2048»)',
      "4096")
fault("models-014", "rms_norm_eps: 1e-5 unless said",
      'config.number("rms_norm_eps").value_or(«1e-6»)',
      "1e-5")
fault("models-015", "embeddings are tied unless said",
      'config.flag("tie_word_embeddings").value_or(«false»)',
      "true")
fault("models-016", "a vocabulary of 32000 unless said",
      'c.vocab_size = «config.required_size("vocab_size")»;',
      'config.size("vocab_size").value_or(32000)')

source("src/model/config_gguf.cpp", SETTINGS)
fault("models-017", "another architecture is taken",
      'if («architecture != "llama"») {',
      "false")
fault("models-018", "experts are ignored",
      "if («value && *value != 0») {",
      "false")
fault("models-019", "no experts are refused",
      "if (value && «*value != 0») {",
      "true")
fault("models-020", "a model that is not causal is taken",
      'if («!file.flag("llama.attention.causal").value_or(true)») {',
      "false")
fault("models-021", "heads of keys and values: one unless said",
      '"llama.attention.head_count_kv", c.n_layers).value_or(«c.n_heads»)',
      "1")
fault("models-022", "head_count_kv: no arrays",
      'file.size("llama.attention.head_count_kv", «c.n_layers»)',
      "0")
fault("models-023", "feed_forward_length: no arrays",
      'file.required_size("llama.feed_forward_length", «c.n_layers»)',
      "0")
fault("models-024", "head_count: no arrays",
      'file.required_size("llama.attention.head_count", «c.n_layers»)',
      "0")
fault("models-025", "values of another size than keys",
      "if («value_dim != c.head_dim») {",
      "false")
fault("models-026", "a part of a head rotates",
      "if («rotated != c.head_dim») {",
      "false")
fault("models-027", "a vocab_size other than the embedding's is not said",
      "if («said && *said != c.vocab_size») {",
      "false")
fault("models-028", "vocab_size counts, not the embedding",
      "«c.vocab_size = static_cast<int32_t>(rows);»",
      'c.vocab_size = static_cast<int32_t>(settings.integer("llama.vocab_size").value_or(rows));')
fault("models-029", "freq_base: 500000 unless said",
      'settings.number("llama.rope.freq_base").value_or(«10000.0»)',
      "500000.0")
fault("models-030", "a factor without a type is not linear",
      "if («rope.factor != 1.0») rope.kind = RopeConfig::Kind::kLinear;",
      "kind && rope.factor != 1.0")
fault("models-031", "factor 0 is not 1",
      "rope.factor = «scale == 0.0 ? 1.0 : scale»;",
      "scale == 0.0 && !factor && !legacy ? 1.0 : scale")
fault("models-032", "scale_linear is not known",
      "factor.value_or(«legacy.value_or(0.0)»)",
      "0.0")
fault("models-033", "scale_linear counts over scaling.factor",
      "const double scale = «factor.value_or(legacy.value_or(0.0))»;",
      "legacy.value_or(factor.value_or(0.0))")
fault("models-034", "two names of the factor contradict each other in silence",
      "if («factor && legacy && *factor != *legacy») {",
      "false")
fault("models-035", "yarn without its original length",
      "if («rope.original_context == 0») rope.original_context = c.context_length;",
      "false")
fault("models-036", "keys of yarn that llama.cpp does not read are ignored",
      "if («std::abs(*value - right) <= 1e-4 * std::abs(right)») return;",
      "true")
fault("models-037", "yarn_ext_factor -1 is refused",
      '"llama.rope.scaling.yarn_ext_factor", {1.0, «-1.0»}',
      "1.0")
fault("models-038", "yarn_attn_factor 1 is refused",
      "{yarn_attention_factor(rope.factor), «1.0»}",
      "yarn_attention_factor(rope.factor)")
fault("models-039", "yarn_attn_factor of yarn's formula is refused",
      "{«yarn_attention_factor(rope.factor)», 1.0}",
      "1.0")
fault("models-040", "type none beside a factor: nothing is said",
      'else if (*kind == "none") { if («rope.factor != 1.0») {',
      "false")
fault("models-041", "type none beside a factor: it is scaled",
      "«rope.factor = 1.0;» }",
      "rope.kind = RopeConfig::Kind::kLinear;")
fault("models-042", "attn_factor is ignored",
      "rope.attention_factor = «attention» * rope_attention_factor(rope);",
      "1.0")
fault("models-043", "yarn's own factor is ignored",
      "rope.attention_factor = attention * «rope_attention_factor(rope)»;",
      "1.0")
fault("models-044", "attn_factor 0 is taken",
      "if («!(attention > 0.0)») {",
      "false")
fault("models-045", "rope_freqs are not read",
      'if («tensor.name != "rope_freqs.weight"») continue;',
      "true")
fault("models-046", "keys that say nothing are named",
      '{«"llama.rope.scaling.finetuned"», "llama.tensor_data_layout"',
      '"llama.pooling_type"')
fault("models-047", "keys that nobody reads are not named",
      'settings.unasked(«"llama."»)',
      '"general.none."')
fault("models-048", "Llama 3.1 without rope_freqs: nothing is said",
      "if («c.context_length > 8192» && c.rope.theta",
      "false",
      tests="cli_test:CliLog.WarningsComeOnceOnStderr")

source("src/model/rope_json.cpp", SETTINGS)
fault("models-049", "an empty object describes RoPE",
      "if (value == nullptr || «value->empty()») return nullptr;",
      "false")
fault("models-050", "non-empty rope_scaling does not win over rope_parameters",
      "if («scaling != nullptr») { keys",
      "parameters == nullptr && scaling != nullptr")
fault("models-051", "two objects contradict each other in silence",
      'if («parameters != nullptr && differs(*parameters, "rope_parameters", config, c)») {',
      "false")
fault("models-052", "two objects that say the same contradict each other",
      'parameters != nullptr && «differs(*parameters, "rope_parameters", config, c)»',
      "true")
fault("models-053", "an object that does not count has to be readable",
      "catch (const Error&) { «return true;»",
      "throw;")
fault("models-054", "levels contradict each other in silence",
      "if («wins == nullptr || loses == nullptr || *wins == *loses») return;",
      "true")
fault("models-055", "levels that say the same contradict each other",
      "loses == nullptr || «*wins == *loses») return;",
      "false")
fault("models-056", "a part of the dimensions rotates",
      "if («part != 1.0») {",
      "false")
fault("models-057", "type and rope_type differ",
      "if («modern && legacy && *modern != *legacy») {",
      "false")
fault("models-058", "type is not known",
      'modern.value_or(«legacy.value_or("default")»)',
      'std::string("default")')
fault("models-059", "attention_factor does not count beside both mscales",
      "if (given) return *given;",
      "if (given && !(MUT && mscale != 0.0)) return *given;")
fault("models-060", "one mscale is enough",
      "if («mscale == 0.0 || all == 0.0») return",
      "mscale == 0.0 && all == 0.0")
fault("models-061", "attention_factor 0 is taken",
      "if («given && !(*given > 0.0)») {",
      "false")
fault("models-062", "a beta of 0 is 0",
      "return «value == 0.0 ? otherwise : value»;",
      "scaling.find(key) == nullptr ? otherwise : value")
fault("models-063", "truncate null is true",
      'scaling.flag("truncate").value_or(«!object.contains("truncate")»)',
      "true")
fault("models-064", "truncate is false unless said",
      'scaling.flag("truncate").value_or(!«object.contains("truncate")»)',
      "true")
fault("models-065", "yarn: a factor of null is refused",
      'if («kind == "yarn" && object.contains("factor") && c.rope.original_context > 0») {',
      "false")
fault("models-066", "yarn: no factor is one of null",
      'kind == "yarn" && «object.contains("factor")» &&',
      "true")
fault("models-067", "top-level original_max_position_embeddings is not first",
      "rope.original_context = «config.integer(key).value_or(inner.value_or(c.context_length))»;",
      "inner.value_or(config.integer(key).value_or(c.context_length))")
fault("models-068", "original_max_position_embeddings: 8192 unless said",
      "inner.value_or(«c.context_length»)",
      "8192")
fault("models-069", "two original lengths in silence",
      "«compare_levels(config, scaling, key, c);»",
      "")
fault("models-070", "rope_theta of the object does not count",
      'c.rope.theta = «rope.number("rope_theta").value_or(outer.value_or(10000.0))»;',
      'outer.value_or(rope.number("rope_theta").value_or(10000.0))')
fault("models-071", "rope_theta beside an object is forgotten",
      "value_or(«outer.value_or(10000.0)»)",
      "10000.0")
fault("models-072", "two thetas in silence",
      '«compare_levels(rope, config, "rope_theta", c);»',
      "")
fault("models-073", "low_freq_factor: 2 unless said",
      'scaling.number("low_freq_factor").value_or(«1.0»)',
      "2.0")
fault("models-074", "high_freq_factor: 8 unless said",
      'scaling.number("high_freq_factor").value_or(«4.0»)',
      "8.0")
fault("models-075", "keys of the object that nobody reads are not named",
      "for (const std::string& left : «rope.unasked()») {",
      "std::vector<std::string>()")
fault("models-076", "RoPE that differs between layers is ignored",
      "if («object[left].is_object()») {",
      "false")
fault("models-077", "what one object said stays beside the other",
      "«c.rope = {};»",
      "")

source("src/model/settings.cpp", SETTINGS)
fault("models-078", "null is not absent",
      "it == object_.end() || «it->is_null()» ? nullptr",
      "false")
fault("models-079", "a null that nobody reads is named",
      "if («!value.is_null()» && !asked_.contains(key))",
      "true")
fault("models-080", "keys are named although they were read",
      "key.starts_with(prefix) && «!asked_.contains(std::string(key))»",
      "true")
fault("models-081", "a size of 0",
      "if («value < 1» || value > kMaxSize) {",
      "value < 0")
fault("models-082", "a size beyond all",
      "if (value < 1 || «value > kMaxSize») {",
      "false")

source("src/model/weights.cpp", SETTINGS)
fault("models-083", "tied embeddings: an lm_head that differs does not count, and nothing is said",
      "else if («same_values(binder.at(kHead), binder.at(kEmbedding))») {",
      "true")
fault("models-084", "tied embeddings: the same lm_head is said to differ",
      "return a.dtype == b.dtype && «a.shape == b.shape» &&",
      "false")
fault("models-085", "tied embeddings: any lm_head is the same",
      "«std::equal(a.data.begin(), a.data.end(), b.data.begin(), b.data.end())»;",
      "true")
fault("models-086", "tied embeddings: lm_head alone is refused",
      "if («!binder.has(kEmbedding)») {",
      "!binder.has(kEmbedding) && !head")
fault("models-087", "untied embeddings without lm_head",
      "if («head») return; fail",
      "true")
fault("models-088", "rope_freqs are refused",
      '«binder.ignore("rope_freqs.weight");»',
      "")
fault("models-089", "inv_freq of older exports is refused",
      '«binder.ignore("model.rotary_emb.inv_freq");»',
      "")
fault("models-090", "inv_freq of layers is refused",
      '«binder.ignore(fmt::format("model.layers.{}.self_attn.rotary_emb.inv_freq", i));»',
      "")
fault("models-091", "tensors that no layer has are ignored",
      "if («by_name_.empty()») return;",
      "true")
fault("models-092", "tensors of another shape",
      "if («tensor.shape != shape») {",
      "tensor.shape.size() != shape.size()")

source("src/io/safetensors.cpp", SETTINGS)
fault("models-093", "a tensor in two shards: the first counts, not the index's",
      "if («owner->second != shard») return; kept.shard",
      "true")
fault("models-094", "a tensor in two shards: the last counts, not the index's",
      "«if (owner->second != shard) return;» kept.shard",
      "")
fault("models-095", "a tensor in two shards: nothing is said",
      'warnings_.push_back(fmt::format( "tensor',
      'if (!MUT) warnings_.push_back(fmt::format( "tensor')
fault("models-096", "a tensor in two shards that the index does not name",
      "const auto owner = owners_.find(view.name); if (owner == owners_.end() ||",
      "const auto owner = owners_.find(view.name); if (MUT && owner == owners_.end()) return; "
      "if (owner == owners_.end() ||")
fault("models-097", "the index counts beside model.safetensors",
      "if («fs::exists(path / kSingle)») { names",
      "!fs::exists(path / kIndex)")

source("src/model/model.cpp", SETTINGS)
fault("models-098", "warnings of shards are lost",
      "«data.config.warnings.push_back(warning);»",
      "")
fault("models-099", "the tokenizer's stop tokens are lost",
      "«stops.insert(data->tokenizer->stop_tokens().begin(), data->tokenizer->stop_tokens().end());»",
      "",
      tests="field_reports_test:FieldReports.MinusOneIsNoToken chat_test:ChatTurns.* sampling_test")
fault("models-100", "config.json's stop tokens are lost",
      "std::set<TokenId> stops(«data->config.stop_tokens.begin()»,",
      "data->config.stop_tokens.end()",
      tests=SETTINGS)
fault("models-101", "a special token without a row: nothing is said",
      'data.config.warnings.push_back(surplus + "; prompts',
      'if (!MUT) data.config.warnings.push_back(surplus + "; prompts', tests="field_reports_test:FieldReports.ASpecialTokenWithoutARowIsNoHindrance")
fault("models-102", "a plain token without a row is taken",
      "if («data.tokenizer->is_special(id) || data.tokenizer->token_bytes(id).empty()») continue;",
      "true", tests="field_reports_test:FieldReports.ASpecialTokenWithoutARowIsNoHindrance")
fault("models-103", "a special token without a row hinders",
      "if («data.tokenizer->is_special(id)» || data.tokenizer",
      "false", tests="field_reports_test:FieldReports.ASpecialTokenWithoutARowIsNoHindrance")
fault("models-104", "warnings are not logged",
      '«log(LogLevel::kWarning, "{}: {}", path, warning);»',
      "", tests="cli_test:CliLog.WarningsComeOnceOnStderr")

source("src/engine/setup.cpp", "model_settings_test:ModelSettings.AContextBeyondTheTrainedOneIsSaid")
fault("models-105", "a context beyond the trained one is not said",
      "if («std::min(farthest, o.context) > trained») return true;",
      "false")
fault("models-106", "windows are said to see everything",
      "const bool near = «rule.has_window()» || rule.moves_queries();",
      "false")
fault("models-107", "compact positions are said to lie far away",
      "|| «rule.moves_queries()»; const int64_t farthest",
      "false")
fault("models-108", "original positions are said to lie near",
      "«rule.has_window() || rule.moves_queries()»; const",
      "true")
fault("models-109", "a window longer than the trained context is not said",
      "near && rule.bounded() ? «rule.max_resident(o.batch_size)» : o.context;",
      "0")

source("src/model/rope_options.cpp", "model_settings_test:RopeOptions.*")
fault("models-110", "a factor below 1 is taken",
      '«o.factor >= 1» && o.factor <= kMaxPositions',
      'true')
fault("models-111", "divisors of the file are kept as its original context",
      'if («!c.rope.divisors.empty()») {',
      'false')
fault("models-112", "the file's scaled context counts as the original one",
      'return std::llround(«static_cast<double>(c.context_length) / c.rope.factor»);',
      'static_cast<double>(c.context_length)')
fault("models-113", "an original context that the file names is not taken",
      'if («c.rope.original_context > 0») return',
      'false')
fault("models-114", "a factor alone takes the file's scaling away",
      'if (scaling == RopeScaling::kFile) «scaling = scaling_of(c.rope);»',
      'scaling = RopeScaling::kNone;')
fault("models-115", "none beside a factor is taken",
      'if («!stretches && o.factor > 1») {',
      'false')
fault("models-116", "another kind keeps what belongs to the file's",
      'if («same_kind») next = c.rope;',
      'true')
fault("models-117", "the attention factor of the file's factor stays",
      '«next.attention_factor = 0;»',
      '')
fault("models-118", "the context stays the file's",
      'c.context_length = «static_cast<int64_t>(context)»;',
      'c.context_length')
fault("models-119", "the base of the file is lost",
      '«next.theta = c.rope.theta;»',
      '')
fault("models-120", "how pairs lie in the file is lost",
      '«next.interleaved = c.rope.interleaved;»',
      '')
fault("models-121", "more positions than can be counted",
      'if («context > kMaxPositions») {',
      'false')
