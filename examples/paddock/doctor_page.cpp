#include "doctor_page.h"

#include <fmt/format.h>

#include <map>

#include "advice.h"
#include "doctor_drawings.h"
#include "doctor_style.h"
#include "doctor_words.h"
#include "log.h"
#include "wording.h"

namespace cli {
namespace {

using paddock::Diagnosis;

constexpr size_t kMostRows = 40;
constexpr double kMiB = 1024.0 * 1024.0;

/// A figure of --json, where a reader, or a test, finds it by name.
std::string f(const Diagnosis& d, const char* name) {
  return fmt::format("<span data-figure='{}'>{}</span>", name, number_text(figure(d, name)));
}

std::string shown(const std::string& text) { return escaped(one_line(text)); }

bool is_endless(const Diagnosis& d) { return d.header.context >= paddock::kUnlimited; }

std::string context_text(const Diagnosis& d) {
  return is_endless(d) ? "any number" : std::to_string(d.header.context);
}

std::string head(const ExaminedTrace& t) {
  const Diagnosis& d = t.diagnosis;
  std::string out = fmt::format(
      "<h1>{}</h1>\n<p class='verdict'>{}</p>\n<p>{}</p>\n<p class='soft'>{} under "
      "<code>{}</code>, "
      "{} layers, blocks of {}, {}, {} pages of {} bytes on {}</p>\n",
      shown(t.path), shown(verdict(d)), shown(grounds(d)),
      d.header.model.empty() ? "a model without a name" : shown(d.header.model), shown(d.policy),
      d.header.n_layers, d.header.block_size, shown(d.header.kv_type), d.header.pool_pages,
      d.header.page_bytes, shown(d.header.device));
  if (!d.extent.is_whole) {
    out += fmt::format("<p class='soft'>The trace has no end: {} of {} bytes were read.</p>\n",
                       d.extent.bytes, d.extent.total);
  }
  const std::string unknown = blind_spot(d);
  if (!unknown.empty()) out += "<p class='soft'>" + unknown + "</p>\n";
  for (const paddock::DoctorCause& cause : d.causes) {
    const CauseWords words = words_of(d, cause);
    out += fmt::format("<div class='cause' data-cause='{}'><b>{}</b><p>{}</p><p>{}{}</p></div>\n",
                       paddock::ailment_name(cause.ailment), shown(words.title), shown(words.why),
                       shown(words.advice),
                       words.flag.empty() ? "." : ": <code>" + shown(words.flag) + "</code>");
  }
  if (d.causes.empty()) {
    out +=
        "<div class='cause fine'>Nobody went without pages, no rule or window took what the run "
        "still needed, and what could be shared was.</div>\n";
  }
  return out;
}

std::string legend(const std::vector<std::pair<const char*, const char*>>& keys) {
  std::string out = "<p class='soft legend'>";
  for (const auto& [kind, meaning] : keys) {
    out += fmt::format("<span><i class='key {}'></i>{}</span> ", kind, meaning);
  }
  return out + "</p>\n";
}

std::string monitor(const Diagnosis& d) {
  std::string out =
      "<h2>1. Monitor the cache, layer by layer</h2>\n" +
      fmt::format(
          "<p>At most {} of {} pages were in use; the tables' pages were filled to a share "
          "of {} with at most {} positions of all layers.</p>\n",
          f(d, "pages_peak"), f(d, "pool_pages"), f(d, "fill"), f(d, "resident_peak"));
  out += "<h3>Occupancy over time</h3>\n" + occupancy_drawing(d) +
         legend({{"here", "positions: the more, the stronger"},
                 {"mark", "a window or a rule took blocks"}});
  out += fmt::format("<h3>The longest text, {} positions: what stayed</h3>\n", d.map_length) +
         map_drawing(d) +
         legend({{"here", "there to its end"},
                 {"window", "a window passed it"},
                 {"trim", "a rule dropped it"},
                 {"taken", "the host took it"}});
  const std::string lives = lives_drawing(d), gaps = gaps_drawing(d);
  if (!lives.empty()) out += "<h3>How many steps old blocks were when they left</h3>\n" + lives;
  if (!gaps.empty()) out += "<h3>Steps until a text's block came again</h3>\n" + gaps;
  return out;
}

std::string reduce_context(const Diagnosis& d) {
  return "<h2>2. Reduce context</h2>\n" +
         fmt::format(
             "<p>The longest text had {} positions. Prompts brought {} tokens, answers {}; {} were "
             "computed again for sequences that had been parked. Of {} blocks looked for among "
             "those kept for reuse {} were found; {} had been there and were reclaimed.</p>\n"
             "<p class='soft'>Turns that leave: <code>paddock chat --keep turns:N</code>, "
             "<code>/drop</code>, <code>/summarise</code>.</p>\n",
             f(d, "longest"), f(d, "prompt_tokens"), f(d, "made_tokens"), f(d, "recomputed_tokens"),
             f(d, "lookups"), f(d, "hits"), f(d, "regrets"));
}

std::string batch(const Diagnosis& d) {
  std::string out =
      "<h2>3. Adjust the batch</h2>\n" +
      fmt::format(
          "<p>{} requests, up to {} at once, in {} steps of up to {} tokens: {} tokens were "
          "written. {} reservations found too few pages, and {} sequences were parked.</p>\n",
          f(d, "requests"), d.header.max_sequences, f(d, "steps"), d.header.batch_size,
          f(d, "tokens_written"), f(d, "refusals"), f(d, "preemptions"));
  const std::string drawing = latency_drawing(d);
  if (drawing.empty()) return out + "<p class='soft'>The trace has no times.</p>\n";
  return out +
         fmt::format(
             "<p>A step took {} s on average and {} s at most.</p>\n<h3>Time of a step "
             "against occupancy</h3>\n",
             f(d, "step_seconds"), f(d, "step_seconds_max")) +
         drawing;
}

std::string prune(const Diagnosis& d) {
  const int64_t token = d.header.page_bytes / std::max(1, d.header.block_size) * d.header.n_layers;
  std::string out =
      "<h2>4. Quantize or prune</h2>\n" +
      fmt::format(
          "<p>A token takes {} bytes of cache, as {}. Rules dropped {} blocks, windows "
          "passed {}; answers of a policy were overruled {} times and filled up {} "
          "times. Budgets fell {} times and were lifted {} times.</p>\n",
          token, shown(d.header.kv_type), f(d, "removed_policy_trim"), f(d, "removed_window"),
          f(d, "violations"), f(d, "shortfalls"), f(d, "budget_falls"), f(d, "budget_lifts"));
  if (d.header.kv_type == paddock::kv_type_name(paddock::KvType::kF32)) {
    out += "<p class='soft'><code>--kv-type f16</code> takes half of it.</p>\n";
  }
  return out;
}

/// What the operating system and the driver said of memory, beside what the engine knows.
std::string memory_table(const Diagnosis& d) {
  if (d.memory.empty()) {
    return "<p class='soft'>The trace has no times, and so no view of the machine's memory.</p>\n";
  }
  const auto mib = [](uint64_t bytes) {
    return bytes == 0 ? std::string("-") : fmt::format("{:.1f}", static_cast<double>(bytes) / kMiB);
  };
  std::string out =
      "<div class='wide'><table><tr><th>MiB</th><th class='n'>this engine</th><th class='n'>the "
      "process, by the system</th><th class='n'>left to it</th><th class='n'>the process, by the "
      "driver</th><th class='n'>free on the device</th><th class='n'>of</th></tr>\n";
  for (size_t i = 0; i < d.memory.size(); ++i) {
    const paddock::TraceMemory& m = d.memory[i];
    out += fmt::format("<tr><td>{}</td>", i == 0 ? "when it was made" : "at its end");
    for (const uint64_t bytes :
         {m.device.reserved_bytes, m.process.resident_bytes, m.process.available_bytes,
          m.device.process_bytes, m.device.free_bytes, m.device.total_bytes}) {
      out += fmt::format("<td class='n'>{}</td>", mib(bytes));
    }
    out += "</tr>\n";
  }
  return out + fmt::format(
                   "</table></div>\n<p class='soft'>On {}. The driver's figures are those of "
                   "nvidia-smi (NVML), where the run was on a GPU.</p>\n",
                   shown(d.memory[0].device.device));
}

std::string hardware(const Diagnosis& d) {
  const auto bytes = [](double pages, int64_t page) {
    return size_text(static_cast<uint64_t>(pages) * static_cast<uint64_t>(page));
  };
  return "<h2>5. Hardware</h2>\n" +
         fmt::format(
             "<p>The run was on {}; its pool is {}, of which {} were in use at most. "
             "Everything that was there at once would have taken {} pages, {}.</p>\n",
             shown(d.header.device), bytes(figure(d, "pool_pages"), d.header.page_bytes),
             bytes(figure(d, "pages_peak"), d.header.page_bytes), f(d, "pages_wanted"),
             bytes(figure(d, "pages_wanted"), d.header.page_bytes)) +
         memory_table(d);
}

std::string rope(const Diagnosis& d) {
  return "<h2>6. RoPE scaling</h2>\n" +
         fmt::format(
             "<p>The model is made for {} positions, the engine takes {}, and the longest "
             "text had {}. {} requests ended at that limit.</p>\n<p class='soft'>What a "
             "factor buys and costs: <code>paddock perplexity --lengths 1k,2k,4k "
             "--rope-factor 1,2</code>.</p>\n",
             d.header.model_context, context_text(d), f(d, "longest"), f(d, "context_full"));
}

std::string swap(const Diagnosis& d) {
  return "<h2>7. Swap</h2>\n" +
         fmt::format(
             "<p>This version swaps nothing out: a sequence that is parked loses its pages, "
             "and its tokens are computed again. That was so for {} sequences and {} "
             "tokens.</p>\n",
             f(d, "preemptions"), f(d, "recomputed_tokens"));
}

/// Layers that lost as much of a sequence for a reason are one row.
std::string causes_table(const Diagnosis& d) {
  std::map<std::tuple<paddock::RemovalReason, int32_t, int64_t>, std::vector<int32_t>> rows;
  for (const paddock::DoctorLoss& loss : d.losses) {
    rows[{loss.reason, loss.sequence, loss.blocks}].push_back(loss.layer);
  }
  std::string out = "<h2>What left: reason, sequence and layers</h2>\n";
  if (rows.empty()) return out + "<p>Nothing.</p>\n";
  out +=
      "<div class='wide'><table><tr><th>reason</th><th class='n'>sequence</th><th>layers</th><th "
      "class='n'>blocks in each</th></tr>\n";
  size_t n = 0;
  for (const auto& [key, layers] : rows) {
    const auto& [reason, sequence, blocks] = key;
    if (++n > kMostRows) break;
    out += fmt::format(
        "<tr><td>{}</td><td class='n'>{}</td><td>{}</td><td class='n'>{}</td></tr>\n",
        paddock::removal_reason_name(reason),
        sequence < 0 ? "kept for reuse" : std::to_string(sequence), layers_text(layers), blocks);
  }
  out += "</table></div>\n";
  if (rows.size() > kMostRows) {
    out += fmt::format("<p class='soft'>{} rows more: --json has them all.</p>\n",
                       rows.size() - kMostRows);
  }
  return out;
}

std::string rerun_table(const ExaminedTrace& t) {
  std::string out = "<h2>What if the settings were others, measured</h2>\n";
  if (t.reruns) return out + reruns_html(*t.reruns);
  return out +
         "<p class='soft'>A model and a text (<code>-m</code>, <code>-f</code>) would have been "
         "run "
         "again under each proposal.</p>\n";
}

std::string what_if_table(const Diagnosis& d) {
  std::string out = "<h2>What if the pool were another size, by replay</h2>\n";
  if (d.what_if.empty()) return out + "<p>No prompt was looked for among kept blocks.</p>\n";
  out +=
      "<p>The prompts of these requests once more, one after another, in caches of half, once, "
      "twice and four times the pool.</p>\n<div class='wide'><table><tr><th>order</th><th "
      "class='n'>blocks</th><th class='n'>found</th><th class='n'>share</th><th class='n'>the "
      "most possible</th></tr>\n";
  for (const paddock::ReplayResult& r : d.what_if) {
    out += fmt::format(
        "<tr><td>{}</td><td class='n'>{}</td><td class='n'>{}</td><td "
        "class='n'>{}</td><td class='n'>{}</td></tr>\n",
        shown(r.policy), r.capacity, r.found, percent(r.hit_rate), percent(r.belady_hit_rate));
  }
  return out + "</table></div>\n";
}

std::string all_figures(const Diagnosis& d) {
  std::string out = "<h2>All figures</h2>\n<div class='wide'><table>\n";
  for (const paddock::DoctorFigure& figure : d.figures) {
    out += fmt::format("<tr><td>{0}</td><td class='n' data-all='{0}'>{1}</td></tr>\n", figure.name,
                       number_text(figure.value));
  }
  return out +
         "</table></div>\n<p class='soft'>Each is a key of <code>--json</code>, and may be "
         "named by <code>--fail-on</code>.</p>\n";
}

std::string reproduce(const ExaminedTrace& t) {
  const Diagnosis& d = t.diagnosis;
  const std::string path = shown(t.path);
  return fmt::format(
      "<h2>How to reproduce</h2>\n<p>The run's own options: <code>--kv-policy {} --kv-block-size "
      "{} "
      "--kv-type {} --kv-budget {}{} -b {}</code>, with <code>--kv-trace FILE</code> to record "
      "it.</p>\n<pre>paddock doctor {} -o report.html\npaddock explain {} --position 0\npaddock "
      "trace "
      "{} --to mooncake -o requests.jsonl\npaddock replay requests.jsonl</pre>\n",
      shown(d.policy), d.header.block_size, shown(d.header.kv_type),
      d.header.pool_pages * d.header.page_bytes,
      is_endless(d) ? "" : fmt::format(" -c {}", d.header.context), d.header.batch_size, path, path,
      path);
}

}  // namespace

std::string doctor_page(const std::vector<ExaminedTrace>& traces) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n<meta name='viewport' "
      "content='width=device-width,initial-scale=1'>\n<title>paddock doctor: {}</title>\n"
      "<link rel='icon' href='data:,'>\n<style>{}</style>\n</head>\n<body>\n<main>\n",
      shown(verdict(traces.front().diagnosis)), kDoctorStyle);
  for (const ExaminedTrace& t : traces) {
    const Diagnosis& d = t.diagnosis;
    out += "<article>\n" + head(t) + monitor(d) + reduce_context(d) + batch(d) + prune(d) +
           hardware(d) + rope(d) + swap(d) + causes_table(d) + what_if_table(d) + rerun_table(t) +
           all_figures(d) + reproduce(t) + "</article>\n";
  }
  return out + "</main>\n</body>\n</html>\n";
}

}  // namespace cli
