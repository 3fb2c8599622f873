"""The documentation agrees with the code: commands parse, flags and links exist, the site builds without a warning."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
from pages import DOCS, PAGES, ROOT, Block, anchors, blocks, electra_arguments, inline_code, links, rows

from electra.cli import VERBS
from electra.config import FinetuneConfig, PretrainConfig
from electra.toml import write_toml

OTHERS = {  # programs that the pages speak of
    *("--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint"),  # torchrun
    *("--kill-on-bad-exit", "--test-only"),  # Slurm
    *("--config_dir", "--config_file", "--discriminator_learning_rate", "--learning_rate"),  # KoELECTRA, DeBERTa
    *("--name", "--no-name", "--help", "--parts"),  # any switch, any verb, benchmarks/gpu.py
}
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")


@pytest.fixture(scope="module")
def reference():
    """docs/reference.py, which is no part of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        return importlib.import_module("reference")


def told(reference, verb) -> set[str]:
    """The flags that the reference tells of a verb."""
    given = (setting.flags(verb.pairs) for setting in reference.settings(verb.kind) if not setting.positional)
    return {flag for pair in given for flag in pair}


@pytest.fixture(scope="module")
def flags(reference) -> dict[str, set[str]]:
    """The flags of each verb."""
    found: dict[str, set[str]] = {}
    for verb in reference.verbs():
        found.setdefault(verb.command.split()[0], set()).update(told(reference, verb), FLAG.findall(verb.usage))
    found["launch"] |= found["pretrain"] | found["finetune"]
    return found


