"""WordPiece vocabularies: train one, load one, turn lines into ids.

`train_vocabulary` makes a vocabulary folder from text; `load_tokenizer` opens such a folder, any `tokenizer.json` or
a bare `vocab.txt`; both lead to a `Vocabulary`, which encodes lines and saves itself as a folder that Hugging Face's
AutoTokenizer loads. Text is split as in Google's FullTokenizer (google-research/electra, model/tokenization.py):
words up to 200 letters, and a special token typed in a text is plain text. The work is done by `tokenizers`.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import json
import random
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer

from electra.config import VocabConfig
from electra.config.location import is_url
from electra.copies import fetch_vocabulary, new_folder
from electra.corpus import Reading, Tally, find_files, read_lines, warn_of_faults
from electra.files import atomic_file, read_json, write_json
from electra.progress import Progress, counted
from electra.storage import File, size_of
from electra.words import WordTable, groups

_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MAX_WORD = 200  # letters; Google's value, where Hugging Face's is 100
_LONG_LINE = 1 << 17  # characters
_LONG_WORD = 1 << 18  # characters; `tokenizers` takes up to 400 bytes for each
_GROUP_CHARACTERS = 1 << 17  # encoded at once: an Encoding takes more than 100 bytes a token
_TABLE_CHARACTERS = 1 << 20  # looked up at once
_SAMPLE_PIECE = 1 << 20  # bytes of a document that are chosen together
_DISTINCT_WORDS = 1 << 20  # words counted before they are summed up into characters


@dataclass(frozen=True)
class SpecialIds:
    """The ids of the five tokens that every vocabulary must have."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


