"""What `electra inspect` counts in a store, against plain counting; its picture."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from stores import make_store, random_documents

from electra import census as module
from electra.census import census_lines, take_census
from electra.cli import main


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store", random_documents(200), held_out=0.1, shard_tokens=3000)


def test_counts_are_those_of_plain_counting(store):
    census = take_census(store)
    lines = [line for document in random_documents(200) for line in document]
    tokens = Counter(token for line in lines for token in line)
    assert dict(enumerate(census.tokens.tolist())) == {number: tokens[number] for number in range(store.vocab_size)}
    for found, lengths in (
        (census.lines, map(len, lines)),
        (census.documents, (sum(map(len, document)) for document in random_documents(200))),
    ):
        expected = Counter(length.bit_length() - 1 for length in lengths)
        assert dict(enumerate(found.tolist())) == {power: expected[power] for power in range(len(found))}
    assert not census.is_sample


def test_of_a_large_store_a_sample_is_counted(store, monkeypatch):
    monkeypatch.setattr(module, "_STRETCH", 50)
    census = take_census(store, counted=store.num_tokens // 4)
    assert census.is_sample and census.tokens.sum() == pytest.approx(store.num_tokens / 4, rel=0.2)
    exact = take_census(store)
    assert (census.tokens <= exact.tokens).all() and (census.lines == exact.lines).all()


def test_what_is_printed(store):
    vocabulary = store.vocabulary()
    shown = "\n".join(census_lines(take_census(store), vocabulary))
    assert "[UNK]        0.000% of the tokens" in shown and "5 of the vocabulary's entries" in shown
    first = vocabulary.token(int(np.argmax(take_census(store).tokens)))
    assert f"frequent     {first} 0.2%" in shown
    assert "16 to 31" in shown and shown.count("█" * 40) >= 2


def test_inspect_draws_verifies_and_shows_what_was_left_out(store, tmp_path, capsys):
    picture = tmp_path / "store.png"
    assert main(["inspect", str(store.folder), "--verify", "--plot", str(picture)]) == 0
    assert "checksums right" in capsys.readouterr().out
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and picture.stat().st_size > 20_000
    assert main(["inspect", str(store.folder), "--plot", str(tmp_path / "store.text")]) == 2
    assert "store.text: Format 'text' is not supported" in capsys.readouterr().err
    tokens = store.folder / "shard-00001" / "tokens.npy"
    data = bytearray(tokens.read_bytes())
    data[-1] ^= 1
    tokens.write_bytes(data)
    assert main(["inspect", str(store.folder)]) == 0
    assert "checksums not compared" in capsys.readouterr().out
    assert main(["inspect", str(store.folder), "--verify"]) == 2
    assert "tokens.npy is damaged" in capsys.readouterr().err


def test_inspect_of_a_store_needs_no_torch(store):
    code = "import sys; from electra.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, "inspect", str(store.folder)], check=True, stdout=subprocess.DEVNULL)
