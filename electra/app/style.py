"""How the page looks: the colours of the reports (pages/style.py) for Gradio's widgets, system fonts, little else.

Gradio's dark mode is a class of the page, which follows the system unless a link says ?__theme=dark.
"""

from __future__ import annotations

import re
from typing import Any

from electra.pages.style import DARK, LIGHT

STYLE = (
    f"""
:root {{ {LIGHT} }}
:root.dark, :root .dark {{ {DARK} }}
"""
    + """
.gradio-container { overflow-wrap: anywhere; }
.gradio-container .main { max-width: 64rem; margin: 0 auto; padding: 1.2rem clamp(.9rem, 3vw, 2rem) 3rem !important; }
.gradio-container p { margin: .25rem 0 .6rem; line-height: 1.5; color: var(--ink); }
.gradio-container .note, .gradio-container .about { color: var(--soft); font-size: .92rem; max-width: 80ch; }
.gradio-container .prose h2 { font-size: 1.1rem; font-weight: 650; margin: .8rem 0 0; color: var(--ink); }
.gradio-container .form { gap: 1rem 1.6rem; background: none; }
.gradio-container .min_value, .gradio-container .max_value { display: none; }
.gradio-container button.lg { font-size: 1rem; padding: .5rem 1.6rem; flex: 0 1 auto; align-self: flex-start;
  width: auto; min-width: min(11rem, 45%); }
.headline { font-size: 1.15rem; } .headline .note { font-size: .95rem; } .big { font-size: 2rem; }
.problem { border-left: 3px solid var(--alarm); padding: .35rem .8rem; background: var(--panel); color: var(--ink); }
.result { min-height: 0; }
.sample { display: flex; flex-wrap: wrap; gap: .3rem .1rem; margin: .3rem 0 .8rem; line-height: 1.3; }
.token { display: inline-flex; flex-direction: column; align-items: center; padding: 0 .14rem; color: var(--ink); }
.token small { font-size: .75rem; line-height: 1.35; min-height: 1.35em; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.token .shown { padding: .05rem .25rem; border-radius: .25rem; border-bottom: 2px solid transparent;
  font-size: 1.05rem; }
.caught .verdict { color: var(--caught); } .caught .shown { border-color: var(--caught); }
.missed .verdict { color: var(--missed); } .missed .shown { border-color: var(--missed); }
.alarm .verdict { color: var(--alarm); } .alarm .shown { border-bottom-style: dashed; border-color: var(--alarm); }
.caught .shown, .missed .shown, .caught .verdict, .missed .verdict, .alarm .verdict { font-weight: 600; }
.token .above { color: var(--soft); text-decoration: line-through; }
.moves .above { text-decoration: none; }
.passage { white-space: pre-wrap; line-height: 1.9 !important; }
.passage mark { background: color-mix(in srgb, var(--ground, var(--s1)) 24%, transparent); color: var(--ink);
  border-bottom: 2px solid var(--ground, var(--s1)); padding: .1rem .2rem; border-radius: .2rem .2rem 0 0; }
.passage mark.unsure { background: none; border-bottom-style: dashed; }
.passage mark small { font-size: .72rem; font-weight: 650; color: var(--ink); margin-left: .35rem; }
.result .scroll { overflow-x: auto; margin: .4rem 0 .8rem; }
.result .prose table, .result .prose tr { border: 0 !important; }
.result caption { text-align: left; color: var(--soft); font-size: .92rem; padding-bottom: .2rem; }
.result table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; color: var(--ink);
  overflow-wrap: normal; }
.result .prose th, .result .prose td { text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0;
  border: 0 !important; border-bottom: 1px solid var(--line) !important; }
.result thead th { color: var(--soft); font-weight: 600; }
.result tbody th { font-weight: 500; min-width: 6rem; }
.result .prose .number { text-align: right; white-space: nowrap; }
.result table.bars { width: 100%; max-width: 40rem; margin: .4rem 0 .8rem; }
.bars th { max-width: 16rem; overflow-wrap: anywhere; }
.result .prose .bars .track { width: 60%; vertical-align: middle; }
.bars .bar { display: block; height: .7rem; min-width: 1px; border-radius: .15rem; background: var(--s8);
  opacity: .55; }
.bars .chosen .bar { background: var(--s1); opacity: 1; } .bars .chosen th, .bars .chosen td { font-weight: 650; }
.result summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
.result details > .scroll { max-height: 22rem; overflow-y: auto; }
footer { display: none !important; }
"""
)


def theme() -> Any:
    """Gradio's plainest theme in these colours."""
    import gradio as gr

    sides: dict[str, str] = {}
    for name, colour in {
        "body_background_fill": "paper",
        "body_text_color": "ink",
        "body_text_color_subdued": "soft",
        "background_fill_primary": "paper",
        "background_fill_secondary": "panel",
        "block_background_fill": "paper",
        "block_label_text_color": "soft",
        "block_title_text_color": "soft",
        "block_info_text_color": "soft",
        "border_color_primary": "line",
        "input_background_fill": "panel",
        "input_border_color": "line",
        "input_border_color_focus": "s1",
        "input_placeholder_color": "soft",
        "slider_color": "s1",
        "color_accent_soft": "panel",
        "button_primary_background_fill": "s1",
        "button_primary_background_fill_hover": "s1",
        "button_primary_text_color": "paper",
        "button_secondary_background_fill": "panel",
        "button_secondary_background_fill_hover": "line",
        "button_secondary_text_color": "ink",
    }.items():
        sides |= {name: _colour(LIGHT, colour), f"{name}_dark": _colour(DARK, colour)}
    base = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return base.set(
        **sides,
        color_accent="var(--s1)",
        block_border_width="0px",
        block_shadow="none",
        block_padding="0px",
        input_border_width="1px",
    )


def _colour(side: str, name: str) -> str:
    """Gradio writes some of them into the page itself, where no style sheet is known yet."""
    found = re.search(rf"--{name}: ([^;]+);", side)
    assert found is not None, name
    return found[1]
