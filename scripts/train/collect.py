"""Collect pairs of a query and a passage from packages' documentation, manuals and code.

    python scripts/train/collect.py WORK

The packages of packages.toml come from `apt-get download` and `pip download`, each in its newest
version.
WORK/pairs.jsonl.gz has the pairs: {"package", "kind", "title", "query", "passage", "language"}.
Kinds:

    section      a heading, and the text below it
    option       the effect of an option, and its name with a manual's text on it
    command      the effect of a command, and the command
    listing      the sentence before an example of code, and the example; a comment, and its line
    manual       the purpose in a manual's NAME, and its description
    definition   a word, and its entry in a dictionary
    function     the first sentence of a docstring, and the function without the docstring

WORK/sources.tsv has the version and the licences of each package, as the package states them. Needs
mandoc for manuals. `title` names the text around the passage.
"""

import argparse
import ast
import gzip
import itertools
import json
import random
import re
import subprocess
import sys
import tarfile
import textwrap
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rerank_cli.inputs import InputFormat
from rerank_cli.inputs.conversion import convert
from rerank_cli.structure import Block, BlockKind, find_blocks, syntax_of

# The most pairs of a kind, a package and a language: no package outweighs the others.
MAX_PAIRS = 2_000
MAX_TRANSLATED_PAIRS = 1_000
ENGLISH = "en"
MAX_FILE_BYTES, MAX_PAGE_BYTES = 40_000_000, 400_000
PARTIAL_SUFFIX = ".making"  # of files and folders that are not yet whole
PASSAGE_WORDS = 160
MANDOC_SECONDS = 5
MAX_QUERY_CHARACTERS = 300
LEAST_WORDS_OF_SENTENCES, MANY_WORDS = 4, 8
MAX_LISTING_LINES = 12
LEAST_WORDS = {"section": 15, "function": 12, "command": 2, "listing": 2, "option": 5}
_DOCUMENTS = (".html", ".htm", ".md", ".rst", ".txt", ".page", ".xhtml", ".pod", ".info")
_LANGUAGES = (
    "ar|as|bg|bn|ca|cs|da|de|el|es|et|eu|fa|fi|fr|gl|gu|he|hi|hr|hu|id|it|ja|ka|kn|ko|lt|lv|mr|nb|nl"
    "|nn|pa|pl|pt|ro|ru|sk|sl|sr|sv|ta|te|th|tr|uk|vi|zh"
)
# Where paths name a language (ISO 639-1), in a folder or a suffix; other files are English.
_LANGUAGE = re.compile(
    rf"/({_LANGUAGES})(?:[-_@]\w+)?/"
    rf"|\.({_LANGUAGES})(?:[-_]\w+)?(?:\.utf-?8)?\.(?:html|txt)$|\.html\.({_LANGUAGES})\b"
)
_EXAMPLE = r"\b(?:[Ff]or (?:example|instance)|[Ee]xample|[Ee]\.g\.)"
_COMMENT = re.compile(
    r"^[ \t]*(?:#|--|//) (\w.{10,200})\n[ \t]*(?!#|--|//)(\S.{4,300})$", re.MULTILINE
)
# Characters of scripts without spaces; two of these make a word.
_UNSPACED_CHARACTER = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")
_MANUAL = re.compile(r"/man/(?:[a-z]{2}(?:_[A-Z]{2})?/)?man[1-8]/[^/]+$")
_GENERIC_HEADING = re.compile(
    r"(?i)^(section|see also|references?|notes?|examples?|contents|index|description|synopsis|"
    r"name|copyright|authors?|bugs|history|options|introduction|overview|remarks?|summary|"
    r"return values?|parameters|arguments|methods|attributes|changelog|license)\W*$"
)


class Pair(NamedTuple):
    kind: str
    title: str
    query: str
    passage: str
    language: str = ENGLISH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    collect(arguments.work / "pairs.jsonl.gz", arguments.work / "packages")


def collect(path: Path, packages: Path) -> None:
    """Write the pairs of all packages; packages that were unpacked before are read again."""
    partial_path = path.with_suffix(PARTIAL_SUFFIX)
    with gzip.open(partial_path, "wt", encoding="utf-8", compresslevel=4) as out:
        for name, files in sorted(fetch(packages).items()):
            pairs = sample(pairs_of(files), name)
            for pair in pairs:
                out.write(json.dumps({"package": name, **pair._asdict()}) + "\n")
            print(f"{name}: {len(pairs):,} pairs", flush=True)
    partial_path.rename(path)


