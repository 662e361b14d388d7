"""Promise 5: records come out as the bytes that they went in as, with what belongs around them."""

import codecs
from dataclasses import replace

import pytest

from rerank_cli import Document, Ranking, rank
from rerank_cli.errors import OutputError
from rerank_cli.render import WRITERS, Format, Style, render
from rerank_cli.terminal import encodable
from rerank_cli.types import Envelope
from tests.support.fakes import OverlapScorer, words_info

UTF16 = Envelope("utf-16-le", codecs.BOM_UTF16_LE)
MARKED = Envelope("utf-8", codecs.BOM_UTF8)
PLAIN = Envelope()
TABLE = Envelope(header=b"n,text\r\n", delimiter=",")


def document(text: str, envelope: Envelope = PLAIN, raw: bytes | None = None) -> Document:
    raw = (text + "\n").encode(envelope.encoding) if raw is None else raw
    return Document(text, source="a", line=1, raw=raw, envelope=envelope)


def ranked(*documents: Document, **options: object) -> Ranking:
    return rank("fox", documents, OverlapScorer(words_info(200)), **options)  # type: ignore[arg-type]


TEXT = WRITERS[Format.TEXT]
STYLE = Style(Format.TEXT)


class Named:
    """Sources by their names."""

    has_unnamed = False

    def __init__(self, **envelopes: Envelope) -> None:
        self._envelopes = envelopes

    def envelopes(self) -> list[tuple[str, Envelope]]:
        return list(self._envelopes.items())


def written(ranking: Ranking, *envelopes: Envelope, **options: bool) -> bytes:
    style = replace(STYLE, envelopes=envelopes, **options)  # type: ignore[arg-type]
    return b"".join(render(ranking, style))


def test_records_of_one_encoding_are_as_they_were() -> None:
    bad = document("no \ufffd", raw=b"no \xff\r\n")
    assert written(ranked(bad, document("fox"))) == b"fox\nno \xff\r\n"
    utf16 = ranked(document("nö", UTF16), document("fox", UTF16))
    assert written(utf16) == codecs.BOM_UTF16_LE + "fox\nnö\n".encode("utf-16-le")


def test_a_mark_comes_first_if_all_have_it() -> None:
    marked = document("fox", MARKED)
    assert written(ranked(document("a", MARKED), marked)) == codecs.BOM_UTF8 + b"fox\na\n"
    assert written(ranked(document("a"), marked)) == b"fox\na\n"
    assert written(ranked(), MARKED) == codecs.BOM_UTF8


def test_records_of_several_encodings_become_utf_8() -> None:
    odd = document("x", UTF16, raw=b"\x00\xd8x\x00\n\x00")  # half a character
    bad = document("\ufffd", raw=b"\xff\n")
    assert written(ranked(odd, bad, document("fox ö", UTF16))) == (
        "fox ö\n\ufffdx\n".encode() + b"\xff\n"
    )


def test_a_table_has_its_header_once_and_first() -> None:
    rows = [document("no", TABLE, b"1,no\r\n"), document("fox", TABLE, b"2,fox\r\n")]
    blank = document("", TABLE, b"3,\r\n")
    ranking = ranked(*rows, blank, keep_empty=True)
    assert written(ranking) == b"n,text\r\n2,fox\r\n1,no\r\n3,\r\n"
    assert written(ranking, scores=True) == (
        b"relevance_score,n,text\r\n1,2,fox\r\n0,1,no\r\n,3,\r\n"
    )
    assert written(ranked(*rows, passages=True), passages=True) == b"fox\nno\n"


def test_a_table_without_results_still_has_its_header() -> None:
    assert written(ranked(), TABLE, TABLE) == b"n,text\r\n"
    assert written(ranked(), TABLE, PLAIN) == b""
    assert written(ranked()) == b""


