"""How it looks beyond the theme: cards, chips, tables and the strip at the top, light and dark."""

from typing import Final

# `light-dark()` follows the colour scheme that Streamlit sets, also when the user switches it.
CSS: Final = """
<style>
:root {
  --sf-card: light-dark(#ffffff, #131c25);
  --sf-line: light-dark(#d5dce4, #2b3844);
  --sf-text: light-dark(#17212b, #e3eaf1);
  --sf-soft: light-dark(#566372, #94a3b3);
  --sf-good: light-dark(#1b7a3d, #5fd38d);
  --sf-warn: light-dark(#9a5b00, #ffb454);
  --sf-bad: light-dark(#c01c28, #ff7b85);
  --sf-idle: light-dark(#5f6b78, #9aa7b4);
  --sf-accent: light-dark(#0b7285, #3bc9db);
}
.stMainBlockContainer { max-width: 1500px; padding-left: 2rem; padding-right: 2rem; }
[data-testid="stMetric"], [class*="st-key-card"] {
  background: var(--sf-card); border-color: var(--sf-line);
}
[data-testid="stMetricLabel"] p { font-size: .86rem; color: var(--sf-soft); }
[data-testid="stMetricValue"] { font-variant-numeric: tabular-nums; line-height: 1.25; }
[data-testid="stMetricDelta"] { font-size: .82rem; }
.stMainBlockContainer h1 { padding: 0 0 .15rem; }
.stMainBlockContainer h3 { padding: .1rem 0 0; }
/* Fragments that are redrawn every second must not fade meanwhile. */
[data-stale="true"] { opacity: 1 !important; transition: none !important; }
.sf { color: var(--sf-text); font-variant-numeric: tabular-nums; }
.sf-strip { display: flex; flex-wrap: wrap; gap: .35rem .9rem; align-items: center;
  font-size: .86rem; padding: .45rem .8rem; background: var(--sf-card);
  border: 1px solid var(--sf-line); border-radius: .5rem; }
.sf-strip .sf-push { margin-left: auto; color: var(--sf-soft); }
.sf-mark { display: inline-flex; gap: .32rem; align-items: baseline; white-space: nowrap; }
.sf-good { color: var(--sf-good); } .sf-warn { color: var(--sf-warn); }
.sf-bad { color: var(--sf-bad); } .sf-idle { color: var(--sf-idle); }
.sf a { color: var(--sf-accent); }
.sf-soft { color: var(--sf-soft); }
.sf-chip { display: inline-block; padding: 0 .45rem; border: 1px solid currentColor;
  border-radius: 1rem; font-size: .78rem; font-weight: 600; white-space: nowrap; }
.sf-scroll { overflow-x: auto; }
.sf-table { width: 100%; border-collapse: collapse; font-size: .87rem; }
.sf-table th { text-align: left; font-weight: 600; color: var(--sf-soft); font-size: .78rem;
  padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--sf-line); white-space: nowrap; }
.sf-table td { padding: .32rem .6rem .32rem 0; border-bottom: 1px solid var(--sf-line);
  vertical-align: top; }
.sf-table tr:last-child td { border-bottom: 0; }
.sf-table .sf-num { text-align: right; white-space: nowrap; }
.sf-table code, .sf code { font-size: .82rem; background: light-dark(#eef1f5, #1d2833);
  padding: .05rem .3rem; border-radius: .25rem; overflow-wrap: anywhere; }
.sf-table code { white-space: nowrap; }
/* The job's own tables, in markdown. */
.st-key-card-replay [data-testid="stMarkdown"] table { display: block; overflow-x: auto; font-size: .82rem; }
.sf-banner { display: flex; gap: .7rem; padding: .6rem .9rem; border-radius: .5rem;
  border: 1px solid; border-left-width: 5px; background: var(--sf-card); font-size: .92rem; }
.sf-banner b { display: block; } .sf-banner span { color: var(--sf-text); }
.sf-empty { text-align: center; padding: 1.6rem 1rem; color: var(--sf-soft); }
.sf-empty b { display: block; color: var(--sf-text); font-size: 1rem; margin-bottom: .25rem; }
.sf-timeline { list-style: none; margin: 0; padding: 0; }
.sf-timeline li { position: relative; padding: 0 0 .9rem 1.7rem; border-left: 2px solid var(--sf-line);
  margin-left: .55rem; }
.sf-timeline li:last-child { border-left-color: transparent; padding-bottom: 0; }
.sf-timeline .sf-dot { position: absolute; left: -.72rem; top: 0; width: 1.35rem; height: 1.35rem;
  border-radius: 50%; background: var(--sf-card); border: 2px solid currentColor; text-align: center;
  line-height: 1.1rem; font-size: .75rem; font-weight: 700; }
.sf-timeline b { font-weight: 600; }
.sf-history { letter-spacing: .12rem; }
.sf-stamp { color: var(--sf-soft); font-size: .78rem; }
@media (max-width: 640px) {
  .stMainBlockContainer { padding-left: .9rem; padding-right: .9rem; }
  [data-testid="stMetricValue"] { font-size: 1.4rem; }
  .sf-strip .sf-push { margin-left: 0; }
  .sf-wide thead { display: none; }
  .sf-wide tr { display: flex; flex-wrap: wrap; gap: .1rem .9rem; padding: .45rem 0;
    border-bottom: 1px solid var(--sf-line); }
  .sf-wide tr:last-child { border-bottom: 0; }
  .sf-wide td, .sf-wide td.sf-num { border: 0; padding: 0; text-align: left; white-space: normal; }
  .sf-wide td:first-child { flex-basis: 100%; }
  .sf-wide td:not(:first-child)::before { content: attr(data-column) " "; color: var(--sf-soft);
    font-size: .74rem; }
  .sf-wide td:not(:first-child)[data-column=""]::before { content: none; }
  .sf-wide code { white-space: normal; overflow-wrap: anywhere; }
  .sf-scroll code { white-space: normal; overflow-wrap: anywhere; }
}
</style>
"""

LOGO: Final = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 196 32" width="196" height="32">
<g fill="none" stroke="#1098ad" stroke-width="3.4" stroke-linecap="round">
<path d="M3 9c6-6 12 6 18 0s6-3 8-2"/><path d="M3 17c6-6 12 6 18 0s6-3 8-2"/>
<path d="M3 25c6-6 12 6 18 0s6-3 8-2"/></g>
<text x="40" y="23" font-family="Source Sans, Source Sans Pro, sans-serif" font-size="20"
 font-weight="650" fill="#1098ad">StreamFlow</text></svg>"""
