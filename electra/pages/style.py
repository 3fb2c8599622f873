"""How a report looks: one style sheet for screens of any width, dark or light, and for paper.

The pictures take their colours from here (plots.py writes var(--s1) and so on), so that they change with the page.
"""

SERIES = 8
"""Colours --s1 to --s8 of curves; each is readable on its background (WCAG's 3 : 1 for graphics)."""

LIGHT = """--paper: #fff; --ink: #1c2128; --soft: #57606a; --line: #d5dbe1; --panel: #f5f7f9;
  --s1: #1f6fd0; --s2: #c8480f; --s3: #16803c; --s4: #8b3fb8; --s5: #0e7c86; --s6: #c2257f; --s7: #8a5a13;
  --s8: #5b6470; --caught: #16803c; --missed: #a35d00; --alarm: #cc2936;"""
DARK = """--paper: #15191f; --ink: #e4e8ed; --soft: #a0a9b4; --line: #363d47; --panel: #1e242c;
  --s1: #6cb2ff; --s2: #ff9a62; --s3: #5fd38d; --s4: #cf9bf2; --s5: #4fd0da; --s6: #ff85c0; --s7: #e0b060;
  --s8: #b0b8c2; --caught: #5fd38d; --missed: #ffc15e; --alarm: #ff8088;"""

STYLE = (
    f"""
:root {{ color-scheme: light dark; {LIGHT} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}
"""
    + """* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 82rem; padding: 1rem clamp(.8rem, 3vw, 2.5rem) 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .7rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; }
figcaption h3 { margin: 0; }
p { margin: .3rem 0 .8rem; max-width: 75ch; }
header p, figcaption p, .note, caption { color: var(--soft); }
code, pre { font: .88em/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; background: var(--panel); padding: .7rem; }
.scroll { overflow-x: auto; margin: .4rem 0 1rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; padding-bottom: .2rem; }
th, td { text-align: left; vertical-align: top; padding: .22rem .9rem .22rem 0; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 500; white-space: nowrap; }
td { max-width: 44rem; }
td:last-child:not(.number) { min-width: 12rem; }
.number { text-align: right; }
td.number { white-space: nowrap; }
.side { display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: flex-start; }
.side > * { min-width: 0; }
.plots { display: grid; margin-top: 1rem; gap: 1.6rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figure.wide { grid-column: 1 / -1; }
figcaption p { font-size: .9rem; margin: 0; }
.pictures { display: flex; flex-wrap: wrap; gap: .4rem 1.5rem; }
.pictures > svg { flex: 1 1 20rem; width: 100%; height: auto; max-width: 46rem; min-width: 0; }
svg.plot * { stroke-linejoin: round; stroke-linecap: butt; }
summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
details > .scroll { max-height: 24rem; overflow-y: auto; }
.sample { display: flex; flex-wrap: wrap; gap: .15rem .1rem; margin: .5rem 0 1rem; line-height: 1.25; }
.token { display: inline-flex; flex-direction: column; align-items: center; padding: 0 .2rem; border-radius: .2rem; }
.token small { font-size: .72rem; min-height: 1.25em; color: var(--soft); }
.token .shown { padding: 0 .12rem; border-bottom: 2px solid transparent; }
.token .shown { print-color-adjust: exact; }
.caught .verdict { color: var(--caught); } .caught .shown { border-color: var(--caught); }
.missed .verdict { color: var(--missed); } .missed .shown { border-color: var(--missed); }
.alarm .verdict { color: var(--alarm); } .alarm .shown { border-bottom-style: dashed; border-color: var(--alarm); }
.caught .shown, .missed .shown, .alarm .shown, .verdict { font-weight: 600; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; }
  .plots { grid-template-columns: 1fr 1fr; gap: 1rem; }
  figure, tr { break-inside: avoid; } h2, h3, caption { break-after: avoid; } .scroll { overflow: visible; }
  pre { white-space: pre-wrap; } .pictures > svg { max-width: 100%; } details:not([open]) { display: none; } }
"""
)
