"""The panels of `electra app` without a browser: against transformers and `electra predict`, links, bounds, Spaces."""

import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from app_models import free_port, make_models, save_network
from huggingface_hub import SpaceCard
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import make_store, random_documents
from transformers import AutoTokenizer, ElectraForMaskedLM, ElectraForMultipleChoice, ElectraForPreTraining

from electra.app.detection import Detector
from electra.app.detector_tab import TEXTS, DetectorPanel
from electra.app.fields import MAX_LINK, MAX_TEXT, NumberField, TextField, from_query, read_values, to_query
from electra.app.models import Tab, open_tabs
from electra.app.tasks import TaskPanel
from electra.app.widgets import link_of
from electra.cli import main
from electra.config import ObjectiveConfig, PredictConfig, PretrainConfig
from electra.export import export_run
from electra.masking import global_rng, mask_rows
from electra.predict import load_predictor
from electra.tasks.questions.files import Question
from electra.toml import write_toml

TEXT = "The film is a very good film with great music, and the actors are not so dull."


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def tabs(models: dict[str, Path]) -> dict[str, Tab]:
    opened = open_tabs([str(path) for path in models.values()], "cpu")
    assert [tab.name for tab in opened] == list(models)
    return {tab.name: tab for tab in opened}


@pytest.fixture(scope="module")
def detector(tabs: dict[str, Tab]) -> Detector:
    assert isinstance(tabs["run"].model, Detector)
    return tabs["run"].model


def answer(tabs: dict[str, Tab], name: str, **values: object) -> str:
    panel = tabs[name].model
    assert isinstance(panel, TaskPanel)
    return panel.answer(read_values(panel.fields, values))


# -------------------------------------------------------------------------------------------- replaced tokens


def test_probabilities_are_transformers(detector: Detector, models: dict[str, Path]) -> None:
    theirs = ElectraForPreTraining.from_pretrained(models["run"] / "discriminator").eval()
    tokenizer = AutoTokenizer.from_pretrained(models["run"] / "discriminator")
    with torch.no_grad():
        expected = theirs(**tokenizer(TEXT, return_tensors="pt")).logits[0].sigmoid().tolist()[1:-1]
    found = detector.judge(TEXT)
    assert found.tokens == tokenizer.tokenize(TEXT)
    assert found.probability == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.2


def test_a_cold_generator_draws_what_transformers_finds_likeliest(detector: Detector, models: dict[str, Path]) -> None:
    found = detector.replace(TEXT, 0.3, 1e-4, seed=5)
    vocabulary = detector.vocabulary
    ids = torch.tensor([[vocabulary.special.cls, *vocabulary.encode_batch([TEXT])[0], vocabulary.special.sep]])
    masks = mask_rows(
        ids.numpy(),
        (ids >= 0).numpy(),
        special=vocabulary.special,
        mask_prob=0.3,
        max_predictions=ids.shape[1],
        with_replacement=False,
        rng=global_rng(5, 0, 0),
    )
    generator = ElectraForMaskedLM.from_pretrained(models["run"] / "generator").eval()
    discriminator = ElectraForPreTraining.from_pretrained(models["run"] / "discriminator").eval()
    with torch.no_grad():
        likeliest = generator(torch.from_numpy(masks.masked_input_ids).long()).logits.argmax(-1)
    chosen = masks.positions[0][masks.weights[0] > 0]
    assert found.drawn == len(chosen) == round(0.3 * ids.shape[1])
    corrupted = ids.clone()
    corrupted[0, chosen] = likeliest[0, chosen]
    assert found.sample.corrupted == [vocabulary.token(i) for i in corrupted[0, 1:-1]]
    assert found.sample.replaced == (corrupted != ids)[0, 1:-1].tolist() and any(found.sample.replaced)
    with torch.no_grad():
        expected = discriminator(corrupted).logits[0, 1:-1].sigmoid().tolist()
    assert found.sample.probability == pytest.approx(expected, abs=1e-5)


