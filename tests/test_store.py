import hashlib
import json
import shutil

import numpy as np
import pytest
from stores import add_documents, make_store, random_documents, read_documents, tiny_vocabulary

from electra.store import Store, StoreWriter, choose_held_out


def writer(folder, vocabulary, **options):
    settings = {"held_out": 0.0, "seed": 0, "sources": [], "options": {}} | options
    return StoreWriter(folder, vocabulary, **settings)


def test_round_trip(tmp_path):
    documents = random_documents(50)
    store = make_store(tmp_path / "store", documents, held_out=0.1)
    assert read_documents(store) == documents
    assert store.num_documents == 50
    assert store.num_lines == sum(map(len, documents))
    assert store.num_tokens == sum(len(line) for document in documents for line in document)
    assert store.document_lengths().tolist() == [sum(map(len, document)) for document in documents]
    assert store.shards[0].tokens.dtype == np.uint16
    vocabulary = store.vocabulary()
    assert (vocabulary.size, vocabulary.sha256) == (store.vocab_size, store.vocab_sha256)
    assert vocabulary.special == store.special
    both = np.concatenate([store.document_ids(held_out=False), store.document_ids(held_out=True)])
    assert sorted(both) == list(range(50))


def test_files_are_plain_npy(tmp_path):
    """The header written by hand is what numpy itself reads, also without mapping."""
    documents = random_documents(5)
    make_store(tmp_path / "store", documents)
    tokens = np.load(tmp_path / "store" / "shard-00000" / "tokens.npy")
    assert tokens.tolist() == [token for document in documents for line in document for token in line]


@pytest.mark.parametrize("parts", [1, 3, 40])
@pytest.mark.parametrize("shard_tokens", [1, 700, 2**28])
def test_parts_and_shards_do_not_change_the_text(tmp_path, parts, shard_tokens):
    documents = random_documents(40)
    target = writer(tmp_path / "store", tiny_vocabulary(tmp_path), shard_tokens=shard_tokens)
    for part in np.array_split(np.arange(40), parts):
        add_documents(target, [documents[number] for number in part])
    target.close()
    store = Store.open(tmp_path / "store")
    assert read_documents(store) == documents
    sizes = [len(shard.tokens) for shard in store.shards]
    longest = max(sum(map(len, document)) for document in documents)
    assert all(shard_tokens <= size < shard_tokens + longest for size in sizes[:-1])
    assert len(sizes) == {1: 40, 2**28: 1}.get(shard_tokens, len(sizes))


def test_document_in_several_parts(tmp_path):
    documents = random_documents(3)
    target = writer(tmp_path / "store", tiny_vocabulary(tmp_path), shard_tokens=1)
    add_documents(target, documents[:1])
    for line in documents[1]:
        add_documents(target, [[line]], continues=line is not documents[1][0])
    add_documents(target, [[[7, 8]], documents[2]], continues=True)
    target.close()
    store = Store.open(tmp_path / "store")
    assert read_documents(store) == [documents[0], [*documents[1], [7, 8]], documents[2]]
    assert len(store.shards) == 3


def test_large_vocabulary_needs_four_bytes(tmp_path):
    store = make_store(tmp_path / "store", [[[65536, 5], [65999]]], vocab=66000)
    assert store.shards[0].tokens.dtype == np.uint32
    assert read_documents(store) == [[[65536, 5], [65999]]]


def test_empty_corpus(tmp_path):
    target = writer(tmp_path / "store", tiny_vocabulary(tmp_path))
    with pytest.raises(ValueError, match="the corpus holds no text"):
        target.close()
    assert not (tmp_path / "store" / "store.json").exists()


# ------------------------------------------------------------------------------------------------ held out


def an_order(documents, seed):
    return np.random.default_rng(seed).permutation(documents)


@pytest.mark.parametrize("share", [0.005, 0.05, 0.3])
def test_held_out_share(share):
    lengths = np.random.default_rng(0).lognormal(6, 1, 3000).astype(np.int64)
    chosen = choose_held_out(lengths, share, an_order(3000, 1))
    assert (np.diff(chosen) > 0).all()
    assert share <= lengths[chosen].sum() / lengths.sum() <= min(2 * share, 0.5)
    assert chosen.tolist() != choose_held_out(lengths, share, an_order(3000, 2)).tolist()


