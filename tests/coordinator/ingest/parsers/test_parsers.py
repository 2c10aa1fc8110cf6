"""Every parser on real files: text, headings at their offsets, metadata, titles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.ingest.document import ParsedDocument
from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.parsers import EXTENSIONS, parse_file, supported
from ragschema.errors import PayloadTooLarge, UnreadableDocument
from tests.coordinator.ingest.parsers.making import replace_entry, write_docx, write_pdf

LIMITS = ParseLimits()


def parse(tmp_path: Path, name: str, raw: str | bytes) -> ParsedDocument:
    (document,) = parse_all(tmp_path, name, raw)
    return document


def parse_all(tmp_path: Path, name: str, raw: str | bytes) -> tuple[ParsedDocument, ...]:
    path = tmp_path / name.replace("/", "_")
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return parse_file(path, name, LIMITS)


def outline(document: ParsedDocument) -> list[tuple[int, str]]:
    """(level, title); checks on the way that offsets point at the headings."""
    for heading in document.headings:
        line = document.text[heading.offset :].split("\n", 1)[0]
        assert heading.title.split()[-1] in line
    return [(h.level, h.title) for h in document.headings]


def test_markdown(tmp_path: Path) -> None:
    text = (
        "---\ntitle: The title\nyear: 2020\nday: 2024-02-01\ntags: [a]\n---\n"
        "# One #\n\ntext\n```\n# no heading\n```\n~~~\n## neither\n~~~\n### Three\n#nothing\n"
    )
    document = parse(tmp_path, "dir/a.md", text)
    assert document.document_id == "dir/a.md"
    assert document.title == "The title"
    assert document.metadata == {"year": 2020, "day": "2024-02-01"}
    assert document.text.startswith("# One #")
    assert outline(document) == [(1, "One"), (3, "Three")]


@pytest.mark.parametrize(
    "head", ["---\n[broken\n---\n", "---\n- a list\n---\n", "---\nnever closed\n", "--- \n"]
)
def test_what_is_no_front_matter_stays_text(tmp_path: Path, head: str) -> None:
    document = parse(tmp_path, "a.md", f"{head}body")
    assert document.metadata == {}
    assert document.text == f"{head}body"


def test_plain_text_has_no_headings(tmp_path: Path) -> None:
    document = parse(tmp_path, "a.txt", "# not a heading\r\nsecond line\rthird")
    assert document.text == "# not a heading\nsecond line\nthird"
    assert (document.headings, document.title) == ((), "a.txt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    raw = "Füße €".encode(encoding)
    if encoding == "utf-16-le":
        raw = b"\xff\xfe" + raw
    document = parse(tmp_path, "a.txt", raw)
    assert (document.text, document.note) == ("Füße €", None)


def test_latin_1_is_read_with_a_note(tmp_path: Path) -> None:
    document = parse(tmp_path, "a.txt", "Füße".encode("latin-1"))
    assert document.text == "Füße"
    assert "Latin-1" in str(document.note)


@pytest.mark.parametrize(
    "raw", [b"PK\x03\x04\x00\x00", bytes(range(1, 9)) * 9, b"\xff\xfe\x00\xd8a"]
)
def test_binary_is_refused(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(UnreadableDocument, match=r"binary|does not go on"):
        parse(tmp_path, "a.txt", raw)


def test_html(tmp_path: Path) -> None:
    document = parse(
        tmp_path,
        "a.html",
        "<!doctype html><html><head><title>A &amp; B</title><style>p{}</style></head><body>"
        "<h1>Main <em>title</em></h1><p>One<br>two <b>bold</b>,\n three.</p>"
        "<script>var hidden = '<p>x</p>';</script><!-- hidden -->"
        "<h2>Sub</h2><ul><li>first<li>second</ul>"
        "<table><tr><td>1</td><td>2</td></tr></table><pre>  keep\n   this</pre></body></html>",
    )
    assert document.title == "A & B"
    assert outline(document) == [(1, "Main title"), (2, "Sub")]
    assert "One\ntwo bold, three." in document.text
    assert "1\t2" in document.text
    assert "keep\n   this" in document.text
    assert "hidden" not in document.text


def test_html_in_its_declared_encoding(tmp_path: Path) -> None:
    raw = '<meta charset="cp1251"><p>Привет</p>'.encode("cp1251")
    document = parse(tmp_path, "a.html", raw)
    assert (document.text, document.note) == ("Привет", None)


def test_tag_soup_is_read(tmp_path: Path) -> None:
    document = parse(tmp_path, "a.html", "</p><b>one<p>two</b></div><h9>three & &nosuch; <")
    assert all(word in document.text for word in ("one", "two", "three"))


@pytest.mark.parametrize("tag", ["div", "b", "span", "table><tr><td", "ul><li"])
def test_nested_markup_is_refused_early(tmp_path: Path, tag: str) -> None:
    with pytest.raises(UnreadableDocument, match="deep"):
        parse(tmp_path, "a.html", f"<{tag}>" * 1_000_000)


def test_many_unclosed_paragraphs_are_no_nesting(tmp_path: Path) -> None:
    document = parse(tmp_path, "a.html", "<p>x" * 5000)
    assert document.text.count("x") == 5000


def test_python_source(tmp_path: Path) -> None:
    text = (
        '"""Module."""\n\n# a comment\n@decorated\nclass Shape:\n    """A shape."""\n\n'
        "    def area(self) -> float:\n        return 1.0\n\n\nasync def main(): ...\n"
    )
    document = parse(tmp_path, "pkg/mod.py", text)
    assert document.text == text
    assert [(h.level, h.title) for h in document.headings] == [
        (1, "class Shape"),
        (2, "def area"),
        (1, "def main"),
    ]
    starts = [text[h.offset :].split("\n")[0].strip() for h in document.headings]
    assert starts == ["@decorated", "def area(self) -> float:", "async def main(): ..."]


@pytest.mark.parametrize("text", ["def broken(:", "(" * 50_000, "x = " + "-" * 200_000 + "1"])
def test_source_that_does_not_parse_is_plain_text(tmp_path: Path, text: str) -> None:
    document = parse(tmp_path, "a.py", text)
    assert (document.text, document.headings) == (text, ())
    assert "not valid Python" in str(document.note)


def test_records(tmp_path: Path) -> None:
    found = parse_all(
        tmp_path,
        "docs/r.jsonl",
        '{"id": "a", "title": "T", "text": "# H\\n\\none", "n": 1, "f": 0.5, "ok": true,'
        ' "none": null, "list": [1]}\n\n{"id": 7, "text": "two\\u2028lines"}\n{"text": "three"}\n',
    )
    ids = [d.document_id for d in found]
    assert ids == ["docs/r.jsonl#a", "docs/r.jsonl#7", "docs/r.jsonl#4"]
    assert found[0].metadata == {"n": 1, "f": 0.5, "ok": True}
    assert (found[0].title, outline(found[0])) == ("T", [(1, "H")])
    assert found[1].title == "r.jsonl"


def test_ids_of_a_file_on_its_own(tmp_path: Path) -> None:
    found = parse_all(tmp_path, "r.json", '[{"id": "a", "text": "1"}, {"text": "2"}]')
    assert [d.document_id for d in found] == ["a", "r.json#2"]
    assert parse(tmp_path, "r.json", '{"text": "only"}').document_id == "r.json"


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("r.jsonl", '{"text": "a"}\n{"text": 3}', "line 2: has no text"),
        ("r.jsonl", '{"text": "a"}\nnot json', "line 2 is not JSON"),
        ("r.jsonl", "[1]", "line 1 is not an object"),
        ("r.jsonl", '{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}', "line 2: the id '1'"),
        ("r.json", '{"text": "a", "n": NaN}', "NaN"),
        ("r.json", '{"text": "a", "n": 1e999}', "range"),
        ("r.json", '{"text": "a", "id": true}', "id True"),
        ("r.json", '{"text": "a", "id": ""}', "id ''"),
        ("r.json", '"text"', "holds a str"),
        ("r.json", '[{"text": "a"}, 3]', "record 2"),
        ("r.json", "[" * 100_000, "deep"),
        ("r.json", '{"a":' * 100_000, "deep"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, name: str, raw: str, words: str) -> None:
    with pytest.raises(UnreadableDocument, match=words):
        parse_all(tmp_path, name, raw)


def test_docx(tmp_path: Path) -> None:
    path = write_docx(tmp_path / "a.docx", "The title")
    (document,) = parse_file(path, "a.docx", LIMITS)
    assert document.title == "The title"
    assert document.metadata == {"author": "Ada"}
    assert outline(document) == [(1, "Chapter"), (2, "Section")]
    assert document.text.split("\n\n") == [
        *("Chapter", "First paragraph.", "Section", "cell 00 | cell 01", "cell 10 | cell 11"),
        "After the table.",
    ]


def test_docx_damage(tmp_path: Path) -> None:
    path = write_docx(tmp_path / "a.docx")
    raw = path.read_bytes()
    for broken in (raw[: len(raw) // 2], raw[:50], b"PK\x05\x06" + b"\0" * 18, b"\0" * 100):
        path.write_bytes(broken)
        with pytest.raises(UnreadableDocument):
            parse_file(path, "a.docx", LIMITS)
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600)
    with pytest.raises(UnreadableDocument, match="encrypted"):
        parse_file(path, "a.docx", LIMITS)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<w:document", "damaged"),
        (b"not xml", "damaged"),
        (b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", "entities"),
        (b"<a>" * 100_000, "damaged"),
    ],
)
def test_docx_with_a_hostile_body(tmp_path: Path, body: bytes, words: str) -> None:
    path = write_docx(tmp_path / "a.docx")
    replace_entry(path, "word/document.xml", body)
    with pytest.raises(UnreadableDocument, match=words):
        parse_file(path, "a.docx", LIMITS)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = write_docx(tmp_path / "a.docx")
    replace_entry(path, "word/media/big.bin", b"\0" * (30 << 20))
    with pytest.raises(PayloadTooLarge, match="times its size"):
        parse_file(path, "a.docx", LIMITS)
    with pytest.raises(PayloadTooLarge, match="more than 1000000 bytes"):
        parse_file(path, "a.docx", replace(LIMITS, max_expanded_bytes=1_000_000))
    with pytest.raises(PayloadTooLarge, match="packed files"):
        parse_file(path, "a.docx", replace(LIMITS, max_entries=3))


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    path = write_docx(tmp_path / "a.docx")
    replace_entry(path, "word/media/big.bin", b"\0" * (8 << 20))
    raw = path.read_bytes()
    true_size, claimed = (8 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little")
    assert raw.count(true_size) >= 2
    path.write_bytes(raw.replace(true_size, claimed))
    with pytest.raises((UnreadableDocument, PayloadTooLarge)):
        parse_file(path, "a.docx", LIMITS)


def test_pdf(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["Intro\nfirst page", "Method\nsecond page"], "A title")
    (document,) = parse_file(path, "a.pdf", LIMITS)
    assert document.title == "A title"
    assert document.metadata == {"pages": 2, "author": "Ada"}
    assert "first page" in document.text
    assert outline(document) == [(1, "Intro"), (1, "Method")]


def test_pdf_passwords(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["secret"], password="pw")
    with pytest.raises(UnreadableDocument, match="encrypted"):
        parse_file(path, "a.pdf", LIMITS)
    open_to_all = write_pdf(tmp_path / "b.pdf", ["public"], password="pw", owner_only=True)
    assert "public" in parse_file(open_to_all, "b.pdf", LIMITS)[0].text


def test_pdf_without_text(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["", ""])
    with pytest.raises(UnreadableDocument, match="no text on its 2 pages"):
        parse_file(path, "a.pdf", LIMITS)


def test_pdf_damage(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["some text"], "T")
    raw = path.read_bytes()
    for broken in (b"%PDF-1.7\n", raw[:100], b"\0" * 1000, raw.replace(b"/Pages", b"/Sagep")):
        path.write_bytes(broken)
        with pytest.raises(UnreadableDocument):
            parse_file(path, "a.pdf", LIMITS)


def test_flipped_bytes_in_rich_files_never_escape_as_other_errors(tmp_path: Path) -> None:
    import random

    seed = 20
    print("seed", seed)
    rng = random.Random(seed)
    sources = [
        write_docx(tmp_path / "a.docx"),
        write_pdf(tmp_path / "a.pdf", ["One\ntwo", "three"], "T"),
    ]
    for path in sources:
        raw = path.read_bytes()
        for _ in range(40):
            broken = bytearray(raw)
            for _ in range(rng.randint(1, 20)):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            path.write_bytes(broken)
            try:
                parse_file(path, path.name, LIMITS)
            except (UnreadableDocument, PayloadTooLarge) as error:
                assert error.message


def test_limits_and_types(tmp_path: Path) -> None:
    assert supported("A.MD")
    assert not supported("a.exe")
    assert {".txt", ".md", ".html", ".pdf", ".docx", ".py", ".json", ".jsonl"} <= EXTENSIONS
    with pytest.raises(UnreadableDocument, match=r"\.exe"):
        parse(tmp_path, "a.exe", "x")
    with pytest.raises(UnreadableDocument, match="empty"):
        parse(tmp_path, "a.txt", "")
    with pytest.raises(UnreadableDocument, match="no text"):
        parse(tmp_path, "a.md", "\n\n")
    with pytest.raises(UnreadableDocument, match="cannot be read"):
        parse_file(tmp_path / "absent.txt", "absent.txt", LIMITS)
    path = tmp_path / "b.txt"
    path.write_text("x" * 100)
    with pytest.raises(PayloadTooLarge, match="100 bytes"):
        parse_file(path, "b.txt", replace(LIMITS, max_file_bytes=99))
    with pytest.raises(PayloadTooLarge, match="100 characters"):
        parse_file(path, "b.txt", replace(LIMITS, max_text_chars=99))
    records = tmp_path / "c.jsonl"
    records.write_text('{"text": "a"}\n' * 5)
    with pytest.raises(PayloadTooLarge, match="4 documents"):
        parse_file(records, "c.jsonl", replace(LIMITS, max_documents=4))
