"""Promise 5: records come out as the bytes that they went in as, with what belongs around them."""

import codecs
from dataclasses import replace
from pathlib import Path

import pytest

from rerank_cli import Document, Ranking, rank
from rerank_cli.errors import OutputError
from rerank_cli.render import WRITERS, Format, Style, render
from rerank_cli.terminal import encodable
from rerank_cli.types import Envelope
from tests.conftest import Run
from tests.support.fakes import OverlapScorer, words_info

UTF16 = Envelope("utf-16-le", codecs.BOM_UTF16_LE)
MARKED_ENVELOPE = Envelope("utf-8", codecs.BOM_UTF8)
PLAIN = Envelope()
TABLE = Envelope(header=b"n,text\r\n", delimiter=",")


def document(text: str, envelope: Envelope = PLAIN, raw: bytes | None = None) -> Document:
    raw = (text + "\n").encode(envelope.encoding) if raw is None else raw
    return Document(text, source="a", line=1, raw=raw, envelope=envelope)


def rank_documents(*documents: Document, **options: object) -> Ranking:
    return rank("fox", documents, OverlapScorer(words_info(200)), **options)  # type: ignore[arg-type]


TEXT = WRITERS[Format.TEXT]
STYLE = Style(Format.TEXT)


class NamedEnvelopes:
    """Sources by their names."""

    has_texts = has_unnamed = False

    def __init__(self, **envelopes: Envelope) -> None:
        self._envelopes = envelopes

    def envelopes(self) -> list[tuple[str, Envelope]]:
        return list(self._envelopes.items())


def render_bytes(ranking: Ranking, *envelopes: Envelope, **options: bool) -> bytes:
    style = replace(STYLE, envelopes=envelopes, **options)  # type: ignore[arg-type]
    return b"".join(render(ranking, style))


def test_records_of_one_encoding_are_as_they_were() -> None:
    bad = document("no \ufffd", raw=b"no \xff\r\n")
    assert render_bytes(rank_documents(bad, document("fox"))) == b"fox\nno \xff\r\n"
    utf16 = rank_documents(document("nö", UTF16), document("fox", UTF16))
    assert render_bytes(utf16) == codecs.BOM_UTF16_LE + "fox\nnö\n".encode("utf-16-le")


def test_a_mark_comes_first_if_all_have_it() -> None:
    marked_document = document("fox", MARKED_ENVELOPE)
    assert (
        render_bytes(rank_documents(document("a", MARKED_ENVELOPE), marked_document))
        == codecs.BOM_UTF8 + b"fox\na\n"
    )
    assert render_bytes(rank_documents(document("a"), marked_document)) == b"fox\na\n"
    assert render_bytes(rank_documents(), MARKED_ENVELOPE) == codecs.BOM_UTF8


def test_records_of_several_encodings_become_utf_8() -> None:
    odd = document("x", UTF16, raw=b"\x00\xd8x\x00\n\x00")  # half a character
    bad = document("\ufffd", raw=b"\xff\n")
    assert render_bytes(rank_documents(odd, bad, document("fox ö", UTF16))) == (
        "fox ö\n\ufffdx\n".encode() + b"\xff\n"
    )


def test_a_table_has_its_header_once_and_first() -> None:
    rows = [document("no", TABLE, b"1,no\r\n"), document("fox", TABLE, b"2,fox\r\n")]
    blank = document("", TABLE, b"3,\r\n")
    ranking = rank_documents(*rows, blank, keep_empty=True)
    assert render_bytes(ranking) == b"n,text\r\n2,fox\r\n1,no\r\n3,\r\n"
    assert render_bytes(ranking, scores=True) == (
        b"relevance_score,n,text\r\n1,2,fox\r\n0,1,no\r\n,3,\r\n"
    )
    assert render_bytes(rank_documents(*rows, passages=True), passages=True) == b"fox\nno\n"


def test_a_table_without_results_still_has_its_header() -> None:
    assert render_bytes(rank_documents(), TABLE, TABLE) == b"n,text\r\n"
    assert render_bytes(rank_documents(), TABLE, PLAIN) == b""
    assert render_bytes(rank_documents()) == b""


