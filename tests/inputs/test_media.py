"""Images and videos among what is read: records that are one, and files."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from rerank_cli import Document, Media, rank
from rerank_cli.errors import InputError
from rerank_cli.inputs import MEDIA_SUFFIXES, InputFormat
from rerank_cli.inputs.documents import Inputs
from rerank_cli.inputs.records import TextFields, make_document
from rerank_cli.inputs.text import SourceBlock
from rerank_cli.media import find_media, media_url
from rerank_cli.scorers import open_scorer
from rerank_cli.types import Envelope
from tests.conftest import ROOT
from tests.support.fakes import OverlapScorer
from tests.support.pictures import DATA, URL, Viewer, draw, png
from tests.support.reading import give_stdin, inputs_of


def inputs_for(viewer: OverlapScorer, *paths: Path | str, **options: Any) -> Inputs:
    inputs = inputs_of(*paths, **options)
    inputs.set_scorer(viewer.info)
    return inputs


def records(path: Path, *rows: object) -> list[Document]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(inputs_of(path))


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures in a folder of the current one."""
    monkeypatch.chdir(tmp_path)
    return draw(tmp_path / "pics")


# Records.


def test_a_record_without_a_text_is_an_image_or_a_video(pictures: Path) -> None:
    rows = [
        {"id": 1, "image": URL, "size": 3},
        {"image": "dog.png"},
        {"video": "https://example.org/fox.mp4", "image": " ", "text": None},
        {"image": DATA},
        {"image": str(pictures / "fox.JPG")},
    ]
    first, *others = records(pictures / "a.jsonl", *rows)
    assert (first.text, first.media, first.id) == (URL, Media("image", URL), "1")
    assert (first.fields, first.line) == ({"id": 1, "size": 3}, 1)
    assert [(other.text, other.media) for other in others] == [
        ("dog.png", Media("image", str(pictures / "dog.png"))),
        ("https://example.org/fox.mp4", Media("video", "https://example.org/fox.mp4")),
        ("data:image/png;base64,… (9 bytes)", Media("image", DATA)),
        (str(pictures / "fox.JPG"), Media("image", str(pictures / "fox.JPG"))),
    ]
    assert json.loads(others[2].raw or b"") == {"image": DATA}


def test_paths_begin_in_the_folder_of_their_file_or_in_one_that_is_given(pictures: Path) -> None:
    (pictures / "a.csv").write_text("id,image\nx,dog.png\n")
    (document,) = inputs_of("pics/a.csv")
    assert document.media == Media("image", str(Path("pics", "dog.png")))
    (pictures / "b.jsonl").write_text('{"image": "pics/dog.png"}\n')
    (document,) = inputs_of("pics/b.jsonl", media_root=".")
    assert document.media == Media("image", str(Path("pics", "dog.png")))


@pytest.mark.usefixtures("pictures")
def test_records_of_a_pipe_name_files_only_in_a_folder_that_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give_stdin(monkeypatch, b'{"image": "dog.png"}\n')
    with pytest.raises(InputError, match=r"dog\.png: a record that is not from a file") as error:
        list(inputs_of("-", input_format=InputFormat.JSONL))
    assert "--media-root" in str(error.value.hint)
    give_stdin(monkeypatch, b'{"image": "dog.png"}\n')
    (document,) = inputs_of("-", input_format=InputFormat.JSONL, media_root="pics")
    assert document.media == Media("image", str(Path("pics", "dog.png")))