def test_share_seed_and_temperature(detector: Detector) -> None:
    def drawn(share: float, seed: int, temperature: float = 1.0) -> list[str]:
        return detector.replace(TEXT, share, temperature, seed).sample.corrupted

    assert drawn(0.3, 1) == drawn(0.3, 1)
    assert len({tuple(drawn(0.3, seed)) for seed in range(5)}) == 5
    assert drawn(0.3, 1, 2.0) != drawn(0.3, 1, 0.1)
    assert detector.replace(TEXT, 0.05, 1.0, 0).drawn == 1
    assert detector.replace(TEXT, 0.5, 1.0, 0).drawn > 8


def test_the_text_to_edit_holds_what_was_drawn_and_the_rest_as_typed(detector: Detector) -> None:
    """Where all drawn tokens are words, the new text is read as the very tokens that were judged."""
    compared = 0
    for seed in range(60):
        found = detector.replace(TEXT, 0.1, 1.0, seed)
        tokens = found.sample.corrupted
        if all(token.isalpha() for token, is_new in zip(tokens, found.sample.replaced, strict=True) if is_new):
            judged = detector.judge(found.text)
            assert judged.tokens == tokens
            assert judged.probability == pytest.approx(found.sample.probability, abs=1e-5)
            compared += 1
        if not found.sample.replaced[0]:
            assert found.text.startswith("The")
    assert compared > 20


def test_an_edit_is_seen_to_move_its_neighbours(detector: Detector) -> None:
    before = detector.judge("the film is very good")
    after = detector.judge("the film is very dull", before="the film is very good")
    assert after.before == [*before.probability[:4], None]
    assert after.probability[:4] != pytest.approx(before.probability[:4], abs=1e-4)
    assert detector.judge("the film is very good").before == [None] * 5


def test_specials_in_a_text_are_plain_and_long_texts_are_cut(detector: Detector) -> None:
    assert "[MASK]" not in detector.judge("the [MASK] film").tokens
    judged = detector.judge("film " * 100)
    assert (len(judged.tokens), judged.left_out) == (62, 38)
    replaced = detector.replace("film " * 100, 0.15, 1.0, 0)
    assert (len(replaced.sample.corrupted), replaced.left_out) == (62, 38)


def test_what_is_no_text_is_one_sentence(tabs: dict[str, Tab], detector: Detector) -> None:
    panel = DetectorPanel(tabs["run"], detector)
    good = {field.name: field.default for field in panel.fields}
    assert good["text"] == TEXTS[0]
    for changes, sentence in (
        ({"text": ""}, "Text: there is no text yet: type one."),
        ({"text": "a" * 100_000}, "Text: 100,000 characters are too many: shorten it to 5,000."),
        ({"text": "🙂🎉🚀"}, "Text: the model&#x27;s vocabulary knows nothing in it"),
        ({"text": "\u200b\u0001"}, "Text: there is no letter in it that the model reads"),
        ({"share": 7}, "Share of tokens replaced: give a number from 0.05 to 0.5."),
        ({"seed": None}, "Seed: there is no number"),
        ({"seed": "one"}, "Seed: give a number from 0 to 4,294,967,295."),
        ({"temperature": float("nan")}, "Temperature: give a number"),
    ):
        shown, *rest = panel.replace(good | changes)
        assert sentence in shown and 'role="alert"' in shown
        assert rest == ["", "", ""]
    said, _ = panel.edit(good | {"edited": "🙂"}, "the film")
    assert "knows nothing in it" in said
    assert "of 1 token" in panel.edit(good | {"edited": "film \ud83d"}, "")[0]  # half an emoji, which none can encode


def test_html_in_a_text_is_text(tabs: dict[str, Tab], detector: Detector) -> None:
    attack = "the film <img src=x onerror=alert(1)> is good"
    outputs = [*DetectorPanel(tabs["run"], detector).judge({"text": attack}), answer(tabs, "names", text=attack)]
    outputs.append(answer(tabs, "qa", question="is the film good", passage=attack))
    assert not any("<img" in str(output) for output in outputs)


def test_a_discriminator_alone_judges(models: dict[str, Path]) -> None:
    (tab,) = open_tabs([str(models["run"] / "discriminator")], "cpu")
    assert tab.name == "run" and isinstance(tab.model, Detector) and tab.model.generator is None
    shown, link = DetectorPanel(tab, tab.model).judge({"text": "the film is good"})
    assert shown.count('role="listitem"') == 4
    assert link == "?tab=run&text=the+film+is+good"