def test_held_out_of_few_documents():
    assert choose_held_out(np.array([100]), 0.1, an_order(1, 0)).tolist() == []
    assert choose_held_out(np.array([100, 50]), 0.0, an_order(2, 0)).tolist() == []
    assert choose_held_out(np.array([100, 50]), 0.005, an_order(2, 0)).tolist() == [1]
    assert choose_held_out(np.array([0, 100, 0]), 0.1, an_order(3, 0)).tolist() == []
    # Never a document that is most of the text, whatever its turn.
    for seed in range(20):
        assert 0 not in choose_held_out(np.array([10_000, 10, 10, 10]), 0.1, an_order(4, seed))


def test_what_was_held_out_stays_so():
    lengths = np.random.default_rng(0).lognormal(6, 1, 3000).astype(np.int64)
    before = choose_held_out(lengths[:1000], 0.05, an_order(1000, 1))
    after = choose_held_out(lengths, 0.05, an_order(3000, 1), before)
    assert set(before) < set(after) and 0.05 <= lengths[after].sum() / lengths.sum() <= 0.1


def test_what_is_held_out_follows_from_the_text_and_not_from_its_place(tmp_path):
    documents = random_documents(300)
    shuffled = [documents[number] for number in np.random.default_rng(0).permutation(300)]
    chosen = []
    for name, order in (("a", documents), ("b", shuffled)):
        store = make_store(tmp_path / name, order, held_out=0.1, shard_tokens=2000)
        texts = read_documents(store)
        chosen.append(sorted(map(str, (texts[number] for number in store.held_out))))
        hashes = [np.load(path) for path in sorted((tmp_path / name).glob("shard-*/hashes.npy"))]
        expected = [np.concatenate(text).astype("<u2").tobytes() for text in texts]
        assert np.concatenate(hashes).tolist() == [
            int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") for text in expected
        ]
    assert chosen[0] == chosen[1] and len(chosen[0]) > 5


# --------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def damaged(tmp_path):
    make_store(tmp_path / "store", random_documents(30), held_out=0.1, shard_tokens=2000)
    return tmp_path / "store"


FILES = [
    "shard-00000/tokens.npy",
    "shard-00001/lines.npy",
    "shard-00000/documents.npy",
    "held_out.npy",
    "tokenizer/tokenizer.json",
]


@pytest.mark.parametrize("name", FILES)
def test_missing_file(damaged, name):
    (damaged / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing.*electra build"):
        Store.open(damaged, verify=False)


@pytest.mark.parametrize("name", FILES)
def test_truncated_file(damaged, name):
    path = damaged / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{name} is truncated.*electra build"):
        Store.open(damaged, verify=False)


@pytest.mark.parametrize("name", FILES)
def test_flipped_bit(damaged, name):
    path = damaged / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is damaged.*electra build"):
        Store.open(damaged)


def test_shape_is_checked_without_verify(damaged):
    path = damaged / "held_out.npy"
    np.save(path, np.load(path).astype(np.float64))
    with pytest.raises(ValueError, match=r"held_out.npy holds float64.*electra build"):
        Store.open(damaged, verify=False)


def test_no_store(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a token store"):
        Store.open(tmp_path / "nowhere")
    (tmp_path / "store.json").write_text('{"some": "json"}')
    with pytest.raises(ValueError, match=r"store.json does not describe a token store"):
        Store.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 99}, "format version 99"),
        ({"shards": None}, "store.json is damaged"),
        ({"vocabulary": {}}, "store.json is damaged"),
        ({"dtype": "no such type"}, "store.json is damaged"),
    ],
)
def test_altered_description(damaged, change, sentence):
    path = damaged / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=sentence):
        Store.open(damaged)


def test_description_cut_off(damaged):
    path = damaged / "store.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"store.json is damaged"):
        Store.open(damaged)


def test_moves_as_a_whole(damaged, tmp_path):
    before = read_documents(Store.open(damaged))
    shutil.move(damaged, tmp_path / "elsewhere")
    assert read_documents(Store.open(tmp_path / "elsewhere")) == before