def test_a_text_is_a_text_whatever_else_there_is(pictures: Path) -> None:
    rows = [{"text": "a", "image": URL}, {"body": "b", "video": URL}]
    assert [d.media for d in records(pictures / "a.jsonl", *rows)] == [None, None]
    video_inputs = inputs_of(pictures / "a.jsonl", fields=TextFields(["video"]))
    (pictures / "a.jsonl").write_text(json.dumps({"video": URL}))
    assert [(d.text, d.media) for d in video_inputs] == [(URL, None)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": URL, "video": URL}, ":1: a record is an image or a video, and this one is both"),
        (
            {"image": "none.png"},
            r":1: no field called .*, but an image: .*none\.png: no such file$",
        ),
        ({"image": "."}, ":1: .*: not a file"),
        ({"image": "A" * 100_000}, r":1: .{1,300}…: no such file$"),
        ({"image": "a\0b"}, ":1: .*: no such file"),
        ({"image": 3}, ":1: no field called text, content"),
        ({"image": " "}, ":1: no field called text, content"),
        ({"image": ["dog.png"]}, ":1: no field called text, content"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(
    row: dict[str, object], message: str, pictures: Path
) -> None:
    with pytest.raises(InputError, match=rf"a\.jsonl{message}"):
        records(pictures / "a.jsonl", row)


def test_a_scorer_is_given_what_it_reads_and_no_more(pictures: Path) -> None:
    (pictures / "a.jsonl").write_text(json.dumps({"video": URL, "id": 1}))
    assert len(list(inputs_for(Viewer("video"), pictures / "a.jsonl"))) == 1
    with pytest.raises(InputError, match=r"but a video, which words@1 does not read$") as error:
        list(inputs_for(Viewer("image"), pictures / "a.jsonl"))
    assert "the record has id; rerank providers show" in str(error.value.hint)


def test_a_model_of_texts_refuses_images_before_it_surveys_them() -> None:
    picture = Document("fox.png", media=Media("image", "fox.png"), text_is_label=True)
    for scorer in (OverlapScorer(), open_scorer("bm25")):
        with pytest.raises(InputError, match=r"^fox\.png: .* reads no images$"):
            rank("fox", [picture], scorer)


# Files.


def test_files_that_are_images_are_documents(pictures: Path) -> None:
    names = ["dog.png", "fox.JPG", "note.md"]
    inputs = inputs_for(Viewer(), *(pictures / name for name in names))
    dog, fox, note = inputs
    assert (dog.media, note.media) == (Media("image", str(pictures / "dog.png")), None)
    assert (fox.text, fox.source, fox.line) == (str(pictures / "fox.JPG"),) * 2 + (None,)
    assert dog.raw == f"{pictures / 'dog.png'}\n".encode()
    assert inputs.report.binary == []
    assert inputs.share == 1


def test_for_a_model_of_texts_they_are_what_they_were(pictures: Path) -> None:
    for inputs in (inputs_of(pictures / "dog.png"), inputs_for(Viewer("video"), "pics/dog.png")):
        assert list(inputs) == []
        assert len(inputs.report.binary) == 1


def test_a_folder_has_images_texts_and_what_only_has_the_name(pictures: Path) -> None:
    (pictures / "compose.json").write_text('{"image": "fox:latest"}')
    inputs = inputs_for(Viewer(), pictures, recursive=True)
    is_media_by_name = {Path(d.source or "").name: d.media is not None for d in inputs}
    assert is_media_by_name == {
        "compose.json": False,
        "dog.png": True,
        "fox.JPG": True,
        "note.md": False,
        "pointer.png": False,
    }
    assert inputs.report.skip_counts["binary"] == 1
    plain = inputs_of(pictures, recursive=True)
    assert not any(document.media for document in plain)
    assert plain.report.skip_counts["binary"] == 3


def test_a_file_of_records_in_a_folder_is_one_though_an_image_is_missing(pictures: Path) -> None:
    for name in ("dog.png", "fox.JPG", "note.md", "pointer.png"):
        (pictures / name).unlink()
    (pictures / "a.jsonl").write_text(json.dumps({"text": "a fox", "image": "gone.png"}))
    inputs = inputs_for(Viewer(), pictures, recursive=True)
    assert list(inputs) == []
    (problem,) = inputs.report.problems
    assert "a.jsonl:1: the field image: " in str(problem)


def test_an_image_that_is_too_large_is_left_out_of_a_folder(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerank_cli.media.MAX_FILE_BYTES", 200)
    (pictures / "dog.png").write_bytes(png() + bytes(200))
    inputs = inputs_for(Viewer(), pictures, recursive=True)
    assert [Path(d.source or "").name for d in inputs if d.media] == ["fox.JPG"]
    (problem,) = inputs.report.problems
    assert "dog.png: 2" in str(problem)
    with pytest.raises(InputError, match="is too large"):
        list(inputs_for(Viewer(), pictures / "dog.png"))


def test_what_a_file_is_said_to_hold_it_holds(pictures: Path) -> None:
    inputs = inputs_of(pictures / "dog.png", input_format=InputFormat.TEXT)
    inputs.set_scorer(Viewer().info)
    assert [(document.media, document.text[1:4]) for document in inputs] == [(None, "PNG")]


def test_every_suffix_is_on_the_page_about_inputs() -> None:
    page = (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")
    assert all(f"`{suffix}`" in page for suffix in MEDIA_SUFFIXES)


# Files that records name.

OUTSIDE = "outside of .*where records may name files"
POSIX = pytest.mark.skipif(os.name == "nt", reason="links and pipes are POSIX's")


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    """A folder of records, beside a picture and a text that are not theirs."""
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret.png").write_bytes(png())
    return draw(tmp_path / "pics")


def read_record(folder: Path, image: str, **options: Any) -> Document:
    (folder / "a.jsonl").write_text(json.dumps({"image": image}))
    (document,) = inputs_for(Viewer(), folder / "a.jsonl", **options)
    return document


@pytest.mark.parametrize(
    "image",
    ["{up}/secret.png", "../secret.png", "x/../../secret.png", "../other/secret.png", "../none.png",
     "../pics-not/x.png", "..", "/etc/passwd", "../pics/../secret.png"],
)  # fmt: skip
def test_a_record_names_no_file_outside_of_its_folder(image: str, safe: Path) -> None:
    with pytest.raises(InputError, match=OUTSIDE) as error:
        read_record(safe, image.replace("{up}", str(safe.parent)))
    assert "--media-root" in str(error.value.hint)


def test_the_folder_of_records_may_be_the_current_one(
    safe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(safe)
    with pytest.raises(InputError, match="outside of the current folder, where"):
        read_record(Path(), "../secret.png")


@POSIX
@pytest.mark.parametrize("name", ["link.png", "folder/secret.png", "chain.png"])
def test_no_link_leads_out_of_it(name: str, safe: Path) -> None:
    (safe / "link.png").symlink_to("../secret.png")
    (safe / "folder").symlink_to("../other")
    (safe / "chain.png").symlink_to("link.png")
    with pytest.raises(InputError, match=OUTSIDE):
        read_record(safe, name)


@POSIX
def test_links_within_it_are_followed_and_so_is_one_to_the_folder(safe: Path) -> None:
    (safe / "link.png").symlink_to("dog.png")
    (safe.parent / "linked").symlink_to("pics")
    for folder in (safe, safe.parent / "linked"):
        media = read_record(folder, "link.png").media
        assert media is not None
        assert media_url(media).startswith("data:image/png;base64,")
        assert read_record(folder, str(safe / "dog.png")).media is not None


@POSIX
@pytest.mark.parametrize("name", ["pipe.png", "device.png", "socket.png", "sub"])
def test_what_is_no_file_is_not_opened(
    name: str, safe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(safe)
    os.mkfifo(safe / "pipe.png")  # whoever opens it waits
    (safe / "sub").mkdir()
    (safe / "device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        with pytest.raises(InputError, match=f"{name}: (not a file|{OUTSIDE})"):
            read_record(safe, name)
    for path in (safe / "pipe.png", "/dev/zero", "/dev/stdin"):
        with pytest.raises(InputError, match=r"not a file|not an image"):
            find_media(str(path))


@pytest.mark.parametrize("name", ["a.svg", "a.tiff", "a.avif", "a.heic", "a.png", "a.mov", "a"])
def test_only_what_the_bytes_say_is_an_image_is_one(name: str, safe: Path) -> None:
    (safe / name).write_text("<svg>-----BEGIN PRIVATE KEY-----</svg>")
    with pytest.raises(InputError, match=f"{name}: not an image$"):
        read_record(safe, name)
    with pytest.raises(InputError, match=f"{name}: not an image$"):
        find_media(str(safe / name))


@pytest.mark.parametrize(
    "image", ["file:///etc/passwd", "~/x.png", "%2e%2e/secret.png", "C:\\x.png", "\\\\host\\x.png"]
)
def test_other_ways_to_write_a_path_are_names_of_files(image: str, safe: Path) -> None:
    with pytest.raises(InputError, match=r"no such file|outside of"):
        read_record(safe, image)


def test_another_folder_can_be_given(safe: Path) -> None:
    document = read_record(safe, "secret.png", media_root=str(safe.parent))
    assert document.media == Media("image", str(safe.parent / "secret.png"))
    with pytest.raises(InputError, match=OUTSIDE):
        read_record(safe, "../secret.png", media_root=str(safe))


def test_so_it_is_for_tables_and_nested_fields(safe: Path) -> None:
    (safe / "a.csv").write_text("id,image\n1,../secret.png\n")
    with pytest.raises(InputError, match=OUTSIDE):
        list(inputs_for(Viewer(), safe / "a.csv"))
    (safe / "a.tsv").write_text("text\timage\nfox\t../secret.png\n")
    with pytest.raises(InputError, match=rf"a\.tsv:2: the field image: .*{OUTSIDE}"):
        list(inputs_for(Viewer(), safe / "a.tsv"))
    (safe / "b.jsonl").write_text(json.dumps({"meta": {"image": "../secret.png"}}))
    with pytest.raises(InputError, match=OUTSIDE):
        list(inputs_for(Viewer(), safe / "b.jsonl", fields=TextFields(["meta.image"])))
    (safe / "b.jsonl").write_text(json.dumps({"meta": {"image": "dog.png"}}))
    (document,) = inputs_for(Viewer(), safe / "b.jsonl", fields=TextFields(["meta.image"]))
    assert document.media == Media("image", str(safe / "dog.png"))


@POSIX
def test_a_file_that_is_replaced_after_it_was_looked_at_is_not_sent(safe: Path) -> None:
    media = read_record(safe, "dog.png").media
    assert media is not None
    (safe / "dog.png").unlink()
    (safe / "dog.png").symlink_to("../secret.png")
    with pytest.raises(InputError, match=OUTSIDE):
        media_url(media)


@POSIX
def test_a_link_that_comes_between_looking_and_opening_is_not_followed(
    safe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (safe / "sub").mkdir()
    (safe / "sub" / "a.png").write_bytes(png())
    media = read_record(safe, "sub/a.png").media
    assert media is not None
    inner = str(safe / "sub" / "a.png")
    (safe / "sub" / "a.png").unlink()
    (safe / "sub").rmdir()
    (safe / "sub").symlink_to("../other")
    (safe.parent / "other" / "a.png").write_bytes(png())
    # As if the link had come only now.
    real = {str(safe): str(safe), inner: inner}
    monkeypatch.setattr("os.path.realpath", lambda path: real[str(path)])
    with pytest.raises(InputError, match=r"no such file|Not a directory"):
        media_url(media)


def test_a_value_that_is_no_place_is_not_lost_unseen(safe: Path) -> None:
    (safe / "a.jsonl").write_text(json.dumps({"text": "a fox", "image": ["dog.png"]}))
    with pytest.raises(InputError, match="image does not hold the place of an image but a list"):
        list(inputs_for(Viewer(), safe / "a.jsonl"))
    text_inputs = inputs_for(Viewer(), safe / "a.jsonl", fields=TextFields(["text"]))
    assert [document.text for document in text_inputs] == ["a fox"]


def test_no_more_are_the_bytes_of_an_image_in_a_row_of_parquet() -> None:
    row = {"text": "a fox", "image": png()}
    with pytest.raises(InputError, match="image does not hold the place of an image but a bytes"):
        make_document(
            row, TextFields(), SourceBlock("", 1, b""), "a", Envelope(), with_title=False,
            scorer=Viewer().info,
        )  # fmt: skip


def test_a_text_that_is_blank_is_none(safe: Path) -> None:
    (safe / "a.jsonl").write_text(json.dumps({"text": " ", "image": "dog.png"}))
    (document,) = inputs_for(Viewer(), safe / "a.jsonl")
    assert (document.text, document.text_is_label) == ("dog.png", True)
