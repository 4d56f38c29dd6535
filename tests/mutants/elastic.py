# Faults of the area "elastic": see faults.py. Of budgets that fall in company: forks, texts that are
# parked, and who gives how much.

source("src/kv/recall.cpp", "dense_test:*ElasticDense*")
fault("elastic-001", "a budget that had fallen is not in force when the text is computed again",
      "«table.schedule = schedule;» if (sequence.log->next_length() != length", "")

source("src/kv/fork.cpp", "dense_test:*ElasticDense*")
fault("elastic-002", "a fork's queries meet what is left as if nothing had left before",
      "«to.rotations.assign(from.rotations.begin(), from.rotations.end());»", "")

source("src/kv/fall.cpp", "dense_test:*ElasticDense*")
fault("elastic-003", "after a fall layers go on as before",
      "«sequence.layers[layer].schedule = planned.schedule;»", "")

source("src/kv/own_tail.cpp", "dense_test:*ElasticDense*")
fault("elastic-004", "who goes on from a part of a block writes into the other's",
      "return pool.references(table.entries.back().page) > «1»; }); } bool CacheManager::Impl::must", "2")

source("src/engine/levels.cpp", "dense_test:*ElasticDense*")
fault("elastic-005", "who is computed again gives up what it had",
      "may_fall(sequence, its) && «(!comes_back || is_too_much)»;", "true")

source("src/engine/levels.cpp", "elastic_test:ElasticScenes.*")
fault("elastic-006", "priorities weigh without end",
      "std::exp2(«std::clamp(priority, -kMostLevels, kMostLevels)»)", "priority")
source("src/engine/pressure.cpp", "elastic_test:ElasticScenes.*")
fault("elastic-007", "where pages are short a chunk ends wherever they do",
      "n = static_cast<int32_t>(std::min<int64_t>(n, last - at)); if (n <= 0) return 0; «»if (fits(at + n))",
      "while (n > 1 && cache_.pages_ahead(sequence.tables(), at + n) > pages) --n; return n;")
fault("elastic-008", "where pages are short a chunk ends at the next decision length, however many can be had",
      "return observed(std::min<int64_t>(n, first + «(most - 1) * interval» - at));", "0")

source("src/kv/fall.cpp", "dense_test:ElasticDense.What*")
fault("elastic-009", "what a smaller budget protects is not known when it falls",
      "fill_view(sequence, layer, «planned.schedule»); ask(", "sequence.layers[layer].schedule")
fault("elastic-010", "a fall takes an eighth more than it must",
      "const int64_t excess = «table.tokens - planned.schedule.budget»;",
      "table.tokens - planned.schedule.budget * 7 / 8")
