// What the doctor's page looks like: light, dark, narrow and on paper.
#pragma once

namespace cli {

inline constexpr const char* kDoctorStyle = R"(
:root{color-scheme:light dark;--ink:#1c1c1e;--soft:#5f5f66;--paper:#fff;--card:#f4f5f7;--rule:#d9dade;
--blue:#0072b2;--red:#c8500a;--green:#00805c;--violet:#a8558a;--amber:#b87700}
@media (prefers-color-scheme:dark){:root{--ink:#ececf0;--soft:#a5a5ad;--paper:#16171a;--card:#212328;
--rule:#3a3c42;--blue:#56b4e9;--red:#ff8a4a;--green:#2fc79a;--violet:#e39ac7;--amber:#f0b429}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:720px;margin:0 auto;padding:16px}
h1{font-size:1.1rem;margin:.5rem 0;color:var(--soft);font-weight:600;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2rem 0 .5rem;border-top:1px solid var(--rule);padding-top:1rem}
h3{font-size:1rem;margin:1.25rem 0 .25rem}
p{margin:.4rem 0}
.verdict{font-size:1.35rem;line-height:1.3;font-weight:650;margin:.5rem 0}
.soft{color:var(--soft)}
.cause{background:var(--card);border-left:4px solid var(--red);padding:.6rem .9rem;margin:.8rem 0;border-radius:4px}
.fine{border-left-color:var(--green)}
code,pre{font:.88em/1.45 ui-monospace,monospace;background:var(--card);border-radius:3px;padding:.1em .3em;overflow-wrap:anywhere}
pre{padding:.7rem;white-space:pre-wrap}
.cause code{background:var(--paper)}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;margin:.5rem 0;font-variant-numeric:tabular-nums}
td,th{padding:.2rem .7rem .2rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
td.n,th.n{text-align:right}
svg{width:100%;height:auto;max-width:640px;display:block;margin:.5rem 0}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
.grid{stroke:var(--rule);fill:none}.line{stroke:var(--blue);fill:none;stroke-width:1.6}
.dot{fill:var(--blue);fill-opacity:.55}
.here{fill:var(--blue)}.window{fill:var(--amber)}.trim,.mark{fill:var(--red)}.taken{fill:var(--violet)}
.capacity{fill:var(--green)}.preempt{fill:var(--violet)}
.shade{fill:var(--blue)}.s1{fill-opacity:.1}.s2{fill-opacity:.2}.s3{fill-opacity:.3}.s4{fill-opacity:.4}
.s5{fill-opacity:.5}.s6{fill-opacity:.6}.s7{fill-opacity:.7}.s8{fill-opacity:.8}.s9{fill-opacity:.9}
.legend span{white-space:nowrap;margin-right:.9em}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}
.key.here{background:var(--blue)}.key.window{background:var(--amber)}.key.trim,.key.mark{background:var(--red)}
.key.taken{background:var(--violet)}
@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--paper:#fff;--card:#f2f2f2;--rule:#bbb;--blue:#0072b2;
--red:#c8500a;--green:#00805c;--violet:#a8558a;--amber:#b87700}
main{max-width:none}svg,.cause,tr{break-inside:avoid}h2,h3{break-after:avoid}*{print-color-adjust:exact}}
)";

}  // namespace cli