# -------------------------------------------------------------------------------------------- fine-tuned models


def predicted(models: dict[str, Path], name: str, *inputs: object) -> list:
    return list(load_predictor(PredictConfig(model=str(models[name]), device="cpu"))(list(inputs)))


def test_labels_and_values_are_those_of_predict(tabs: dict[str, Tab], models: dict[str, Path]) -> None:
    (found,) = predicted(models, "mood", TEXT)
    shown = answer(tabs, "mood", text=TEXT, text2="")
    assert f"<b>{found.label}</b>" in shown
    assert sorted(re.findall(r'class="number">([\d.]+%)', shown)) == sorted(f"{p:.1%}" for p in found.scores.values())
    (found,) = predicted(models, "pair", ("the film", "a plot"))
    shown = answer(tabs, "pair", text="the film", text2="a plot")
    assert f'<b>{found.label}</b><span class="note"> {found.score:.1%}' in shown
    (found,) = predicted(models, "topics", TEXT)
    shown = answer(tabs, "topics", text=TEXT, text2="")
    assert shown.count('class="chosen"') == len(found.labels)
    assert all(f"{p:.1%}" in shown for p in found.scores.values())
    (found,) = predicted(models, "stars", TEXT)
    assert f"{found.value:.4g}" in answer(tabs, "stars", text=TEXT, text2="")


def test_a_task_of_pairs_wants_two_texts(tabs: dict[str, Tab]) -> None:
    with pytest.raises(ValueError, match="Second text: there is no text yet"):
        answer(tabs, "pair", text="the film", text2="")
    assert "<b>" in answer(tabs, "mood", text="the film", text2="a plot")
    assert [field.name for field in tabs["names"].model.fields] == ["text"]


def test_entities_are_those_of_predict(tabs: dict[str, Tab], models: dict[str, Path]) -> None:
    (found,) = predicted(models, "names", TEXT)
    shown = answer(tabs, "names", text=TEXT)
    marks = re.findall(r"<mark[^>]*>(.*?)<small>(.*?)</small></mark>", shown)
    assert marks == [(entity.text, entity.type) for entity in found.entities] and marks
    plain = re.sub(r"<[^>]*>", "", re.sub("<small>.*?</small>", "", re.search(r'"passage">(.*?)</p>', shown)[1]))
    assert plain == TEXT
    (found,) = predicted(models, "words", TEXT)
    shown = answer(tabs, "words", text=TEXT)
    assert re.findall('class="verdict">(.*?)<', shown) == found.tags


@pytest.mark.parametrize("name", ["qa", "joint"])
def test_answers_stand_where_predict_found_them(tabs: dict[str, Tab], models: dict[str, Path], name: str) -> None:
    passage = "the film was dull. the music was not dull, but the actors and the film was great"
    (given,) = predicted(models, name, Question("1", "was the film good", passage))
    best = given.found.candidates[0]
    for candidate in given.found.candidates:
        assert passage[candidate.begin : candidate.end] == candidate.text
    odds = given.found.null_odds
    ask = {"question": "was the film good", "passage": passage}
    shown = answer(tabs, name, **ask, threshold=odds + 1)
    assert f"<b>{best.text}</b>" in shown
    assert f'"passage">{passage[: best.begin]}<mark class="">{best.text}</mark>{passage[best.end :]}</p>' in shown
    assert f"No-answer score {odds:.2f}, not above" in shown
    assert shown.count("<tr>") == 1 + min(10, len(given.found.candidates))
    shown = answer(tabs, name, **ask, threshold=odds - 1)
    assert "<b>No answer</b>" in shown and '<mark class="unsure">' in shown
    assert "there is always an answer" in answer(tabs, name, **ask, threshold=None)


def test_an_answer_that_occurs_twice_is_marked_where_it_was_found(models: dict[str, Path]) -> None:
    passage = "film film film film film film"
    (given,) = predicted(models, "qa", Question("1", "the film", passage))
    places = {(candidate.begin, candidate.end) for candidate in given.found.candidates}
    assert len(places) == len(given.found.candidates) > 1
    assert any(passage.find(passage[begin:end]) != begin for begin, end in places)