def test_tables_that_differ_only_in_their_line_ends_are_one() -> None:
    other = replace(TABLE, header=b"n,text\n")
    ranking = rank_documents(document("fox", TABLE, b"1,fox\r\n"), document("no", other, b"2,no\n"))
    assert render_bytes(ranking) == b"n,text\r\n1,fox\r\n2,no\n"
    wide = Envelope("utf-16-le", header="n,text\n".encode("utf-16-le"), delimiter=",")
    both = rank_documents(
        document("fox", wide, "1,fox\n".encode("utf-16-le")), document("no", other)
    )
    assert render_bytes(both, scores=True) == b"relevance_score,n,text\n1,1,fox\n0,no\n"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (PLAIN, "a and b do not make one table: their headers are not"),
        (replace(TABLE, header=b"text\n"), "their headers"),
        (replace(TABLE, delimiter=";"), "their delimiters"),
    ],
)
def test_records_of_different_tables_have_no_header(other: Envelope, message: str) -> None:
    ranking = rank_documents(document("fox", TABLE, b"1,fox\n"), document("no", other, b"no\n"))
    assert render_bytes(ranking, scores=True) == b"1\t1,fox\n0\tno\n"
    remark = TEXT.find_remark(ranking, STYLE)
    assert remark is not None
    assert (
        remark.text == "not all results are rows of one table, so they are written without a header"
    )
    assert "-f csv and --json" in remark.hint
    alike = rank_documents(document("fox", other), document("no", other))
    assert TEXT.find_remark(alike, STYLE) is None
    with pytest.raises(OutputError, match=message) as error_info:
        TEXT.check_sources(NamedEnvelopes(a=TABLE, b=other), STYLE)
    assert "-f csv and --json" in str(error_info.value.hint)
    TEXT.check_sources(NamedEnvelopes(a=TABLE, b=TABLE), STYLE)


def test_passages_make_no_table() -> None:
    passages = replace(STYLE, passages=True)
    other = replace(TABLE, delimiter=";")
    TEXT.check_sources(NamedEnvelopes(a=TABLE, b=other), passages)
    assert (
        TEXT.find_remark(rank_documents(document("fox", TABLE), document("no", other)), passages)
        is None
    )


def test_scores_are_in_the_records_encoding() -> None:
    ranking = rank_documents(document("fox", UTF16), document(" ", UTF16), keep_empty=True)
    expected = codecs.BOM_UTF16_LE + "1\tfox\n\t \n".encode("utf-16-le")
    assert render_bytes(ranking, scores=True) == expected


def test_nul_takes_the_place_of_a_records_line_end() -> None:
    ends = [b"fox fox fox\n", b"fox fox\r\n", b"fox\0", b"none"]
    records = [document(raw.decode().strip("\r\n\0"), raw=raw) for raw in ends]
    expected = b"fox fox fox\0fox fox\0fox\0none\0"
    assert render_bytes(rank_documents(*records), null=True) == expected
    wide = rank_documents(document("fox", UTF16))
    assert render_bytes(wide, null=True) == codecs.BOM_UTF16_LE + "fox\0".encode("utf-16-le")


def test_on_a_terminal_every_record_has_its_line() -> None:
    records = [document("fox fox", UTF16), document("fox", raw=b"fox\0"), document("no")]
    for null in (False, True):
        output = render_bytes(rank_documents(*records), interactive=True, null=null)
        assert output == b"fox fox\nfox\nno\n"


def page(name: str, text: str) -> Document:
    return Document(text, source=name, line=1, raw=text.encode(), whole=True)


def test_whole_files_of_several_have_their_names_and_one_has_none() -> None:
    pages = [page("a.md", "no\n"), page("-", "a fox\n"), page("c\n\udce9", " \n")]
    ranking = rank_documents(*pages, keep_empty=True)
    assert render_bytes(ranking) == (
        b"==> standard input <==\na fox\n\n==> a.md <==\nno\n\n==> c\xe2\x90\x8a\xe9 <==\n \n"
    )
    assert render_bytes(ranking, scores=True).startswith(
        b"1\t==> standard input <==\na fox\n\n0\t==>"
    )
    assert render_bytes(rank_documents(*pages, n=1)) == b"==> standard input <==\na fox\n"
    assert render_bytes(rank_documents(pages[1])) == b"a fox\n"
    plain = b"a fox\nno\n \n"
    assert render_bytes(ranking, separated=False) == plain
    assert render_bytes(ranking, null=True) == plain.replace(b"\n", b"\0")
    hint = TEXT.find_remark(ranking, STYLE)
    assert hint is not None
    assert (hint.text, "-f paths" in hint.hint) == ("", True)
    assert TEXT.find_remark(ranking, replace(STYLE, separated=False)) is None


