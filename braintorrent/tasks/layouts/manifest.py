"""A CSV or TSV file: image,label[,subject][,split]. Paths are relative to it, or absolute.

image     a file, or the folder of a DICOM series
label     a mask file, or the image's class; several classes as a|b where they do not exclude each other, - for none
subject   images of one person never lie in two parts; left out: each image is a subject of its own
split     training, validation or test; left out or empty: BrainTorrent deals

Rows are counted as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import csv
import os
import posixpath
from difflib import get_close_matches
from pathlib import Path

from braintorrent.errors import DataError
from braintorrent.tasks.layouts import Dataset, Entry
from braintorrent.tasks.layouts._names import VOLUMES, is_image, part_named, visible

SUFFIXES = (".csv", ".tsv")
NEEDED, OPTIONAL = ("image", "label"), ("subject", "split")
NONE = "-"
# Masks in formats that no reader here takes; as a class, such a name would travel to all labs.
FOREIGN = (".npy", ".npz", ".dcm", ".seg", ".mat", ".h5", ".hdf5", ".img", ".hdr", ".mgz", ".mgh", ".json", ".xml")


def recognises(path: Path) -> bool:
    """A CSV or TSV file, or a folder with at least one that has a column `image`."""
    return (path.is_file() and path.suffix.lower() in SUFFIXES) or bool(path.is_dir() and _candidates(path))


def read(path: Path) -> Dataset:
    """One case a row, in their order."""
    if path.is_dir():
        candidates = _candidates(path)
        if len(candidates) > 1:
            raise DataError(f"{path}: {len(candidates)} CSV or TSV files have a column image; let data = name one")
        path = candidates[0]
    rows = _rows(path)
    columns = _columns(rows[0] if rows else [], path)
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows.pop()  # spreadsheets end files with empty lines
    entries: list[Entry] = []
    seen: dict[Path, int] = {}
    for number, row in enumerate(rows[1:], 2):
        entry = _entry(row, len(rows[0]), columns, path.parent, f"{path}: row {number}")
        assert isinstance(entry.image, Path)
        if (first := seen.setdefault(entry.image, number)) != number:
            raise DataError(f"{path}: row {number}: the same image as row {first}; list each once")
        if entries and isinstance(entry.label, Path) != isinstance(entries[0].label, Path):
            kinds = ("a mask file", "a class") if isinstance(entry.label, Path) else ("a class", "a mask file")
            raise DataError(f"{path}: row {number}: the label is {kinds[0]}, in row 2 {kinds[1]}; keep one kind")
        entries.append(entry)
    return Dataset(path.parent, "manifest", tuple(entries))


def _candidates(folder: Path) -> list[Path]:
    files = [path for path in visible(folder) if path.suffix.lower() in SUFFIXES and path.is_file()]
    return [path for path in files if "image" in {name.strip().lower() for name in next(iter(_rows(path)), [])}]


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            comma = "\t" if path.suffix.lower() == ".tsv" else ";" if first.count(";") > first.count(",") else ","
            return list(csv.reader(file, delimiter=comma))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not readable as text in UTF-8 with columns ({type(error).__name__})") from None


def _columns(header: list[str], path: Path) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    for name in NEEDED:
        if name not in names:
            raise DataError(f"{path}: row 1: no column {name!r}; needed are image,label, allowed also subject,split")
    for name in names:
        if names.count(name) > 1 and name in NEEDED + OPTIONAL:
            raise DataError(f"{path}: row 1: column {name!r} is there twice")
        meant = get_close_matches(name, OPTIONAL, 1, 0.75)
        if meant and meant[0] not in names:
            raise DataError(f"{path}: row 1: column {name!r} is unknown; did you mean {meant[0]!r}?")
    return {name: names.index(name) for name in NEEDED + OPTIONAL if name in names}


def _entry(row: list[str], width: int, columns: dict[str, int], folder: Path, where: str) -> Entry:
    if not any(cell.strip() for cell in row):
        raise DataError(f"{where}: empty; remove it")
    if len(row) != width:
        raise DataError(f"{where}: {len(row)} columns, the header has {width}")
    cells = {name: row[position].strip() for name, position in columns.items()}
    for name in NEEDED:
        if not cells[name]:
            raise DataError(f"{where}: the {name} is empty" + ("; - stands for no class" if name == "label" else ""))
    part = part_named(cells.get("split") or "training")
    if part is None:
        raise DataError(f"{where}: the split is none of training, validation, test")
    image = folder / cells["image"]
    subject = cells.get("subject", "")
    if "subject" in columns and not subject:
        raise DataError(f"{where}: the subject is empty; name one in every row, or leave the column out")
    subject = subject or posixpath.normpath(cells["image"])  # however the folder's own path is spelled
    return Entry(where, image, _label(cells["label"], folder, where), subject, part if cells.get("split") else "")


def _label(text: str, folder: Path, where: str) -> Path | tuple[str, ...]:
    if is_image(text):
        return folder / text
    if text == NONE:
        return ()
    classes = tuple(name.strip() for name in text.split("|"))
    if any(_is_path(name, folder) for name in (text, *classes)):
        raise DataError(
            f"{where}: label looks like a path, not a class; masks end in {', '.join(VOLUMES)} or as pictures do, "
            "classes are names without / and \\"
        )
    if not all(classes) or len(set(classes)) < len(classes):
        raise DataError(f"{where}: the label has an empty or a repeated class; write a|b for several")
    return classes


def _is_path(text: str, folder: Path) -> bool:
    return "/" in text or "\\" in text or text.lower().endswith(FOREIGN) or os.path.isfile(folder / text)