def test_tables_that_differ_only_in_their_line_ends_are_one() -> None:
    other = replace(TABLE, header=b"n,text\n")
    ranking = ranked(document("fox", TABLE, b"1,fox\r\n"), document("no", other, b"2,no\n"))
    assert written(ranking) == b"n,text\r\n1,fox\r\n2,no\n"
    wide = Envelope("utf-16-le", header="n,text\n".encode("utf-16-le"), delimiter=",")
    both = ranked(document("fox", wide, "1,fox\n".encode("utf-16-le")), document("no", other))
    assert written(both, scores=True) == b"relevance_score,n,text\n1,1,fox\n0,no\n"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (PLAIN, "a and b do not make one table: their headers are not"),
        (replace(TABLE, header=b"text\n"), "their headers"),
        (replace(TABLE, delimiter=";"), "their delimiters"),
    ],
)
def test_records_of_different_tables_have_no_header(other: Envelope, message: str) -> None:
    ranking = ranked(document("fox", TABLE, b"1,fox\n"), document("no", other, b"no\n"))
    assert written(ranking, scores=True) == b"1\t1,fox\n0\tno\n"
    remark = TEXT.find_remark(ranking, STYLE)
    assert remark is not None
    assert remark.text == "records of different tables are mixed, and have no header"
    assert "-f csv and --json" in remark.hint
    alike = ranked(document("fox", other), document("no", other))
    assert TEXT.find_remark(alike, STYLE) is None
    with pytest.raises(OutputError, match=message) as raised:
        TEXT.check_sources(Named(a=TABLE, b=other), STYLE)
    assert "-f csv and --json" in str(raised.value.hint)
    TEXT.check_sources(Named(a=TABLE, b=TABLE), STYLE)


def test_passages_make_no_table() -> None:
    passages = replace(STYLE, passages=True)
    other = replace(TABLE, delimiter=";")
    TEXT.check_sources(Named(a=TABLE, b=other), passages)
    assert TEXT.find_remark(ranked(document("fox", TABLE), document("no", other)), passages) is None


def test_scores_are_in_the_records_encoding() -> None:
    ranking = ranked(document("fox", UTF16), document(" ", UTF16), keep_empty=True)
    expected = codecs.BOM_UTF16_LE + "1\tfox\n\t \n".encode("utf-16-le")
    assert written(ranking, scores=True) == expected


def test_nul_takes_the_place_of_a_records_line_end() -> None:
    ends = [b"fox fox fox\n", b"fox fox\r\n", b"fox\0", b"none"]
    records = [document(raw.decode().strip("\r\n\0"), raw=raw) for raw in ends]
    expected = b"fox fox fox\0fox fox\0fox\0none\0"
    assert written(ranked(*records), null=True) == expected
    wide = ranked(document("fox", UTF16))
    assert written(wide, null=True) == codecs.BOM_UTF16_LE + "fox\0".encode("utf-16-le")


def test_on_a_terminal_every_record_has_its_line() -> None:
    records = [document("fox fox", UTF16), document("fox", raw=b"fox\0"), document("no")]
    for null in (False, True):
        shown = written(ranked(*records), interactive=True, null=null)
        assert shown == b"fox fox\nfox\nno\n"


def test_a_document_that_was_never_bytes_is_its_text() -> None:
    assert written(ranked(Document("fox\ud83d é"))) == "fox? é\n".encode()


def test_a_passage_that_was_not_utf_8_is_given_back_as_it_was() -> None:
    raw = b"caf\xe9 one two.\nfox \xff\xe2\x82 \xe2\x82\xac end.\n"
    text = encodable(raw.decode("utf-8", "surrogateescape"))
    record = Document(text, source="a.md", line=1, raw=raw)
    ranking = rank("fox", [record], OverlapScorer(words_info(8)), passages=True, chunk_tokens=8)
    assert written(ranking, passages=True) == raw


def test_a_passage_of_a_field_is_the_fields_text() -> None:
    raw = b'{"text": "a fox \\ufffd"}\n'
    record = Document("a fox \ufffd", fields={}, raw=raw, line=1)
    shown = written(ranked(record, passages=True), passages=True)
    assert shown == "a fox \ufffd\n".encode()
