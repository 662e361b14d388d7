"""Images and videos: their content, how they are scored, and what comes out."""

import base64
import json
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from rerank_cli import Document, Media, Reranker, rank
from rerank_cli.errors import InputError, UsageError
from rerank_cli.media import find_media, media_label, media_url
from rerank_cli.ranking.scoring import ScoreCache, ScoreKey
from rerank_cli.render import Format
from tests.conftest import Run
from tests.support.fakes import OverlapScorer
from tests.support.pictures import DATA, URL, Viewer, draw, png


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures in a folder of the current one."""
    monkeypatch.chdir(tmp_path)
    return draw(tmp_path / "pics")


@pytest.fixture
def look(rerank: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line with a model that reads images, in the folder above the pictures."""
    monkeypatch.chdir(pictures.parent)

    def opening(*_args: object, **_options: object) -> Future[OverlapScorer]:
        future: Future[OverlapScorer] = Future()
        future.set_result(Viewer())
        return future

    monkeypatch.setattr("rerank_cli.scorers.open_in_background", opening)
    return rerank


# Content.


@pytest.mark.parametrize(
    ("name", "first", "kind"),
    [
        ("a.png", png(), "image/png"),
        ("no suffix", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("a.jpg", b"GIF89a..", "image/gif"),
        ("a.svg", b"MM\0*", "image/tiff"),
        ("a", b"\0\0\0\x1cftypavif", "image/avif"),
        ("a", b"\0\0\0\x18ftypheic", "image/heic"),
        ("a", b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm", "video/webm"),
        ("a", b"\x1a\x45\xdf\xa3\xa3\x42\x82\x88matroska", "video/x-matroska"),
        ("a", b"RIFF\0\0\0\0AVI LIST", "video/x-msvideo"),
        ("a", b"RIFF\n\0\0\0WEBPVP8 ", "image/webp"),
        ("a", b"BM\x46\0\0\0\0\0\0\0", "image/bmp"),
        ("a.tiff", b"II*\0", "image/tiff"),
        ("a.mp4", b"\0\0\0\x20ftypisom", "video/mp4"),
        ("a.mov", b"\0\0\0\x14ftypqt  ", "video/quicktime"),
    ],
)
def test_a_file_is_told_by_its_bytes_and_not_by_its_name(
    name: str, first: bytes, kind: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(first)
    media = Media("video" if kind.startswith("video") else "image", str(tmp_path / name))
    head, _, data = media_url(media).partition(",")
    assert head == f"data:{kind};base64"
    assert base64.b64decode(data, validate=True) == first


@pytest.mark.parametrize("place", [URL, "HTTP://example.org/a", DATA])
def test_a_url_is_its_own_content(place: str) -> None:
    assert media_url(Media("image", place)) == place


@pytest.mark.parametrize(
    ("name", "first", "message"),
    [
        ("a.png", b"secret", r"a\.png: not an image$"),
        ("id_rsa", b"-----BEGIN", r"id_rsa: not an image$"),
        ("a.png", b"", r"a\.png: not an image$"),
        ("a.png", b"\0\0\0\x20ftypisom", r"a\.png: not an image but video/mp4$"),
        ("a.txt", b"BMW is a car", r"a\.txt: not an image$"),
        ("a.svg", b"<svg>secret</svg>", r"a\.svg: not an image$"),
        ("a.tiff", b"secret", r"a\.tiff: not an image$"),
        ("a.avif", b"secret", r"a\.avif: not an image$"),
        ("a.png", b"x" * 1501, r"a\.png: 1\.51 kB is too large: 1\.5 kB is the limit$"),
    ],
)
def test_what_is_no_image_is_not_sent(
    name: str, first: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(first)
    with pytest.raises(InputError, match=message):
        media_url(Media("image", str(tmp_path / name)), limit=1500)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.png: no such file$"):
        media_url(Media("image", str(tmp_path / "none.png")))
    with pytest.raises(InputError, match=tmp_path.name):
        media_url(Media("image", str(tmp_path)))


@pytest.mark.usefixtures("pictures")
def test_an_argument_is_a_url_or_a_file() -> None:
    assert find_media(URL) == Media("image", URL)
    assert find_media("pics/dog.png") == Media("image", str(Path("pics", "dog.png")))
    with pytest.raises(InputError, match=r"^none\.png: no such file$") as error:
        find_media("none.png")
    assert "http" in str(error.value.hint)


def test_a_data_url_is_shown_without_its_data() -> None:
    assert media_label("data:image/png;base64," + "A" * 16_000) == "data:image/png;base64,… (12 kB)"
    assert media_label("data:image/svg+xml,<svg/>") == "data:image/svg+xml,… (6 bytes)"
    assert len(media_label("data:" + "x" * 1000 + ",")) < 120
    assert media_label("data:none") == "data:none"


# The pipeline.


def test_an_image_is_one_chunk_and_equal_ones_are_scored_once() -> None:
    viewer = Viewer()
    long = "fox " * 300
    picture = Document(long, media=Media("image", URL), text_is_label=True)
    documents = [picture, Document(long)] * 2
    ranking = rank("fox", documents, viewer, chunk_tokens=8, explain=True)
    assert viewer.media_log.count(Media("image", URL)) == 1
    assert {result.chunks for result in ranking if result.document.media} == {1}
    assert ranking.duplicates == 2


def test_images_that_are_held_are_counted_in_full() -> None:
    large = "data:image/png;base64," + "A" * 1000
    cache = ScoreCache(characters=1500)
    keys = [ScoreKey((), "", "x", Media("image", f"{large}{number}")) for number in range(3)]
    for key in keys:
        cache.put(key, (1.0,))
    assert [cache.get(key) for key in keys] == [None, None, (1.0,)]
    viewer = Viewer()
    rank("fox", [Document("", media=key.media) for key in keys for _ in range(700)], viewer)
    assert len(viewer.batches) > 1


# The command.


def test_text_is_the_path_and_never_the_picture(look: Run) -> None:
    outcome = look("fox", "pics/dog.png", "pics/fox.JPG")
    assert (outcome.out, outcome.err, outcome.code) == ("pics/fox.JPG\npics/dog.png\n", "", 0)
    assert look("fox", "pics/dog.png", "-0").raw == b"pics/dog.png\0"
    assert look("fox", "pics/dog.png").out == "pics/dog.png\n"


def test_records_come_back_as_they_were(look: Run) -> None:
    Path("a.jsonl").write_text('{"image":"pics/dog.png"}\n{"text": "a fox"}\n')
    outcome = look("fox", "a.jsonl")
    assert outcome.out == '{"text": "a fox"}\n{"image":"pics/dog.png"}\n'
    Path("a.csv").write_text("id,image\n1,pics/dog.png\n2,pics/fox.JPG\n")
    assert look("fox", "a.csv").out == "id,image\n2,pics/fox.JPG\n1,pics/dog.png\n"


def test_json_has_the_image_where_a_text_would_be(look: Run) -> None:
    Path("a.jsonl").write_text(json.dumps({"id": 7, "image": DATA, "size": 1}))
    (record,) = json.loads(look("fox", "a.jsonl", "--json").out)["results"]
    assert record["document"] == {
        "id": "7", "image": DATA, "source": "a.jsonl", "line": 1, "fields": {"id": 7, "size": 1},
    }  # fmt: skip
    assert record["passage"] == {"image": media_label(DATA), "line": 1, "raw_score": 0}
    (file,) = json.loads(look("fox", "pics/fox.JPG", "--json").out)["results"]
    assert file["document"] == {"image": "pics/fox.JPG", "source": "pics/fox.JPG"}
    assert file["passage"] == {"image": "pics/fox.JPG", "raw_score": 1}


@pytest.mark.parametrize("format_", list(Format))
@pytest.mark.parametrize("more", [[], ["--passages"], ["--chunk-tokens", "8", "--explain"]])
def test_every_format_writes_them(format_: Format, more: list[str], look: Run) -> None:
    if "--explain" in more and format_ not in (Format.TABLE, Format.JSON, Format.JSONL, Format.MD):
        more = more[:2]
    Path("a.jsonl").write_text(json.dumps({"image": URL}) + "\n" + json.dumps({"video": DATA}))
    paths = ["a.jsonl", "pics/dog.png", "pics/note.md"]
    outcome = look("fox", "-f", format_.value, *more, *paths)
    assert (outcome.code, outcome.err) == (0, "")
    expected = ["pics/dog.png", "a.jsonl" if format_ in (Format.PATHS, Format.TREC) else URL]
    assert all(word in outcome.out for word in expected)
    assert "iVBOR" not in outcome.out or format_ in (Format.JSON, Format.JSONL, Format.TEXT)
    assert look("fox", *more[:2], *paths, terminal=100).code == 0


def test_the_name_of_one_image_in_a_run_is_its_path(look: Run) -> None:
    assert look("fox", "pics/dog.png", "-f", "trec").out == "1 Q0 pics/dog.png 1 0 words@1\n"


def test_a_record_that_a_model_does_not_read_is_bad_input(rerank: Run, pictures: Path) -> None:
    (pictures / "a.jsonl").write_text(json.dumps({"image": "dog.png"}))
    outcome = rerank("fox", str(pictures / "a.jsonl"))
    assert outcome.code == 2
    assert "but an image, which mini@3 does not read" in outcome.err


def test_a_file_that_was_changed_is_scored_again(pictures: Path) -> None:
    viewer, path = Viewer(), pictures / "fox.JPG"
    fox = Document("fox", media=Media("image", str(path)), text_is_label=True)
    with Reranker(viewer) as reranker:
        for _ in range(2):
            reranker.rank("fox", [fox])
        assert len(viewer.media_log) == 1
        path.write_bytes(png() + b"more")
        reranker.rank("fox", [fox])
        assert len(viewer.media_log) == 2


# Python.


def test_mappings_have_images(pictures: Path) -> None:
    viewer = Viewer()
    documents: list[dict[str, Any]] = [
        {"text": "a fox", "image": URL, "id": 1},
        {"image": URL},
        {"text": "a dog", "image": Media("image", str(pictures / "dog.png"))},
        {"text": "a cat", "image": None},
    ]
    with Reranker(viewer) as reranker:
        ranking = reranker.rank("fox", documents)
    documents_by_index = {result.index: result.document for result in ranking}
    assert [documents_by_index[n].text for n in range(4)] == ["a fox", URL, "a dog", "a cat"]
    assert [documents_by_index[n].text_is_label for n in range(4)] == [False, True, False, False]
    assert (documents_by_index[0].fields, documents_by_index[0].media) == (
        {"id": 1},
        Media("image", URL),
    )
    assert viewer.media_log.count(None) == 1


def test_files_of_mappings_are_in_a_folder_that_is_given(pictures: Path) -> None:
    (pictures.parent / "secret.png").write_bytes(png())
    documents = [{"text": "a", "image": "dog.png"}]
    with pytest.raises(UsageError, match=r"document 0: the image dog\.png is no URL") as error:
        Reranker(Viewer()).rank("fox", documents)
    assert "media_root" in str(error.value.hint)
    reranker = Reranker(Viewer(), media_root=pictures)
    (result,) = reranker.rank("fox", documents)
    assert result.document.media == Media("image", str(pictures / "dog.png"))
    with pytest.raises(InputError, match="where records may name files"):
        reranker.rank("fox", [{"text": "a", "image": "../secret.png"}])
    with pytest.raises(UsageError, match="has an image and a video"):
        reranker.rank("fox", [{"image": URL, "video": URL}])
    with pytest.raises(UsageError, match="the image is of type list"):
        reranker.rank("fox", [{"image": [URL]}])


def test_a_text_with_an_image_is_a_text_for_models_of_texts() -> None:
    scorer = OverlapScorer()
    mapping = {"text": "a fox", "image": URL}
    ranking = rank("fox", [mapping, Document("a fox", media=Media("image", URL))], scorer)
    assert ranking.duplicates == 1
    assert ranking[0].document.fields == {"image": URL}
    assert [*ranking.notes] == [
        "words@1 reads no images: of documents with both, only the text was scored"
    ]


def test_two_pictures_with_one_caption_are_two_documents() -> None:
    viewer = Viewer()
    places = [URL, DATA, URL]
    ranking = rank("fox", [Document("x", media=Media("image", place)) for place in places], viewer)
    assert (len(viewer.media_log), ranking.duplicates) == (2, 1)


def test_a_query_with_an_image_needs_a_model_that_takes_one() -> None:
    query = Document("red", media=Media("image", URL))
    with pytest.raises(UsageError, match="words@1 takes no image as a query"):
        Reranker(OverlapScorer()).rank(query, ["a"])
