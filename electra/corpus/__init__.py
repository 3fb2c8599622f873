"""Text files of any size and format -> lines, with a mark where a document ends.

How the pieces nest: `find_files` turns the names that a user typed into files (files.py); `read_lines` streams one of
them as stripped lines in which an empty string ends a document (readers.py), whatever its format: plain text (text.py),
records (records.py) or an archive of either (archives.py), compressed or not (decompress.py). Plain text can also be
read in parts: `cut` gives byte ranges that end at line ends, `read_range` reads one of them, so that many processes can
share a file. Memory is bounded by one line, or one record, never by a file or a document.
"""

from electra.corpus.files import find_files
from electra.corpus.readers import cut, is_divisible, next_document, read_lines, read_range
from electra.corpus.text import OnError, Reading, Tally, Unreadable, warn_of_faults

__all__ = [
    "OnError",
    "Reading",
    "Tally",
    "Unreadable",
    "cut",
    "find_files",
    "is_divisible",
    "next_document",
    "read_lines",
    "read_range",
    "warn_of_faults",
]
