"""The page: a tab for each model, and links that open one of them with everything filled in.

    tabs -> `build_page` -> gradio.Blocks        ?tab=...&text=... -> `open_link` -> the tab, its fields, its answer

Without a link the first tab is open, with its example.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from electra.app.detection import Detector
from electra.app.detector_tab import DetectorPanel
from electra.app.fields import Value, from_query, read_values
from electra.app.models import Tab
from electra.app.tasks import TaskPanel
from electra.app.widgets import WHOLE_LINK, Panel, about, answering, chain, component, link, link_of, problem

WAITING = 64
"""Texts that may wait for an answer; who comes then is told that the page is busy."""


def build_page(tabs: Sequence[Tab]) -> Any:
    """The page, ready for serve.py."""
    import gradio as gr

    with gr.Blocks(title=", ".join(tab.name for tab in tabs), analytics_enabled=False) as page:
        query = gr.Textbox(visible=False)
        fault = gr.HTML(elem_classes="result", elem_id="fault")
        with gr.Tabs(selected=tabs[0].name) as row:
            panels = []
            for tab in tabs:
                with gr.Tab(tab.name, id=tab.name):
                    if isinstance(tab.model, Detector):
                        panels.append(DetectorPanel(tab, tab.model).lay_out())
                    else:
                        panels.append(_task_tab(tab, tab.model))
        loaded = page.load(
            lambda text: _opened(panels, text),
            query,
            [row, fault, *(part for panel in panels for part in (*panel.inputs, *panel.outputs))],
            js="() => location.search",
            api_visibility="private",
            show_progress="hidden",
        )
        for panel in panels:
            loaded.then(
                None,
                panel.outputs[-1],
                panel.outputs[-1],
                js=WHOLE_LINK,
                api_visibility="private",
                show_progress="hidden",
            )
    page.queue(max_size=WAITING, default_concurrency_limit=4, api_open=False)
    return page


def open_link(panels: Sequence[Panel], query: str) -> tuple[Panel, dict[str, Value], list[Any] | None]:
    """The panel that a query string names, what it says of the fields, and the outputs; None: there is nothing to show.

    Without a query it is the first panel, with its example. A value that a field does not take is left out, and the
    outputs say so. ValueError for a link that is too long or of another page.
    """
    given = from_query(query)
    names = [panel.tab.name for panel in panels]
    if not any(name in given for name in ("tab", *(field.name for panel in panels for field in panel.fields))):
        first = panels[0]
        example = {field.name: field.default for field in first.fields}
        return first, {}, first.answer(example) if first.has_example else None
    name = given.get("tab", names[0])
    if name not in names:
        raise ValueError(f"The link is for the model “{name[:80]}”, which this page does not have.")
    panel = panels[names.index(name)]
    typed: Mapping[str, object] = {field.name: given.get(field.name, field.default) for field in panel.fields}
    read = {}
    for field in panel.fields:
        with contextlib.suppress(ValueError):
            read[field.name] = field.read(typed[field.name])
    return panel, read, panel.answer(typed)


def _opened(panels: Sequence[Panel], query: str) -> list[Any]:
    """What `page.load` writes: the chosen tab, a fault of the link, and each panel's inputs and outputs."""
    import gradio as gr

    try:
        chosen, values, outputs = open_link(panels, query)
    except ValueError as error:
        return [gr.skip(), problem(error), *(gr.skip() for panel in panels for _ in (*panel.inputs, *panel.outputs))]
    written: list[Any] = [gr.Tabs(selected=chosen.tab.name), ""]
    for panel in panels:
        if panel is chosen:
            # Without a link the fields are left alone: somebody may be typing already.
            written += [
                gr.skip() if part in panel.outputs else values.get(field.name, gr.skip())
                for field, part in zip(panel.fields, panel.inputs, strict=True)
            ]
            written += [gr.skip()] * len(panel.outputs) if outputs is None else outputs
        else:
            written += [gr.skip()] * (len(panel.inputs) + len(panel.outputs))
    return written


def _task_tab(tab: Tab, panel: TaskPanel) -> Panel:
    """The tab of a fine-tuned model: its fields, a button, the answer."""
    import gradio as gr

    about(panel.about)
    inputs = [component(field, tab) for field in panel.fields]
    button = gr.Button(panel.button, variant="primary", elem_id=f"{tab.id}-answer")
    shown, shown_link = gr.HTML(elem_classes="result", elem_id=f"{tab.id}-shown"), link(tab)
    names = [field.name for field in panel.fields]

    def answer(values: Mapping[str, object]) -> list[Any]:
        try:
            read = read_values(panel.fields, values)
            with answering(tab):
                return [panel.answer(read), link_of(tab, panel.fields, values)]
        except ValueError as error:
            return [problem(error), ""]

    for trigger in (button.click, *(each.submit for each in inputs)):
        event = trigger(
            lambda *given: answer(dict(zip(names, given, strict=True))),
            inputs,
            [shown, shown_link],
            show_progress="minimal",
            api_visibility="private",
        )
        chain(event, shown_link)
    return Panel(tab, panel.fields, inputs, [shown, shown_link], answer)