def test_choices(tmp_path: Path) -> None:
    folder = save_network(tmp_path / "choice", ElectraForMultipleChoice)
    (tab,) = open_tabs([str(folder)], "cpu")
    (found,) = load_predictor(PredictConfig(model=str(folder), device="cpu"))([("the film", ("good", "bad", "dull"))])
    shown = answer({"choice": tab}, "choice", text="the film", choices="good\n bad\n\ndull\n")
    best = ("good", "bad", "dull")[int(found.label)]
    assert f'<b>{int(found.label) + 1}. {best}</b><span class="note"> {found.score:.1%}' in shown
    with pytest.raises(ValueError, match="Choices, one a line: there are 1, and there must be from 2 to 50"):
        answer({"choice": tab}, "choice", text="the film", choices="good")


def test_long_inputs_say_so(tabs: dict[str, Tab]) -> None:
    assert "Longer than 64 tokens: the end was left out." in answer(tabs, "mood", text="film " * 100, text2="")
    with pytest.raises(ValueError, match="Passage: 100,000 characters are too many: shorten it to 20,000"):
        answer(tabs, "qa", question="the film", passage="a" * 100_000)
    with pytest.raises(ValueError, match="Text: the model's vocabulary knows nothing in it"):
        answer(tabs, "names", text="🙂🎉")


def test_many_at_once_get_their_own_answers(tabs: dict[str, Tab], detector: Detector) -> None:
    panel = DetectorPanel(tabs["run"], detector)
    good = {field.name: field.default for field in panel.fields}
    asked = [good | {"seed": seed} for seed in range(24)]
    alone = [panel.replace(values) for values in asked]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(panel.replace, asked)) == alone


# ------------------------------------------------------------------------------------------------------- links

FIELDS = (TextField("text", "Text"), NumberField("share", "Share", 0.15, 0.05, 0.5), NumberField("n", "N", None, 0, 9))