def packages_of(registry: str, *, is_held_out: bool | None = None) -> list[str]:
    """The names of a registry's packages in packages.toml: all, or only those (not) held out."""
    table = tomllib.loads(Path(__file__).with_name("packages.toml").read_text(encoding="utf-8"))
    groups = dict(table[registry])
    translations = groups.pop("translations", {})
    groups["translations"] = [
        f"{name}-{language}"
        for name, languages in translations.items()
        for language in languages.split()
    ]
    return [
        name
        for group, names in groups.items()
        for name in names
        if is_held_out in (None, group == "held_out")
    ]


def fetch(folder: Path) -> dict[str, list[Path]]:
    """Download and unpack missing packages. Returns the files of each package."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary:
        names = dict.fromkeys(packages_of("debian"), download_debian)
        names |= dict.fromkeys(packages_of("pypi"), download_pypi)
        for name, download in names.items():
            if not (folder / name).exists():
                place = Path(temporary) / name
                place.mkdir()
                unpack(name, download(name, place), folder / name)
    return {
        name: sorted(file for file in (folder / name).rglob("*") if file.is_file())
        for name in names
    }


def download_debian(name: str, place: Path) -> Path:
    """Download a package of Debian; return the archive of its files."""
    subprocess.run(["apt-get", "-qq", "download", name], cwd=place, check=True)
    (package,) = place.glob("*.deb")
    archive = package.with_suffix(".tar")
    with archive.open("wb") as out:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=out, check=True)
    return archive


def download_pypi(name: str, place: Path) -> Path:
    """Download a source distribution, which has the documentation, or else a wheel."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(place)]
    source = [*command, "--no-binary", ":all:", "--no-build-isolation", name]
    if subprocess.run(source, stderr=subprocess.DEVNULL).returncode:
        subprocess.run([*command, name], check=True)
    (archive,) = place.iterdir()
    return archive