class Vocabulary:
    """A tokenizer whose ids are 0 .. size - 1 without gaps and include the five special tokens.

    `sha256` is that of the token list in id order and the options that decide how text is split. It is the same
    whether a vocabulary came from vocab.txt with the right flags or from tokenizer.json.
    """

    def __init__(self, tokenizer: Tokenizer, source: str = "the tokenizer") -> None:
        """Take over `tokenizer`; `source` names it in the ValueError raised for a missing special token or id."""
        ids = tokenizer.get_vocab(with_added_tokens=True)
        for name in _SPECIALS:
            if name not in ids:
                raise ValueError(f"{source} has no {name} token: a vocabulary needs {', '.join(_SPECIALS)}")
        self.tokens: list[str] = sorted(ids, key=ids.__getitem__)
        self.size = len(self.tokens)
        if ids[self.tokens[-1]] != self.size - 1:
            raise ValueError(f"{source} has {self.size} tokens but ids up to {ids[self.tokens[-1]]}: fill the gaps")
        self.special = SpecialIds(*(ids[name] for name in _SPECIALS))
        # A tokenizer.json may carry the truncation and padding that someone once trained with.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.add_special_tokens(_added_specials())
        tokenizer.encode_special_tokens = True  # "[MASK]" in a text is three pieces, not a mask
        tokenizer.post_processor = TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", self.special.cls), ("[SEP]", self.special.sep)],
        )
        self.tokenizer = tokenizer
        self.options = _options(tokenizer)
        self._table = WordTable(tokenizer) if _sees_words_alone(tokenizer, self.options) else None
        canonical = json.dumps([self.tokens, self.options], ensure_ascii=True, sort_keys=True)
        self.sha256 = hashlib.sha256(canonical.encode()).hexdigest()

    @staticmethod
    def from_json(text: str) -> Vocabulary:
        return Vocabulary(Tokenizer.from_str(text))

    def to_json(self) -> str:
        """What `from_json` needs in another process."""
        return self.tokenizer.to_str()

    def encode_lines(self, lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """All ids of all lines in a row (int32, without [CLS] and [SEP]) and the number of ids of each line (int64).

        Memory beyond the result is bounded, whatever the length of a line.
        """
        pieces: list[str] = []
        first_piece = []
        for line in lines:
            first_piece.append(len(pieces))
            if len(line) > _LONG_LINE:
                pieces.extend(_cut_at_spaces(line))
            else:
                pieces.append(line)
        if not pieces:
            return np.zeros(0, np.int32), np.zeros(0, np.int64)
        if self._table is not None:
            parts = [self._table.encode(group) for group in groups(pieces, _TABLE_CHARACTERS)]
        else:
            parts = [self._encode(group) for group in groups(pieces, _GROUP_CHARACTERS)]
        lengths = np.concatenate([counts for _, counts in parts])
        return np.concatenate([ids for ids, _ in parts]), np.add.reduceat(lengths, first_piece)

    def _encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        flat = itertools.chain.from_iterable([encoding.ids for encoding in encodings])
        return np.fromiter(flat, np.int32), np.array([len(encoding) for encoding in encodings], np.int64)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without [CLS] and [SEP]."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def token(self, token_id: int) -> str:
        return self.tokens[token_id]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The ids as readable text, special tokens included."""
        return self.tokenizer.decode([int(token_id) for token_id in ids], skip_special_tokens=False)

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, vocab.txt (one token a line, in id order) and tokenizer_config.json into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / "tokenizer.json", "w") as file:
            file.write(self.tokenizer.to_str(pretty=True))
        with atomic_file(folder / "vocab.txt", "w") as file:
            file.writelines(f"{token}\n" for token in self.tokens)
        # Not "BertTokenizer": transformers 5 would build that anew from the token list, with words of 100 letters.
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
        }
        config |= {f"{name.strip('[]').lower()}_token": name for name in _SPECIALS}
        if "lowercase" in self.options:
            config["do_lower_case"] = self.options["lowercase"]
            config["strip_accents"] = self.options["strip_accents"]
            config["tokenize_chinese_chars"] = self.options["handle_chinese_chars"]
        write_json(folder / "tokenizer_config.json", config)


def _added_specials() -> list[AddedToken]:
    return [AddedToken(name, special=True, normalized=False) for name in _SPECIALS]


def _options(tokenizer: Tokenizer) -> dict[str, Any]:
    """What decides the split besides the tokens: BERT's options by name, anything else as tokenizer.json has it."""
    state = json.loads(tokenizer.to_str())
    normalizer, pre_tokenizer, model = state["normalizer"] or {}, state["pre_tokenizer"] or {}, state["model"]
    is_bert = normalizer.get("type") == "BertNormalizer" and pre_tokenizer.get("type") == "BertPreTokenizer"
    if not is_bert or model["type"] != "WordPiece":
        return {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": model}
    if normalizer["strip_accents"] is None:
        normalizer["strip_accents"] = normalizer["lowercase"]
    return {name: value for name, value in normalizer.items() if name != "type"}


def _sees_words_alone(tokenizer: Tokenizer, options: dict[str, Any]) -> bool:
    """Whether a table of words may be used: BERT's way to split, and no added tokens, which may hold spaces.

    And a full stop, which the table needs; every vocabulary of text has one.
    """
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return "lowercase" in options and added <= set(_SPECIALS) and tokenizer.token_to_id(".") is not None


def _cut_at_spaces(line: str) -> Iterator[str]:
    """Cut a very long line (some corpora are one line) before spaces, where no word is hurt, or in a monstrous word."""
    start = 0
    while len(line) - start > _LONG_LINE:
        stop = line.rfind(" ", start + 1, start + _LONG_LINE)
        if stop < 0:
            stop = line.find(" ", start + _LONG_LINE, start + _LONG_WORD)
        if stop < 0:
            stop = min(start + _LONG_WORD, len(line))
        yield line[start:stop]
        start = stop
    yield line[start:]


# ------------------------------------------------------------------------------------------------------- load


def load_tokenizer(path: Path | str, lowercase: bool | None = None, strip_accents: bool | None = None) -> Vocabulary:
    """Open a vocabulary, model or store folder, a tokenizer.json, or a bare vocab.txt, on this machine or at a URL.

    A vocab.txt does not say how its text was prepared: `lowercase` (default True) and `strip_accents` (default as
    `lowercase`) do, and a UserWarning says so if the entries look different. Beside a tokenizer_config.json that
    file says it. Raises ValueError for a missing or unreadable file, a missing special token, duplicate entries, and
    flags that contradict what a tokenizer.json says.
    """
    path = fetch_vocabulary(path) if is_url(path) else Path(path)
    if path.is_dir():
        names = ("tokenizer.json", "tokenizer/tokenizer.json", "vocab.txt")
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise ValueError(f"{path} is no vocabulary: it has no tokenizer.json and no vocab.txt")
        path = found[0]
    if not path.is_file():
        raise ValueError(f"vocabulary {path} does not exist: name a vocabulary folder, a tokenizer.json or a vocab.txt")
    if path.suffix == ".json":
        vocabulary = Vocabulary(_read_tokenizer_json(path), str(path))
        _check_flags(vocabulary, path, lowercase, strip_accents)
        return vocabulary
    config = path.with_name("tokenizer_config.json")
    said = read_json(config) if config.is_file() else {}
    if lowercase is None:
        lowercase = bool(said.get("do_lower_case", True))
    if strip_accents is None:
        strip_accents = said.get("strip_accents")
    tokens = _read_vocab_txt(path)
    _warn_of_casing(tokens, path, lowercase)
    split_chinese = said.get("tokenize_chinese_chars", True)
    return Vocabulary(_bert_tokenizer(tokens, lowercase, strip_accents, split_chinese), str(path))


def _read_tokenizer_json(path: Path) -> Tokenizer:
    state = read_json(path)
    try:
        return Tokenizer.from_str(json.dumps(state))
    except Exception as error:  # tokenizers raises the bare class
        raise ValueError(f"{path} is no tokenizer.json, or not one of this tokenizers version ({error})") from None


def _check_flags(vocabulary: Vocabulary, path: Path, lowercase: bool | None, strip_accents: bool | None) -> None:
    for flag, wanted in (("lowercase", lowercase), ("strip_accents", strip_accents)):
        said = vocabulary.options.get(flag)
        if wanted is not None and wanted != said:
            raise ValueError(f"{path} says {flag} = {said}: leave out the flag, which is for a bare vocab.txt")


def _read_vocab_txt(path: Path) -> list[str]:
    try:
        # Split at "\n" alone: U+2028 and the like are entries of multilingual vocabularies.
        tokens = path.read_bytes().decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8: is it a vocab.txt?") from None
    tokens = [token.removesuffix("\r") for token in tokens]
    seen: dict[str, int] = {}
    for number, token in enumerate(tokens, start=1):
        if token in seen:
            raise ValueError(f"{path}: line {number} repeats {token!r} of line {seen[token]}: entries must differ")
        seen[token] = number
    return tokens


def _warn_of_casing(tokens: list[str], path: Path, lowercase: bool) -> None:
    capitals = sum(token != token.lower() for token in tokens if not (token.startswith("[") and token.endswith("]")))
    letters = sum("a" <= token.removeprefix("##")[:1] <= "z" for token in tokens)
    if lowercase and capitals > len(tokens) // 100:
        sentence = f"{path} has {capitals} entries with capitals, which lower-cased text never uses"
        warnings.warn(f"{sentence}: pass --no-lowercase", stacklevel=3)
    if not lowercase and not capitals and letters:
        sentence = f"{path} has no capitals, so that capitalised words become [UNK]"
        warnings.warn(f"{sentence}: pass --lowercase", stacklevel=3)


def _bert_tokenizer(tokens: list[str], lowercase: bool, strip_accents: bool | None, split_chinese: bool) -> Tokenizer:
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=_MAX_WORD))
    tokenizer.normalizer = BertNormalizer(
        clean_text=True, handle_chinese_chars=split_chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


# ------------------------------------------------------------------------------------------------------ train


def train_vocabulary(config: VocabConfig) -> dict[str, Any]:
    """Train a WordPiece vocabulary, write its folder, and return a summary (sizes, sample, seconds).

    Ids: [PAD] [UNK] [CLS] [SEP] [MASK], then [unused0] ..., single characters in the order of Unicode, the same with
    ##, then merged pieces, frequent ones first. The same text and settings give the same vocabulary. Memory: the
    sample (`config.sample_mb`) and the table of its different words. Raises ValueError for an empty corpus, a `size`
    that the alphabet alone exceeds, and all that `corpus.read_lines` raises.
    """
    started = time.perf_counter()
    files = find_files(config.corpus)
    with new_folder(config.out, config.overwrite) as folder:
        tally = Tally()
        sample, corpus_bytes = _draw_sample(files, config, tally)
        warn_of_faults(tally.faults)
        if not sample:
            raise ValueError(f"the corpus {', '.join(config.corpus)} has no text: name files with some lines in them")
        reserved = [*_SPECIALS, *(f"[unused{index}]" for index in range(config.unused))]
        tokenizer = _bert_tokenizer(reserved, config.lowercase, config.strip_accents, config.split_chinese)
        alphabet, inner = _alphabet(sample, tokenizer, config.limit_alphabet)
        base = [*reserved, *alphabet, *(f"##{character}" for character in inner)]
        if len(base) >= config.size:
            raise ValueError(
                f"--size {config.size} leaves no room beside {len(base)} specials, slots and single characters: "
                "raise it or lower --limit-alphabet"
            )
        vocabulary = Vocabulary(_train(sample, tokenizer, base, alphabet, config))
        vocabulary.save(folder)
    if vocabulary.size < config.size:
        sentence = f"the vocabulary has only {vocabulary.size} of {config.size} entries"
        warnings.warn(f"{sentence}: no more pieces occur {config.min_frequency} times in the text", stacklevel=2)
    return {
        "size": vocabulary.size,
        "sha256": vocabulary.sha256,
        "special_ids": asdict(vocabulary.special),
        "alphabet": len(alphabet),
        "files": len(files),
        "corpus_mb": corpus_bytes / 1e6,
        "sample_mb": sum(map(len, sample)) / 1e6,
        "lines_replaced": tally.replaced,
        "lines_skipped": tally.skipped,
        "files_not_read_whole": len(tally.faults),
        "seconds": time.perf_counter() - started,
    }


def _draw_sample(files: Sequence[File], config: VocabConfig, tally: Tally) -> tuple[list[bytes], int]:
    """A uniform random sample of documents (or 1 MB pieces of longer ones) in order, and the size of all text.

    One pass: every document draws a number, and those with the smallest numbers stay as far as --sample-mb goes.
    """
    draw = random.Random(config.seed).random
    budget = int(config.sample_mb * 1e6)
    kept: list[tuple[float, int, bytes]] = []  # a heap, the largest number (negated) on top
    kept_bytes = all_bytes = 0
    for index, document in enumerate(_documents(files, config, tally)):
        heapq.heappush(kept, (-draw(), index, document))
        kept_bytes += len(document)
        all_bytes += len(document)
        while kept_bytes > budget and len(kept) > 1:
            kept_bytes -= len(heapq.heappop(kept)[2])
    return [document for _, _, document in sorted(kept, key=lambda item: item[1])], all_bytes


def _documents(files: Sequence[File], config: VocabConfig, tally: Tally) -> Iterator[bytes]:
    reading = Reading(config.text_field, config.on_error)
    lines: list[bytes] = []
    size = 0
    with Progress("reading the corpus", "bytes", sum(map(size_of, files))) as progress:
        for file in files:
            for line in read_lines(file, reading, tally):
                if line:
                    lines.append(line.encode())
                    size += len(lines[-1])
                if lines and (not line or size > _SAMPLE_PIECE):
                    yield b"\n".join(lines)
                    lines, size = [], 0
                    progress.show(tally.disk_bytes)


def _counted(sample: Sequence[bytes], title: str) -> Iterator[bytes]:
    return counted(sample, title, "bytes", map(len, sample), sum(map(len, sample)))


def _alphabet(sample: Sequence[bytes], tokenizer: Tokenizer, limit: int) -> tuple[list[str], list[str]]:
    """The most frequent characters, and those of them that also occur inside words, each in the order of Unicode."""
    counts: Counter[str] = Counter()
    inner: set[str] = set()
    words: Counter[str] = Counter()

    def sum_up() -> None:
        for word, count in words.items():
            for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(word):
                for character in piece:
                    counts[character] += count
                inner.update(piece[1:])
        words.clear()

    for document in _counted(sample, "counting characters"):
        words.update(tokenizer.normalizer.normalize_str(document.decode()).split())
        if len(words) > _DISTINCT_WORDS:
            sum_up()
    sum_up()
    chosen = sorted(sorted(counts, key=lambda character: (-counts[character], character))[:limit])
    return chosen, [character for character in chosen if character in inner]


def _train(
    sample: Sequence[bytes], tokenizer: Tokenizer, base: list[str], alphabet: list[str], config: VocabConfig
) -> Tokenizer:
    # Left alone, the trainer numbers single characters in the order of a hash table that is seeded anew in every
    # process, and breaks ties by these numbers: two runs differ. Named beforehand, they have fixed numbers.
    trainer = WordPieceTrainer(
        vocab_size=config.size,
        min_frequency=config.min_frequency,
        special_tokens=base,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    with contextlib.ExitStack() as stack:

        def documents() -> Iterator[str]:
            yield from map(bytes.decode, _counted(sample, "counting words"))
            stack.enter_context(Progress("merging pieces"))

        tokenizer.train_from_iterator(documents(), trainer, length=len(sample))
    ids = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(ids, key=ids.__getitem__)
    return _bert_tokenizer(tokens, config.lowercase, config.strip_accents, config.split_chinese)