@given(st.text(max_size=200), st.floats(0.05, 0.5).map(lambda x: round(x, 4)), st.none() | st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_a_link_brings_everything_back(text: str, share: float, n: int | None) -> None:
    values = {"text": text.encode("utf-8", "ignore").decode(), "share": share, "n": n}
    query = to_query("a tab&more", FIELDS, values)
    given_back = from_query(query)
    assert given_back.pop("tab") == "a tab&more"
    assert given_back.get("text", "") == values["text"]
    assert float(given_back.get("share", 0.15)) == pytest.approx(share, rel=1e-5)
    assert given_back.get("n") == (None if n is None else str(n))


def test_links_are_bounded() -> None:
    assert to_query("x", FIELDS, {"text": "a" * MAX_LINK}) == ""
    with pytest.raises(ValueError, match="The link is longer than 8,000 characters"):
        from_query("?text=" + "a" * MAX_LINK)
    assert MAX_TEXT < MAX_LINK  # plain English always has a link


def test_an_example_too_long_for_a_link_says_so(tabs: dict[str, Tab]) -> None:
    fields = tabs["qa"].model.fields
    assert link_of(tabs["qa"], fields, {"question": "who", "passage": "film " * 2_000}).startswith("a link holds 8,000")
    assert link_of(tabs["qa"], fields, {"question": "who", "passage": "film"}) == "?tab=qa&question=who&passage=film"


# ------------------------------------------------------------------------------------------- the command line


def test_mistakes_are_one_sentence(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    run = str(models["run"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, sentence in (
            ([run, "--port", port], f"port {port} of 127.0.0.1 is in use: choose another one with --port"),
            ([run, "--host", "no.such.host.invalid"], "--host no.such.host.invalid is no address of this machine"),
            ([str(tmp_path / "empty")], "is no model folder"),
            (["nowhere/at/all"], "nowhere/at/all does not exist"),
            ([str(models["run"] / "generator")], "is a generator or masked LM alone"),
            ([run, "--space", run], "exists already: choose another"),
            ([run, "--device", "abacus"], "abacus"),
        ):
            free = [] if "--port" in arguments else ["--port", str(free_port())]
            assert main(["app", *arguments, *free]) == 2
            error = capsys.readouterr().err
            assert sentence in error and error.count("\n") == 1, arguments
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app", run]) == 2
    assert "pip install 'electra-toolkit[app]'" in capsys.readouterr().err


def test_what_gives_no_probabilities_of_replacement_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "electric"
    shutil.copytree(models["run"], run / "export")
    (run / "checkpoints").mkdir()
    write_toml(
        PretrainConfig(objective=ObjectiveConfig(objective="electric", generator="two-tower")), run / "config.toml"
    )
    for folder in (run, run / "export"):
        with pytest.raises(ValueError, match="is a run of Electric, whose scores are energies"):
            open_tabs([str(folder)], "cpu")


def test_one_name_for_each_tab(models: dict[str, Path]) -> None:
    mood = str(models["mood"])
    assert [tab.name for tab in open_tabs([mood, mood, f"{mood}/../mood"], "cpu")] == ["mood", "mood 2", "mood 3"]


# ------------------------------------------------------------------------------------------------------ Spaces


def test_a_space_starts_from_its_folder_alone(models: dict[str, Path], tmp_path: Path) -> None:
    space = tmp_path / "space"
    assert main(["app", str(models["run"]), str(models["joint"]), "--device", "cpu", "--space", str(space)]) == 0
    card = SpaceCard.load(space / "README.md")
    assert (card.data.sdk, card.data.sdk_version, card.data.app_file) == (
        "gradio",
        importlib.metadata.version("gradio"),
        "app.py",
    )
    assert card.data.title == "ELECTRA: run, joint" and card.data.emoji and card.data.colorFrom
    needed = (space / "requirements.txt").read_text().splitlines()
    assert any(line.startswith("torch") for line in needed) and not any("extra" in line for line in needed[1:])
    assert "*.safetensors filter=lfs" in (space / ".gitattributes").read_text()
    assert (space / "models/joint/task_heads.safetensors").is_file()
    assert not list(space.rglob("__pycache__"))

    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = (
        "import runpy, electra, pathlib; assert pathlib.Path(electra.__file__).parent.parent == pathlib.Path.cwd(); "
        "runpy.run_path('app.py', run_name='__main__')"
    )
    environment |= {"GRADIO_SERVER_PORT": str(port), "SYSTEM": "spaces", "SPACE_ID": "me/run"}  # as the Hub sets them
    process = subprocess.Popen([sys.executable, "-c", code], cwd=space, env=environment)
    try:
        assert "run, joint" in wait_for(f"http://127.0.0.1:{port}/", process)
    finally:
        process.terminate()
        process.wait(20)


def wait_for(address: str, process: subprocess.Popen) -> str:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        assert process.poll() is None, "it ended"
        try:
            with urllib.request.urlopen(address, timeout=5) as found:
                return found.read().decode()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"{address} does not answer")


def test_a_run_without_an_export_is_opened(tmp_path: Path) -> None:
    """Its newest checkpoint counts: the same networks as those that an export of it has."""
    make_store(tmp_path / "store", random_documents(40), held_out=0.1)
    run = tmp_path / "fresh"
    assert (
        main(
            f"pretrain tiny --data {tmp_path}/store --out {run} --steps 2 --batch-size 4 --seq-len 32 --hidden-size 32 "
            "--embedding-size 16 --num-layers 2 --num-heads 2 --intermediate-size 64 --max-positions 32 "
            "--warmup-steps 1 --device cpu --eval-every 2 --save-every 2".split()
        )
        == 0
    )
    if (run / "export").exists():
        (run / "export").rename(tmp_path / "moved")
    (tab,) = open_tabs([str(run)], "cpu")
    export_run(run, tmp_path / "export")
    (other,) = open_tabs([str(tmp_path / "export")], "cpu")
    assert isinstance(tab.model, Detector) and isinstance(other.model, Detector)
    text = "a b c d e f g"
    assert tab.model.replace(text, 0.3, 1.0, 0) == other.model.replace(text, 0.3, 1.0, 0)
