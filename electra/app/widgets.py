"""What all tabs of the page are made of: fields as Gradio's components, a problem as a sentence, an example's link.

    Field -> `component`        ValueError -> `problem`        `chain` -> an event, after which the link is made whole

Gradio is imported where it is used: without the page nothing needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from electra.allocator import return_freed_memory
from electra.app.fields import MAX_LINK, Field, TextField, to_query
from electra.app.models import Tab
from electra.pages.html import Html, tag

LINK_LABEL = "Link to this example"

# The path may be anything behind a proxy: the browser knows it. The address bar holds the link too.
WHOLE_LINK = """(link) => {
  if (!link.startsWith("?")) return link;
  history.replaceState(null, "", link);
  return location.origin + location.pathname + link;
}"""


@dataclass(frozen=True)
class Panel:
    """The components of a tab: what a link fills in, and what an answer is written to."""

    tab: Tab
    fields: tuple[Field, ...]
    inputs: list[Any]
    """A component for each field."""
    outputs: list[Any]
    """The last one is the link."""
    answer: Callable[[Mapping[str, object]], list[Any]]
    """Values of the fields, as they were typed -> a value for each output; it raises nothing for bad ones."""
    has_example: bool = False
    """Whether its defaults give something to look at."""


def component(field: Field, tab: Tab) -> Any:
    """The widget of a field. Bounds are checked by the field, which says what is wrong in a sentence."""
    import gradio as gr

    name = f"{tab.id}-{field.name}"
    if isinstance(field, TextField):
        return gr.Textbox(
            field.default,
            label=field.label,
            lines=field.lines,
            max_lines=max(field.lines, 12),
            placeholder=field.placeholder or None,
            elem_id=name,
            interactive=True,
        )
    if field.slider:
        return gr.Slider(
            field.low,
            field.high,
            field.default,
            step=field.step,
            label=field.label,
            info=field.info or None,
            elem_id=name,
            min_width=240,
            buttons=[],
        )
    return gr.Number(
        field.default,
        label=field.label,
        info=field.info or None,
        precision=0 if field.step == 1 else None,
        elem_id=name,
        min_width=240,
    )


def about(text: str) -> None:
    """The line at the head of a tab."""
    import gradio as gr

    gr.HTML(tag("p", text, class_="about"))


def link(tab: Tab) -> Any:
    """Where the link of what is shown stands."""
    import gradio as gr

    return gr.Textbox(
        label=LINK_LABEL, interactive=False, buttons=["copy"], lines=1, max_lines=1, elem_id=f"{tab.id}-link"
    )


def link_of(tab: Tab, fields: Sequence[Field], values: Mapping[str, object]) -> str:
    """The query of a link, or why there is none."""
    return to_query(tab.name, fields, values) or f"a link holds {MAX_LINK:,} characters, and this example has more"


def problem(error: ValueError) -> Html:
    return tag("p", str(error), class_="problem", role="alert")


@contextmanager
def answering(tab: Tab) -> Iterator[None]:
    """Around what asks a model: one text at a time, and the memory that it took is given back."""
    with tab.lock:
        yield
    return_freed_memory()


def chain(event: Any, link: Any) -> None:
    """After an event: its link becomes one that can be given to others."""
    event.then(None, link, link, js=WHOLE_LINK, api_visibility="private", show_progress="hidden")