def test_a_line_that_parts_stands_between_a_file_and_lines() -> None:
    ranking = rank_documents(page("a.md", "fox fox\n"), document("a fox"), document("no"))
    assert render_bytes(ranking) == b"==> a.md <==\nfox fox\n--\na fox\n--\nno\n"


def test_a_name_is_in_the_encoding_of_the_records() -> None:
    pages = [replace(document(text, UTF16), whole=True, source="\udce9") for text in ("fox", "no")]
    text = render_bytes(rank_documents(*pages)).decode("utf-16")
    assert text == "==> \ufffd <==\nfox\n\n==> \ufffd <==\nno\n"


def test_passages_of_several_lines_are_parted() -> None:
    text = "a fox\n" * 60 + "one two\n" * 200
    ranking = rank_documents(page("a.md", text), passages=True)
    passages = [result.passage.text for result in ranking.results]
    assert len(passages) > 1
    assert render_bytes(ranking, passages=True).decode() == "\n--\n".join(passages) + "\n"
    assert render_bytes(ranking, passages=True, separated=False).decode() == "".join(
        f"{passage}\n" for passage in passages
    )
    assert b"--" not in render_bytes(ranking, passages=True, null=True)


def test_nothing_stands_between_lines_rows_paragraphs_and_passages_of_one_line() -> None:
    paragraphs = [
        replace(document(text, raw=f"{text}\n\n".encode()), line=n)
        for n, text in enumerate(("a\nfox", "b\nb"))
    ]
    assert render_bytes(rank_documents(*paragraphs)) == b"a\nfox\n\nb\nb\n\n"
    rows = [document(text, TABLE, f'1,"{text}"\r\n'.encode()) for text in ("a\nfox", "b\nb")]
    assert render_bytes(rank_documents(*rows)) == b'n,text\r\n1,"a\nfox"\r\n1,"b\nb"\r\n'
    lines = rank_documents(document("a fox"), document("b"), passages=True)
    assert render_bytes(lines, passages=True) == b"a fox\nb\n"


def test_parts_of_files_are_parted_where_their_ends_cannot_be_seen() -> None:
    def part(text: str, raw: str) -> Document:
        return replace(document(text, raw=raw.encode()), line=1)

    sections = [part("# Fox\n\na fox", "# Fox\n\na fox\n\n"), part("one", "one\n\n")]
    assert render_bytes(rank_documents(*sections)) == b"# Fox\n\na fox\n\n--\none\n\n"
    functions = [part("f() {\n fox }", "f() {\n fox }\n"), part("one", "one\n")]
    assert render_bytes(rank_documents(*functions)) == b"f() {\n fox }\n--\none\n"
    assert render_bytes(rank_documents(*functions), separated=False) == b"f() {\n fox }\none\n"
    assert b"--" not in render_bytes(rank_documents(*functions), null=True)


def test_texts_of_options_are_parted_where_one_has_several_lines() -> None:
    assert render_bytes(rank_documents(Document("a\nb"), Document("fox"))) == b"fox\n--\na\nb\n"
    assert render_bytes(rank_documents(Document("a"), Document("fox"))) == b"fox\na\n"


def test_a_person_is_told_of_formats_for_files(rerank: Run, tmp_path: Path) -> None:
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text("fox\n")
    options = ("fox", str(tmp_path / "a.md"), str(tmp_path / "b.md"), "-m", "bm25", "-f", "text")
    assert rerank(*options).err == ""
    assert (
        "hint: -f paths writes only the names of these files" in rerank(*options, terminal=80).err
    )
    assert "-f paths" not in rerank(*options[:2], *options[3:], terminal=80).err


def test_a_document_that_was_never_bytes_is_its_text() -> None:
    assert render_bytes(rank_documents(Document("fox\ud83d é"))) == "fox? é\n".encode()


def test_a_passage_that_was_not_utf_8_is_given_back_as_it_was() -> None:
    raw = b"caf\xe9 one two.\nfox \xff\xe2\x82 \xe2\x82\xac end.\n"
    text = encodable(raw.decode("utf-8", "surrogateescape"))
    record = Document(text, source="a.md", line=1, raw=raw)
    ranking = rank("fox", [record], OverlapScorer(words_info(8)), passages=True, chunk_tokens=8)
    assert render_bytes(ranking, passages=True) == raw


def test_a_passage_of_a_field_is_the_fields_text() -> None:
    raw = b'{"text": "a fox \\ufffd"}\n'
    record = Document("a fox \ufffd", fields={}, raw=raw, line=1)
    output = render_bytes(rank_documents(record, passages=True), passages=True)
    assert output == "a fox \ufffd\n".encode()
