"""The tab of a pre-trained model: the generator replaces tokens of a text, the discriminator finds them, one edits.

    text, share, temperature, seed -> `Detector.replace` -> tokens with verdicts, and the replaced text in a second box
    second box, whenever it changes -> `Detector.judge`, beside the replaced text -> how each token's probability moves

Without a generator there is one box, whose text is judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from electra.app.detection import TEXT_LABEL, Detector
from electra.app.fields import MAX_SEED, Field, NumberField, TextField, read_values
from electra.app.models import Tab
from electra.app.tokens import judgement_html, replacement_html
from electra.app.widgets import Panel, about, answering, chain, component, link, link_of, problem
from electra.pages.html import Html, tag

TEXTS = (
    "The chef cooked the meal and served it to the guests at noon.",
    "In 1912 the ship sailed from Southampton to New York.",
    "한국어는 한국에서 쓰는 말이며 많은 사람이 배우고 있다.",
)
"""Examples, of which a model is shown those that its vocabulary reads well."""
READS_WELL = 0.6
"""Tokens a character, at most."""


def good_examples(detector: Detector) -> list[str]:
    """Texts that the model's vocabulary knows, in not too many pieces."""
    encoded = detector.vocabulary.encode_batch(TEXTS)
    unknown = detector.vocabulary.special.unk
    return [
        text
        for text, ids in zip(TEXTS, encoded, strict=True)
        if unknown not in ids and len(ids) <= READS_WELL * len(text)
    ]


class DetectorPanel:
    """Values in, HTML out; Gradio comes in with `lay_out`."""

    def __init__(self, tab: Tab, detector: Detector) -> None:
        self.tab, self.detector = tab, detector
        self.generates = detector.generator is not None
        self.examples = good_examples(detector)
        example = self.examples[0] if self.examples else ""
        self.fields: tuple[Field, ...] = (TextField("text", TEXT_LABEL, lines=2, default=example),)
        if self.generates:
            self.fields += (
                NumberField("share", "Share of tokens replaced", 0.15, 0.05, 0.5, 0.05, info="0.15 in most trainings"),
                NumberField("temperature", "Temperature", 1.0, 0.1, 2.0, 0.1, info="low: likely tokens; high: any"),
                NumberField("seed", "Seed", 0, 0, MAX_SEED, slider=False, info="another one, other tokens"),
                TextField("edited", "Replaced text", lines=2, optional=True),
            )

    def replace(self, values: Mapping[str, object]) -> list[Any]:
        """Tokens with verdicts, the text to edit, the text it is compared with, the link.

        The text to edit is `edited` where there is one, which is so in a link.
        """
        try:
            read = read_values(self.fields, values)
            text, share, temperature, seed = (read[name] for name in ("text", "share", "temperature", "seed"))
            assert isinstance(share, float) and isinstance(temperature, float) and isinstance(seed, float)
            with answering(self.tab):
                found = self.detector.replace(str(text), share, temperature, int(seed))
        except ValueError as error:
            return [problem(error), "", "", ""]
        return [replacement_html(found), read["edited"] or found.text, found.text, self._link(values)]

    def edit(self, values: Mapping[str, object], before: str) -> list[Any]:
        """What is said of the edited text, beside the one `before`; the link, which has it where it is another one."""
        edited = values["edited"]
        link = self._link(values if edited != before else {**values, "edited": ""})
        return [self._said(edited, before) if edited else "", link if before else ""]

    def judge(self, values: Mapping[str, object]) -> list[Any]:
        """Without a generator: what is said of the text, and the link."""
        return [self._said(values["text"], ""), self._link(values)]

    def _said(self, text: object, before: str) -> Html:
        try:
            read = TextField("", TEXT_LABEL).read(text)
            with answering(self.tab):
                return judgement_html(self.detector.judge(read, before))
        except ValueError as error:
            return problem(error)

    def _link(self, values: Mapping[str, object]) -> str:
        return link_of(self.tab, self.fields, values)

    # ------------------------------------------------------------------------------------------------- Gradio

    def lay_out(self) -> Panel:
        """The components of the tab, inside of it."""
        return self._two_boxes() if self.generates else self._one_box()

    def _two_boxes(self) -> Panel:
        import gradio as gr

        about(
            "The generator replaces some tokens of your text, and the discriminator says of each token how probable it "
            "is that it was replaced."
        )
        text = component(self.fields[0], self.tab)
        samples = None
        if len(self.examples) > 1:
            samples = gr.Dataset(
                components=[text], samples=[[each] for each in self.examples], type="values", show_label=False
            )
        with gr.Row():
            share, temperature, seed = (component(field, self.tab) for field in self.fields[1:4])
        with gr.Row():
            button = gr.Button("Replace", variant="primary", elem_id=f"{self.tab.id}-replace")
            others = gr.Button("Draw others", elem_id=f"{self.tab.id}-others")
        replaced = gr.HTML(elem_classes="result", elem_id=f"{self.tab.id}-replaced")
        gr.HTML(tag("h2", "Edit a word and see what moves"))
        edited = component(self.fields[4], self.tab)
        judged = gr.HTML(elem_classes=["result", "moves"], elem_id=f"{self.tab.id}-judged")
        before, shown_link = gr.State(""), link(self.tab)
        inputs = [text, share, temperature, seed, edited]
        outputs = [replaced, edited, before, shown_link]
        names = [field.name for field in self.fields]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

        def on_replace(*given: object) -> list[Any]:
            return self.replace(dict(zip(names, given, strict=True)) | {"edited": ""})

        def on_edit(*given: object) -> list[Any]:
            return self.edit(dict(zip(names, given[:-1], strict=True)), str(given[-1]))

        for trigger in (button.click, text.submit, share.input, temperature.input, seed.submit):
            chain(trigger(on_replace, inputs, outputs, trigger_mode="always_last", **quiet), shown_link)
        drawn = others.click(lambda value: (int(value or 0) + 1) % (MAX_SEED + 1), seed, seed, **quiet)
        chain(drawn.then(on_replace, inputs, outputs, **quiet), shown_link)
        if samples is not None:
            chosen = samples.click(lambda sample: sample[0], samples, text, **quiet)
            chain(chosen.then(on_replace, inputs, outputs, **quiet), shown_link)
        # Not `input`, which Gradio knows of keys alone: a text can be pasted, composed, or deleted.
        changed = edited.change(on_edit, [*inputs, before], [judged, shown_link], trigger_mode="always_last", **quiet)
        chain(changed, shown_link)
        return Panel(self.tab, self.fields, inputs, outputs, self.replace, has_example=bool(self.examples))

    def _one_box(self) -> Panel:
        import gradio as gr

        about("The discriminator says of each token how probable it is that another one stood there before.")
        text = component(self.fields[0], self.tab)
        judged, shown_link = gr.HTML(elem_classes="result", elem_id=f"{self.tab.id}-judged"), link(self.tab)
        changed = text.change(
            lambda given: self.judge({"text": given}),
            text,
            [judged, shown_link],
            trigger_mode="always_last",
            show_progress="hidden",
            api_visibility="private",
        )
        chain(changed, shown_link)
        return Panel(self.tab, self.fields, [text], [judged, shown_link], self.judge, has_example=bool(self.examples))
