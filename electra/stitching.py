"""Encoded blocks, in order -> shards: documents that go on across the border of two blocks are put together.

`Stitcher` also judges those, when all of a document is known: what of it has been written by then is taken back.
"""

from __future__ import annotations

from typing import Any

from electra.cleaning import Facts, Report, fault
from electra.config import CleaningConfig
from electra.encoding import Encoded
from electra.shards import ShardWriter


class Stitcher:
    """Write the blocks of a portion, one after the other."""

    def __init__(self, writer: ShardWriter, cleaning: CleaningConfig) -> None:
        self.report = Report()
        """What cleaning did; complete after `finish`."""
        self._writer = writer
        self._cleaning = cleaning
        self._is_open = False
        """Whether the writer's last document may go on in the next block."""
        self._facts: Facts | None = None
        """Of the text since the last end of a document, also where it has no tokens."""

    def add(self, part: Encoded) -> None:
        if part.first:
            self._end_document()
            self._is_open = False
        if part.cleaned is not None:
            part = self._judge(part)
        continues = self._is_open and not part.begins_document
        if len(part.tokens):
            self._writer.add(
                part.tokens, part.line_lengths, part.document_lengths, continues=continues, signatures=part.signatures
            )
            self._is_open = not part.ends_document
        else:
            self._is_open &= not part.ends_document

    def finish(self) -> list[dict[str, Any]]:
        """Finish the last shard; the entries of all for store.json."""
        self._end_document()
        return self._writer.finish()

    def _judge(self, part: Encoded) -> Encoded:
        """Judge the document that was open until now, if it ends in this part; the part without the rest of it."""
        assert part.cleaned is not None
        self.report.add(part.cleaned.report)
        head, tail = part.cleaned.head, part.cleaned.tail
        if head is not None:
            self._facts = head if self._facts is None else self._facts + head
        if part.cleaned.has_end:
            if self._end_document() and not part.first and not part.begins_document and len(part.document_lengths):
                part = part.without_first()
            self._facts = tail
        elif tail is not None:
            self._facts = tail
        return part

    def _end_document(self) -> bool:
        """No more comes of the document that was open; whether it was not wanted, and what was written taken back."""
        facts, self._facts = self._facts, None
        reason = fault(facts, self._cleaning) if facts is not None else ""
        if facts is None or not reason:
            return False
        self.report.drop(reason, facts)
        if self._is_open:
            self._writer.drop_last()
            self._is_open = False
        return True
