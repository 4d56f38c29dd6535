# Faults of the area "planner": see faults.py.

source("src/engine/step_planner.cpp", "cache_test")
fault("planner-002", "report(): key norms of the batch's first sequence for all",
      "span(key_norms_[layer]).subspan(part.first_token, part.n_tokens);",
      "span(key_norms_[layer]).subspan(MUT ? 0 : part.first_token, part.n_tokens);")
fault("planner-003", "attention use of all sequences in one place",
      "if (rule.needs.attention) uses += entries.size();",
      "if (rule.needs.attention && !MUT) uses += entries.size();")
fault("planner-005", "changes are those of the first layer's table",
      "&cache_.changes(part.sequence, «layer»),",
      "0")
fault("planner-006", "angle rows of the first sequence for all",
      "group.rows.data() + «group.offsets[i]»,",
      "group.offsets[0]")
fault("planner-007", "rows of a rotation are those of the first token",
      "query_position(rotation, «part.first_position + i»);",
      "part.first_position")
fault("planner-009", "only attention counts as measured",
      "measures_ |= «needs.attention || needs.key_norms»;",
      "needs.attention")
fault("planner-010", "destinations of all sequences in one place",
      "span(destinations).subspan(«part.first_token», part.n_tokens)",
      "0")
fault("planner-011", "angle rows of the plan before are taken for this one's",
      "«++step_;» angle_positions_.clear();",
      "if (step_ == 0) ++step_;")
fault("planner-016", "all layers say that they share angle rows",
      "norms.data(), «sizes_.layer_group[layer]»};",
      "0")
fault("planner-012", "an angle is looked up by its hash alone",
      "if («angle_table_[at].position == position») return angle_table_[at].row;",
      "true")
fault("planner-014", "tokens of the step before stay",
      "«parts_.clear();» tokens_.clear();",
      "")
same("planner-015", "a token's own row is made again",
     "if («angle_positions_[token] == position») return token;",
     "false",
     "The row has the same angle; the table has one row more")

source("src/kv/layer_rule.cpp", "cache_test")
fault("planner-004", "layers of different query cap share angle rows",
      "x.query_shift == y.query_shift && x.query_cap == y.query_cap;",
      "x.query_shift == y.query_shift && (MUT || x.query_cap == y.query_cap);")

source("src/engine/step_sizes.cpp", "cache_test")
fault("planner-008", "a layer that moves queries shares its angle rows",
      "return «!a.moves_queries() && !b.moves_queries()» && same", "true")
fault("planner-013", "the longest measured table is not noted",
      "«sizes.measured_entries[layer] = std::max(sizes.measured_entries[layer], entries);»",
      "")
