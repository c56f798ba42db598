#include "report/page.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "report/markup.h"

namespace mantissa::report {
namespace {

// Colours: Okabe and Ito's palette, which colour-blind people tell apart, a darker or lighter shade
// of each where the background asks for it.
constexpr std::string_view kStyle = R"css(
:root {
  color-scheme: light dark;
  --page: #ffffff; --text: #1c2126; --soft: #59636e; --rule: #d4d9de; --faint: #eceff2;
    --code: #f4f6f8;
  --bad: #b3261e;
  --g0: #1c2126; --g1: #0072b2; --g2: #d55e00; --g3: #00835e; --g4: #a8467f; --g5: #8a6d00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14181c; --text: #e4e8ec; --soft: #9aa5b1; --rule: #3a434c; --faint: #232a31;
      --code: #1d2329;
    --bad: #ff8a80;
    --g0: #e4e8ec; --g1: #56b4e9; --g2: #ff9d4d; --g3: #35c99b; --g4: #e59cc6; --g5: #e6c84a;
  }
}
@media print {
  :root {
    --page: #ffffff; --text: #000000; --soft: #444444; --rule: #bbbbbb; --faint: #e6e6e6;
      --code: #ffffff;
    --bad: #b3261e;
    --g0: #000000; --g1: #0072b2; --g2: #d55e00; --g3: #00835e; --g4: #a8467f; --g5: #8a6d00;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 28px 56px; }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 40px 0 4px; }
p { margin: 4px 0 12px; max-width: 76ch; }
.lead, figcaption, caption, .terms dd { color: var(--soft); }
code, pre, td:first-child { font-family: ui-monospace, Menlo, "DejaVu Sans Mono", monospace;
  font-size: 12.5px; }
pre { background: var(--code); border: 1px solid var(--rule); border-radius: 6px;
  padding: 9px 12px;
  white-space: pre-wrap; overflow-wrap: anywhere; margin: 14px 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(245px, 1fr));
  gap: 9px 26px; margin: 20px 0 0; }
.facts dt { font-size: 12px; color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 8px 0 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: 12.5px; }
caption { caption-side: bottom; text-align: left; padding-top: 8px; font-size: 13px; }
th { text-align: left; font-weight: 600; border-bottom: 1.5px solid var(--text);
  vertical-align: bottom; line-height: 1.3; }
th, td { padding: 5px 5px; }
td { border-bottom: 1px solid var(--faint); white-space: nowrap; }
td:first-child { font-size: 12px; }
.number { text-align: right; }
.failed { color: var(--bad); white-space: normal; }
figure { margin: 0; break-inside: avoid; }
figcaption { font-size: 13.5px; max-width: 90ch; margin: 0 0 10px; }
figure svg { max-width: 1080px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--text); font-size: 12px;
  font-family: system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
svg .axis { font-size: 13px; fill: var(--text); }
svg .tick { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .small { fill: var(--soft); font-size: 10px; }
svg .on-dark { fill: #ffffff; font-size: 9.5px; } svg .on-light { fill: #101418; font-size: 9.5px;
  }
svg .legend { fill: var(--text); font-size: 12.5px; }
svg .mid { text-anchor: middle; } svg .end { text-anchor: end; }
svg .label { font-family: ui-monospace, Menlo, "DejaVu Sans Mono", monospace; font-size: 12px;
  paint-order: stroke; stroke: var(--page); stroke-width: 3px; stroke-linejoin: round; }
svg .grid { stroke: var(--faint); stroke-width: 1; }
svg .frame { stroke: var(--soft); stroke-width: 1; }
svg .band { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 4; }
svg .error { stroke: var(--soft); stroke-width: 1.2; }
svg .leader { stroke: var(--soft); stroke-width: 0.7; }
svg .front { fill: none; stroke: var(--soft); stroke-width: 1.6; stroke-dasharray: 7 4; }
svg .mark { stroke: var(--page); stroke-width: 1; }
.g0 { fill: var(--g0); } .g1 { fill: var(--g1); } .g2 { fill: var(--g2); }
.g3 { fill: var(--g3); } .g4 { fill: var(--g4); } .g5 { fill: var(--g5); }
svg .t0 { fill: var(--g0); } svg .t1 { fill: var(--g1); } svg .t2 { fill: var(--g2); }
svg .t3 { fill: var(--g3); } svg .t4 { fill: var(--g4); } svg .t5 { fill: var(--g5); }
.terms { display: grid; grid-template-columns: max-content 1fr; gap: 5px 18px; font-size: 13.5px;
  margin: 10px 0; }
.terms dt { font-weight: 600; } .terms dd { margin: 0; max-width: 86ch; }
@media (max-width: 640px) { .terms { grid-template-columns: 1fr; gap: 0; }
  .terms dd { margin: 0 0 8px; } main { padding: 20px 14px; } }
@media print {
  @page { margin: 13mm; }
  body { font-size: 11px; } main { padding: 0; max-width: none; }
  table { font-size: 8.5px; } td:first-child { font-size: 8px; } th, td { padding: 2px 4px; }
  .wide { overflow: visible; } h2 { margin-top: 22px; break-after: avoid; }
  svg rect, svg .mark, .number { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
)css";

bool is_number(std::string_view cell) {
  double value = 0;
  if (cell.starts_with('+')) cell.remove_prefix(1);
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  return error == std::errc{} && (end == cell.data() + cell.size() || *end == ' ' || *end == '%');
}

// Columns whose cells are numbers where they are anything.
std::vector<bool> number_columns(const PageTable& table) {
  std::vector<bool> out(table.header.size(), true);
  for (size_t c = 0; c < out.size(); ++c) {
    bool any = false;
    for (size_t r = 0; r < table.rows.size(); ++r) {
      const std::string& cell = table.rows[r][c];
      if (!table.failures[r].empty() || cell.empty() || cell == "-") continue;
      any = any || is_number(cell);
      if (!is_number(cell) && cell != "inf") out[c] = false;
    }
    out[c] = out[c] && any;
  }
  return out;
}

void add_table(Markup& html, const PageTable& table) {
  check(table.failures.size() == table.rows.size(), "PageTable: a failure for each row");
  const std::vector<bool> numbers = number_columns(table);
  const auto style = [&](size_t c) { return numbers[c] ? "number" : "word"; };
  html.open("div", {{"class", "wide"}}).open("table");
  if (!table.caption.empty()) html.leaf("caption", {}, table.caption);
  html.open("thead").open("tr");
  for (size_t c = 0; c < table.header.size(); ++c)
    html.leaf("th", {{"class", style(c)}, {"scope", "col"}}, table.header[c]);
  html.close().close().open("tbody");
  for (size_t r = 0; r < table.rows.size(); ++r) {
    const std::vector<std::string>& row = table.rows[r];
    check(row.size() == table.header.size(), "PageTable: rows as long as the header");
    html.open("tr");
    if (table.failures[r].empty()) {
      for (size_t c = 0; c < row.size(); ++c) html.leaf("td", {{"class", style(c)}}, row[c]);
    } else {
      html.leaf("td", {}, row.front());
      html.leaf("td", {{"class", "failed"}, {"colspan", text(row.size() - 1)}}, table.failures[r]);
    }
    html.close();
  }
  html.close().close().close();
}

void add_facts(Markup& html, const char* style, const std::vector<Fact>& facts, bool grouped) {
  html.open("dl", {{"class", style}});
  for (const Fact& fact : facts) {
    if (grouped) html.open("div");
    html.leaf("dt", {}, fact.name).leaf("dd", {}, fact.value);
    if (grouped) html.close();
  }
  html.close();
}

}  // namespace

std::string page_html(const Page& page) {
  Markup html;
  html.raw("<!DOCTYPE html>\n").open("html", {{"lang", "en"}}).open("head");
  html.raw("<meta charset=\"utf-8\">\n");
  html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
  html.leaf("title", {}, page.title);
  html.raw("<style>").raw(kStyle).raw("</style>\n").close();
  html.open("body").open("main").open("header");
  html.leaf("h1", {}, page.title).leaf("p", {{"class", "lead"}}, page.lead);
  add_facts(html, "facts", page.facts, true);
  html.leaf("pre", {}, page.command).close();
  html.leaf("h2", {}, "All figures");
  add_table(html, page.table);
  for (const Figure& figure : page.figures) {
    html.open("figure").leaf("h2", {}, figure.title).leaf("figcaption", {}, figure.caption);
    html.raw(figure.svg).close();
  }
  html.leaf("h2", {}, page.second_title);
  add_table(html, page.second);
  html.leaf("h2", {}, "What the columns mean");
  add_facts(html, "terms", page.terms, false);
  html.close().close().close();
  return html.take();
}

}  // namespace mantissa::report