class Parsed(Exception):
    """The arguments were all understood."""


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command line up to the place where the work would begin, in a folder with the files that it reads."""
    real = tyro.cli

    def cli(*given, **options):
        value = real(*given, **options)
        if not options.get("return_unknown_args"):
            raise Parsed
        return value

    monkeypatch.setattr(tyro, "cli", cli)
    monkeypatch.chdir(tmp_path)
    Path("hparams.json").write_text("{}")
    Path("run").mkdir()
    write_toml(PretrainConfig(data=("store",)), tmp_path / "run" / "config.toml")

    def parsed(arguments: list[str]) -> bool:
        try:
            VERBS[arguments[0]]([os.path.expandvars(word) for word in arguments[1:]])
        except Parsed:
            return True
        except SystemExit as left:
            return left.code == 0  # --help
        return False

    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    return parsed


def commands(page: Path) -> list[list[str]]:
    found = (electra_arguments(words) for block in blocks(page) for words in block.commands())
    return [arguments for arguments in found if arguments]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_is_understood(page: Path, parse) -> None:
    for arguments in commands(page):
        assert parse(arguments), f"{page.name}: electra {shlex.join(arguments)}"


def test_commands_are_found_in_blocks() -> None:
    """What the tests about commands rely on."""
    text = "electra build a \\\n    --out b   # c\ntorchrun --x 2 -m electra pretrain tiny\n"
    text += "cat a | electra predict b > c\npip install electra"
    assert [electra_arguments(words) for words in Block("", text, 1).commands()] == [
        ["build", "a", "--out", "b"],
        ["pretrain", "tiny"],
        None,
        ["predict", "b"],
        None,
    ]
    assert sum(len(commands(page)) for page in PAGES) > 100


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.sh")), ids=lambda path: path.name)
def test_each_command_of_a_recipe_is_understood(recipe: Path, tmp_path: Path, parse) -> None:
    """bash expands them, with programs on its path that only write down how they were called."""
    programs, log = tmp_path / "programs", tmp_path / "log"
    programs.mkdir()
    for name in ("electra", "python", "torchrun"):
        (programs / name).write_text(f'#!/bin/sh\nprintf "%s\\037" {name} "$@" >>{log}; echo >>{log}\n')
        (programs / name).chmod(0o755)
    for name in ("enwiki_part1", "novels98_en", "kowiki_part1", "nsmc_reviews_notest_ko"):
        (tmp_path / "data" / "corpus").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "corpus" / f"{name}.txt").write_text("a\n\nb\n")
    places = {
        "DATA": "data",
        "OUT": "out",
        "TEXT": "text",
        "VOCAB": "vocab",
        "GLUE": "glue",
        "STORE": "store",
        "RUN": "run",
    }
    given = {name: str(tmp_path / place) for name, place in places.items()}
    given |= {"FSX": "fsx://fs-0123456789abcdef0/fsx", "BUCKET": "s3://bucket/electra", "SUBNETS": "subnet-1 subnet-2"}
    given |= {"ROLE": "arn:aws:iam::123456789012:role/r", "IMAGE": "i", "SECURITY_GROUPS": "sg-1", "TOPOLOGY": "2,2,1"}
    (tmp_path / "out").mkdir()
    path = f"{programs}:{os.environ['PATH']}"
    preset = ["tiny"] if recipe.name == "tpu-pod.sh" else []
    environment = os.environ | given | {"PATH": path}
    subprocess.run(["bash", recipe, *preset], check=True, env=environment, capture_output=True)
    called = [line.split("\037")[:-1] for line in log.read_text().splitlines()]
    used = [arguments for words in called if (arguments := electra_arguments(words)) is not None]
    assert used
    for arguments in used:
        assert parse(arguments), shlex.join(arguments)
    for program, script, *_ in called:
        assert program != "python" or (ROOT / script).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_verbs_and_flags_within_lines_exist(page: Path, flags) -> None:
    every = set().union(*flags.values()) | OTHERS
    theirs = {code for row in rows(page) for code in row[0]}
    for code in inline_code(page):
        if page.name.startswith("from-") and code in theirs:
            continue
        words = code.split()
        verb = (
            words[1] if words[0] == "electra" and len(words) > 1 and words[1].isalpha() and words[1].islower() else ""
        )
        assert not verb or verb in VERBS, f"{page.name}: `{code}`"
        if verb or words[0].startswith("--"):
            for flag in FLAG.findall(code):
                assert flag in flags.get(verb, every) | OTHERS, f"{page.name}: `{code}`"


def test_the_reference_has_the_flags_of_the_command_line(reference, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # one box below the other
    for verb in reference.verbs():
        with pytest.raises(SystemExit):
            VERBS[verb.command.split()[0]]([*verb.command.split()[1:], "--help"])
        starts = re.findall(r"^\W\W?(--[a-z][\w-]*(?:, --[a-z][\w-]*)?)", capsys.readouterr().out, re.MULTILINE)
        assert told(reference, verb) == set(FLAG.findall(" ".join(starts))), verb.command


def test_the_reference_tells_every_key_and_preset(reference) -> None:
    from electra.presets import PRESETS

    configuration, presets = reference.configuration(), reference.presets()
    for key in ("data", "optimizer.learning_rate", "phases.token_share", "questions.doc_stride", "custom.scheme"):
        assert f"{{confval}} {key}\n" in configuration
    for key in (*vars(PretrainConfig()), *vars(FinetuneConfig("m", Path(), Path()))):
        assert f"{{confval}} {key}\n" in configuration or f"[{key}\\]" in configuration, key
    assert configuration.index("{confval} published_protocol") < configuration.index("### \\[custom\\]")
    assert "Number, default `0.0005`. Peak learning rate of AdamW" in configuration
    for name in PRESETS:
        assert f"\n## {name}\n" in presets
    for name in ("cli", "configuration", "presets"):
        page = (ROOT / "docs" / f"{name}.md").read_text()
        assert len(reference.fill(page)) > 5 * len(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_measured_files_exist(page: Path) -> None:
    for code in [*inline_code(page), *links(page)]:
        for name in re.findall(r"results/([\w.-]+\.(?:json|md|txt|png))", code):
            assert (ROOT / "benchmarks" / "results" / name).is_file(), f"{page.name}: {code}"


def test_every_page_is_in_the_table_of_contents(reference) -> None:
    listed = set(re.findall(r"<([\w-]+)>$", reference.contents(), re.MULTILINE))
    assert listed == {page.stem for page in DOCS} - {"index"}
    index = (ROOT / "docs" / "index.md").read_text()
    assert all(f"({page}.md)" in index for page in listed)


def test_the_site_builds_without_a_warning_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    command = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-n", "-q", "-c", "docs"]
    done = subprocess.run(
        [*command, "-d", tmp_path / "doctrees", ".", tmp_path / "html"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "html").rglob("*.html"))
    assert len(pages) > len(DOCS)
    for page in pages:
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"(.*?)\"|<link[^>]* href=\"(.*?)\"", page.read_text())
        assert not [part for pair in loaded for part in pair if re.match(r"(https?:)?//", part)], page.name
    for sheet in (tmp_path / "html" / "_static").rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text()), sheet.name
    option = '<dt class="sig sig-object std" id="cmdoption-electra-build-held-out">'
    assert option in (tmp_path / "html" / "docs" / "cli.html").read_text()
    assert (tmp_path / "html" / "index.html").is_file()