def unpack(package: str, archive: Path, folder: Path) -> None:
    """Write the files of an archive that may have pairs below a folder, and note its licences."""
    partial_path = folder.with_name(folder.name + PARTIAL_SUFFIX)
    licences: set[str] = set()
    for name, data in members(archive):
        if name.endswith(".gz"):
            name, data = name.removesuffix(".gz"), gzip.decompress(data)
        name = name.replace(".rst.txt", ".rst")  # as Sphinx keeps its sources
        if name.endswith(("/PKG-INFO", ".dist-info/METADATA", f"/doc/{package}/copyright")):
            text = data.decode("utf-8", "replace")
            licences.update(re.findall(r"(?m)^License(?:-Expression)?: (.{1,60})$", text))
            licences.update(re.findall(r"(?m)^Classifier: License :: (?:.* :: )?(.+)$", text))
        if len(data) > MAX_FILE_BYTES or not reader_of(f"/{name}"):
            continue
        path = partial_path / "/".join(part for part in Path(name).parts if part not in ("..", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    partial_path.mkdir(exist_ok=True)
    with (folder.parent.parent / "sources.tsv").open("a", encoding="utf-8") as out:
        licence_text = "; ".join(sorted(licences)) or "?"
        out.write(f"{package}\t{archive.name.removesuffix('.tar')}\t{licence_text}\n")
    partial_path.rename(folder)


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as zip_file:
            for name in zip_file.namelist():
                yield name, zip_file.read(name)
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name.removeprefix("./"), content.read()


def pairs_of(files: Iterable[Path]) -> Iterator[Pair]:
    for path in files:
        read = reader_of(str(path))
        if read:
            language = language_of(str(path))
            try:
                for pair in read(path):
                    yield pair._replace(language=language)
            except (SyntaxError, ValueError, RecursionError):
                continue  # a file that is not what its name says


def reader_of(name: str) -> Callable[[Path], Iterator[Pair]] | None:
    """The function that reads the pairs of a file with this name, if there is one."""
    suffix = Path(name).suffix.lower()
    if "/fish/completions/" in name and suffix == ".fish":
        return fish_options
    if "/zsh/functions/Completion/" in name:
        return zsh_options
    if "/eg/examples/" in name or "/cheatsheets/" in name:
        return examples
    if _MANUAL.search(name):
        return manual
    if re.search(r"/wordnet/data\.\w+$", name):
        return wordnet
    if name.endswith((".dict.dz", ".dict")):
        return dictionary
    if suffix == ".py" and not re.search(r"/tests?/|/test_|_test\.py$|/examples?/", name):
        return functions
    suffix = re.sub(r"-\d+$", "", suffix)  # parts of Info files: find.info-1
    is_document = suffix in _DOCUMENTS and re.search(r"usr/share/|docs?/|documentation", name)
    return document if is_document else None


def language_of(path: str) -> str:
    match = _LANGUAGE.search(path)
    return next(filter(None, match.groups())) if match else ENGLISH


def count_words(text: str) -> int:
    return len(text.split()) + len(_UNSPACED_CHARACTER.findall(text)) // 2


def sample(pairs: Iterable[Pair], name: str) -> list[Pair]:
    """Draw pairs of each kind and language, none twice; the package's name seeds the draw."""
    groups: dict[tuple[str, str], dict[tuple[str, str], Pair]] = {}
    for pair in pairs:
        query = " ".join(pair.query.split())
        passage = re.sub(r"\n{3,}", "\n\n", pair.passage.strip())
        is_long = count_words(passage) >= LEAST_WORDS.get(pair.kind, 8)
        if is_long and count_words(query) and len(query) <= MAX_QUERY_CHARACTERS:
            group = groups.setdefault((pair.kind, pair.language), {})
            group.setdefault((query, passage), pair._replace(query=query, passage=passage))
    draw = random.Random(name)
    choices: list[Pair] = []
    for (_, language), group in groups.items():
        group_pairs = list(group.values())
        most = MAX_PAIRS if language == ENGLISH else MAX_TRANSLATED_PAIRS
        choices += draw.sample(group_pairs, min(len(group_pairs), most))
    return choices


# Documents


def document(path: Path) -> Iterator[Pair]:
    is_book = path.suffix.startswith(".info")
    if path.stat().st_size > MAX_PAGE_BYTES and not is_book:
        return
    text, blocks = read_document(path)
    yield from sections(path.stem.replace("_", " "), text, blocks)
    yield from listings(path.stem.replace("_", " "), text, blocks)


def sections(page: str, text: str, blocks: Sequence[Block]) -> Iterator[Pair]:
    """A heading, and the text below it up to the next one, in parts of about PASSAGE_WORDS."""
    places = [block for block in blocks if block.kind == BlockKind.SECTION and block.name]
    ends = [*(block.start for block in places[1:]), len(text)]
    open_sections: list[Block] = []
    for block, end in zip(places, ends, strict=False):  # without places there is still one end
        while open_sections and open_sections[-1].end <= block.start:
            open_sections.pop()
        title = open_sections[-1].name if open_sections else page
        open_sections.append(block)
        name = re.sub(r"^[\dA-Z]{0,2}[\d.]+\s+|[¶#]|`+", "", block.name).strip()
        if len(name) < 2 or _GENERIC_HEADING.match(name):
            continue
        body = text[block.start : min(end, block.end)]
        body = body.partition("\n")[2].lstrip("=-~^*#\n ")
        for passage in parts_of(body):
            yield Pair("section", title, name, passage)


def listings(page: str, text: str, blocks: Sequence[Block]) -> Iterator[Pair]:
    """A paragraph's sentence before code, and the code; comments in code, and their lines."""
    for before, block in itertools.pairwise(blocks):
        if block.kind != BlockKind.CODE:
            continue
        lines = text[block.start : block.end].strip("\n").split("\n")
        # Some are numbered, and some are fenced.
        lines = [re.sub(r"^ *\d+\xa0|^\s*```.*", "", line) for line in lines]
        code = textwrap.dedent("\n".join(lines)).strip()
        for comment, line in _COMMENT.findall(code):
            yield Pair("listing", page, comment, line)
        if before.kind == BlockKind.PARAGRAPH and code.count("\n") < MAX_LISTING_LINES:
            query = _sentence_before(" ".join(text[before.start : before.end].split()))
            if len(query.split()) >= LEAST_WORDS_OF_SENTENCES:
                yield Pair("listing", page, query, code)


def _sentence_before(paragraph: str) -> str:
    """The last sentence of a paragraph, with the one before it if it says little."""
    *others, last = re.split(r"(?<=[.!?])\s+", paragraph)
    if others and len(last.split()) < MANY_WORDS:
        last = f"{others[-1]} {last}"
    return re.sub(rf"^{_EXAMPLE}[,:]?\s|\s*{_EXAMPLE}?[,.:]*$", "", last)


def read_document(path: Path) -> tuple[str, Sequence[Block]]:
    data = path.read_bytes()
    if path.suffix.lower() in (".html", ".htm", ".page", ".xhtml"):
        if path.suffix == ".page":  # Mallard: https://projectmallard.org
            data = re.sub(rb"<(/?)title\b[^>]*>", rb"<\1h2>", data)
            data = re.sub(rb"(?s)<info>.*?</info>", b"", data)
        conversion = convert(data, InputFormat.HTML, path.name, 1 << 26)
        return conversion.text, conversion.blocks or ()
    text = data.decode("utf-8", "replace")
    if path.suffix.startswith(".info"):
        text = re.sub(r"\x1f\nFile:.*\n", "", text)
        return text, find_blocks(text, "markdown")  # its headings and its examples are Markdown's
    if path.suffix == ".pod":
        text = re.sub(r"^=head(\d) ", lambda m: "#" * int(m[1]) + " ", text, flags=re.MULTILINE)
        text = re.sub(r"^=\w+.*\n", "", text, flags=re.MULTILINE)
        return text, find_blocks(text, "markdown")
    return text, find_blocks(text, syntax_of(path.name))


def parts_of(text: str) -> Iterator[str]:
    """The paragraphs of a text, joined to passages; at most three passages."""
    part: list[str] = []
    count = 0
    for paragraph in re.split(r"\n\s*\n", text):
        if part and count_words("\n".join([*part, paragraph])) > PASSAGE_WORDS:
            yield "\n\n".join(part)
            part, count = [], count + 1
            if count == 3:
                return
        part.append(" \n".join(line[:400] for line in paragraph.split("\n")[:30]))
    if part:
        yield "\n\n".join(part)


# Manuals


class ManualPage(HTMLParser):
    """Reads mandoc's HTML: (section, term, text) of each paragraph, and of each listed term."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, str, str]] = []
        self._section, self._term = "", ""
        self._texts: list[str] = []
        self._is_code = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ("h1", "h2", "dt", "p", "pre"):
            self._end()
        if tag == "pre":
            self._is_code = 1

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h1", "h2"):
            self._section, self._term = self._take(), ""
        elif tag == "dt":
            self._term = self._take()
        elif tag == "pre":
            text = "".join(self._texts).strip("\n")
            self._texts, self._is_code = [], 0
            if text.strip():
                self.rows.append((self._section, "$", text))
        elif tag in ("dd", "p", "section", "div"):
            self._end()

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    def _end(self) -> None:
        if self._is_code:
            return
        text = self._take()
        if text:
            self.rows.append((self._section, self._term, text))

    def _take(self) -> str:
        text = " ".join("".join(self._texts).split())
        self._texts = []
        return text


def manual(path: Path) -> Iterator[Pair]:
    command = ["mandoc", "-T", "html", "-O", "fragment", str(path)]
    try:
        process = subprocess.run(command, capture_output=True, timeout=MANDOC_SECONDS)
    except subprocess.TimeoutExpired:
        return  # it writes md(4) without an end
    page = ManualPage()
    page.feed(process.stdout.decode("utf-8", "replace"))
    name = path.stem
    purpose = next((text for section, _, text in page.rows if section == "NAME"), "")
    purpose = re.split(r"\s[-\u2013\u2014]\s", purpose, maxsplit=1)[-1]
    paragraphs = [t for s, term, t in page.rows if s == "DESCRIPTION" and not term][:6]
    if purpose and paragraphs:
        yield Pair("manual", name, purpose, "\n\n".join(parts_of("\n\n".join([name, *paragraphs]))))
    last = ""
    for section, term, text in page.rows:
        if term == "$":
            command_line = re.sub(r"^\s*[$#%] ", "", text.strip())
            is_short = command_line.count("\n") < 3 and len(command_line) < 300
            if is_short and last and "EXAMPLE" in section:
                yield Pair("command", name, last.rstrip(":"), command_line)
        elif re.match(r"-{1,2}\w", term):
            first = re.split(r"(?<=[.;])\s", text, maxsplit=1)[0]
            yield Pair("option", name, first, f"{name} {term}")
            yield Pair("option", name, f"{name} {first}", f"{term}\n{text[:900]}")
        elif "EXAMPLE" in section and term:
            yield Pair("command", name, text, term)
        elif section.istitle() or len(text) > 200:
            yield Pair("section", name, f"{name} {section.lower()}", text[:1200])
        last = text


# Shells


def fish_options(path: Path) -> Iterator[Pair]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        description = re.search(r"""(?:-d|--description)[ =](?:'([^']+)'|"([^"]+)"|(\w+))""", line)
        if not line.startswith("complete") or not description:
            continue
        texts = " ".join(filter(None, description.groups()))
        long_names = re.findall(r"(?:\s-l|--long-option)[ =]['\"]?([\w-]+)", line)
        short_names = re.findall(r"(?:\s-s|--short-option)[ =]['\"]?(\w)", line)
        subcommands = re.findall(r"__fish_seen_subcommand_from ([\w-]+)", line)
        words = re.findall(r"\s-a[ =]['\"]?([\w-]+)['\"]?(?:\s|$)", line)
        names = [
            *(f"--{name}" for name in long_names),
            *(f"-{name}" for name in short_names),
            *words,
        ]
        command = " ".join([path.stem, *subcommands[:1]])
        for name in names[:2]:
            yield Pair("command", path.stem, f"{texts} ({path.stem})", f"{command} {name}")


def zsh_options(path: Path) -> Iterator[Pair]:
    text = path.read_text(encoding="utf-8", errors="replace")
    command = path.name.lstrip("_")
    for option, description in re.findall(
        r"""['"}](-{1,2}[\w-]+)[=+]?\[([^\]\n]{8,160})\]""", text
    ):
        yield Pair("command", command, f"{description} ({command})", f"{command} {option}")


def examples(path: Path) -> Iterator[Pair]:
    """Sheets of examples: a sentence, and the command below it."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".md":
        for comment, command in re.findall(r"^#\s*(.+)\n((?!#).+)$", text, flags=re.MULTILINE):
            yield Pair("command", path.stem, comment.rstrip(":"), command)
        return
    last = ""
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.startswith("    "):
            command = paragraph.strip().split("\n")[0].removeprefix("$ ")
            if last and not last.startswith("#"):
                yield Pair("command", path.stem, last.rstrip(":"), command)
        else:
            last = paragraph.strip()


# Words


def wordnet(path: Path) -> Iterator[Pair]:
    """Senses with a gloss: https://wordnet.princeton.edu/documentation/wndb5wn"""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue
        data, _, gloss = line.partition(" | ")
        fields = data.split()
        names = [fields[4 + 2 * k].replace("_", " ") for k in range(int(fields[3], 16))]
        names = [re.sub(r"\(\w+\)$", "", name) for name in names]
        yield Pair("definition", names[0], names[-1], f"{', '.join(names)}: {gloss.strip()}")


def dictionary(path: Path) -> Iterator[Pair]:
    text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
    for entry in re.split(r"\n(?=\S[^\n]{0,60}\n\n)", text):
        word, _, meaning = entry.partition("\n\n")
        meaning = " ".join(re.sub(r"[{}]", "", meaning).split())
        if word.strip() and not word.startswith("00-"):
            yield Pair("definition", word.strip(), word.strip(), meaning[:1000])


# Code


def functions(path: Path) -> Iterator[Pair]:
    """Python functions, without their docstrings."""
    if path.stat().st_size > MAX_PAGE_BYTES:
        return
    source = path.read_text(encoding="utf-8", errors="replace")
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node)
        if not text or node.end_lineno is None or len(node.body) < 2:
            continue
        first = re.split(r"\n\s*\n|(?<=\.)\s", text.strip(), maxsplit=1)[0]
        docstring = node.body[0]
        before = lines[node.lineno - 1 : docstring.lineno - 1]
        after = lines[docstring.end_lineno or 0 : node.end_lineno]
        code = "\n".join([*before, *after][:40])
        if len(first.split()) >= 4 and not first.startswith((":", ">>>", "Test", ".. ")):
            yield Pair("function", path.stem, first, code)


if __name__ == "__main__":
    main()
