"""Hints by meaning: words of other tools, and the options and commands here in their place.

The tables below hold what grep, rg, fzf, curl, llm, qmd, jina, kjarni, rank-llm, FlashRank and the
APIs of services call things. Nothing here repeats a value of an option that may be a key.

    explain        for an unknown option, and a value that an option does not take
    command_hint   for an unknown command of a group
    explain_words, words_hint
                   for a query that seems to be meant as a command
    setting_hint   for an unknown setting
"""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rerank_cli.cli.help import HELP_NAMES, short_help_record
from rerank_cli.cli.parameters import BadValue, all_commands, lazy_commands, settings_in
from rerank_cli.cli.typer_commands import DEFAULT_COMMAND, UnknownCommand
from rerank_cli.errors import RerankError, near_words

_NEAR = 0.75  # the least similarity of two spellings; 1 is equal

# Options of this program, and their names in other tools. The first option that a command has
# counts.
_SYNONYMS: Mapping[str, str] = {
    "--top-n --depth": "--limit --top --topk --top-k --max-count --max-results --max-items --num "
    "--num-results --n-results --head --first --best -k",
    "--preset": "--profile --mode --config-profile --settings --use-preset",
    "--model": "--model-name --model-id --model-path --model-name-or-path --reranker "
    "--reranker-model --rerank-model --models",
    "--base-url": "--url --host --port --endpoint --endpoint-url --api-base --api-url --server "
    "--api-endpoint --base-uri --base --server-url --service-url --openai-api-base",
    "--min-score": "--threshold --score-threshold --relevance-threshold --min-relevance --cutoff "
    "--min-similarity --min-confidence --min",
    "--format": "--output-format --out-format --output-type --fmt --style --as",
    "--output": "--out --outfile --output-file --out-file --output-path --save --write-to",
    "--field --text-field": "--text-field --fields --text-fields --text-key --content-field "
    "--document-field --field-name --column --columns --rank-fields --field",
    "--id-field": "--id-key --id-column --doc-id --docid --id",
    "--query-field": "--query-key --query-column",
    "--documents-field": "--docs-field --documents-key --documents-column --candidates-field",
    "--document": "--doc --docs --documents --texts --candidate",
    "--query": "--regexp --search --prompt-query --question --filter -e",
    "--recursive": "--recurse --dir --directory --folder -R",
    "--null": "--null-data --print0 --read0 --zero-terminated -Z",
    "--threads": "--jobs --workers --num-threads --num-workers --n-jobs --cpus --cores --parallel "
    "--processes -j",
    "--concurrency": "--max-concurrency --max-concurrent --max-parallel --concurrent-requests",
    "--chunk-tokens": "--chunk-size --chunk-length --max-length --max-len --max-tokens "
    "--max-seq-length --max-seq-len --seq-len --passage-length --window-size",
    "--overlap-tokens": "--overlap --chunk-overlap --stride --step-size",
    "--max-chunks": "--chunks --max-chunks-per-doc --max-chunks-per-document --max-passages",
    "--max-document-tokens": "--max-tokens-per-doc --max-tokens-per-document",
    "--aggregate": "--agg --aggregation --pooling --pool",
    "--prepend": "--with-title --title --title-field --add-title",
    "--passages": "--passage --snippet --snippets --only-matching --best-passage --sentences",
    "--explain": "--explain-scores --explanation --details --why",
    "--scores": "--score --show-scores --with-scores --print-scores --show-score",
    "--full": "--no-truncate --wide --wrap",
    "--instruction": "--system --prompt --task --instruct --template",
    "--set": "--data --extra --extra-body --param --params --option --options --body",
    "--header": "--headers --http-header",
    "--retries": "--retry --max-retries --num-retries --max-attempts",
    "--timeout": "--request-timeout --read-timeout",
    "--max-time": "--deadline --time-limit --time-budget --max-seconds",
    "--max-cost": "--budget --max-price --cost-limit --max-usd",
    "--rpm": "--rate-limit --requests-per-minute --qpm",
    "--tpm": "--tokens-per-minute",
    "--insecure": "--no-verify --no-verify-ssl --no-check-certificate --skip-tls-verify",
    "--runtime": "--backend --execution-provider --provider-backend",
    "--offline": "--local-files-only --no-download --no-network",
    "--pull": "--download --auto-download --force-download --fetch --yes --install -y",
    "--text": "--binary",
    "--input-format": "--in-format --from --input-type --stdin-format --syntax",
    "--unit": "--units --by --split --split-by --granularity --level --segment --unit-type",
    "--max-document": "--max-filesize --max-file-size --max-size",
    "--verbose": "--stats --debug --info --log --log-level --trace",
    "--resume": "--continue --restart --checkpoint --skip-existing --restore",
    "--retry-errors": "--retry-failed --redo-errors",
    "--errors": "--error-file --failed --rejects",
    "--plan --dry-run": "--dry --estimate --cost --tokens --count-tokens --dry-run --plan "
    "--simulate",
    "--report": "--summary --metrics-file --stats-file",
    "--measure": "--metric --metrics --measures",
    "--qrels": "--judgments --judgements --labels --relevance",
    "--sample": "--max-queries --num-queries --subset",
    "--run": "--run-file --trec --trec-run",
    "--queries": "--topics --query-set",
    "--version": "--ver",
}  # fmt: skip
_FILES = "rg --files {} | rerank QUERY --files-from -"
_WORDS = "a query is words, not a pattern: rg -n PATTERN | rerank --grep QUERY ranks what rg finds"
_CASE = "the default model and bm25 ignore case, other models may not; no option changes that"
_PLACES = "-f grep writes PATH:LINE:TEXT; the table, json, csv and tsv have places too"
# Options of other tools that this program does not have: what to do instead.
_INSTEAD: Mapping[str, str] = {
    "-i --ignore-case -S --smart-case --case-sensitive": _CASE,
    "-w --word-regexp -x --line-regexp -E --extended-regexp -F --fixed-strings -P --perl-regexp "
    "-G --basic-regexp --pcre2 --pattern --exact": _WORDS,
    "-l --files-with-matches --files --files-only --name-only --names": "-f paths writes the "
    "files of the results, each once, best first",
    "-L --files-without-match --follow": "-f paths writes the files of the results; links in "
    "folders are not followed, so name what they lead to",
    "-A --after-context --after -B --before-context --before": "-C N shows N lines before and "
    "behind the best sentence of each passage",
    "-c --count": "every document is a result, so count those with a good score: rerank "
    "--min-score X … | wc -l",
    "-H": "-f grep writes PATH:LINE:TEXT; --header 'NAME: VALUE' is an HTTP header",
    "--with-filename --line-number --line-numbers -N --no-line-number --vimgrep --column --heading "
    "--no-heading --no-filename": _PLACES,
    "--invert-match --reverse --tac --worst --tail --last": "the least relevant come last: "
    "rerank … | tac",
    "--offset --skip --page": "rerank … | tail -n +11 leaves out the first ten",
    "--unique --uniq --dedup --deduplicate": "equal documents are scored once and all written: "
    "sort -u FILE | rerank QUERY ranks each once",
    "--append": "rerank … >> FILE appends to it",
    "--force --overwrite --replace": "-o replaces FILE by itself; that of rerank batch never does",
    "--sort --sort-by --sortr --order --no-sort": "results are in the order of their scores",
    "-t --type --type-not -g --glob --iglob --include --exclude --exclude-dir --ext --extension": (
        "choose files with rg: " + _FILES.format("-g '*.md'")
    ),
    "-u --hidden --no-ignore --unrestricted --all-files": (
        "-r skips hidden and ignored files; rg lists them: " + _FILES.format("--hidden --no-ignore")
    ),
    "--max-depth": "choose files with find: find DIR -maxdepth 2 -type f | rerank QUERY "
    "--files-from -",
    "-z --search-zip --decompress": ".gz, .bz2, .xz and .zst files are unpacked by themselves; "
    "-0 is for lines that end with NUL",
    "--delimiter --separator --nth --with-nth": "--field NAME takes a column of CSV or TSV; "
    "--input-format says what a pipe holds",
    "-U --multiline": "--unit paragraph, section or file ranks more than lines",
    "--section --sections --by-section --by-sections --by-heading --by-headings": "--unit section "
    "makes each section a document",
    "--paragraph --paragraphs --by-paragraph --by-paragraphs --paragraph-mode": "--unit paragraph "
    "makes each paragraph a document",
    "--function --functions --by-function --by-functions --show-function --symbols --methods "
    "--classes": "--unit function makes each function and method a document",
    "--line --lines --by-line --by-lines --line-by-line": "--unit line makes each line a document",
    "--sentence --by-sentence --by-sentences --split-sentences": "--unit paragraph makes each "
    "paragraph a document; what is shown of it is its best sentence",
    "--pages --by-page --by-pages": "--unit section makes each page of a PDF a document, or each "
    "section if it has any",
    "--whole --whole-file --whole-files": "--unit file makes each file a document",
    "-I --no-binary": "binary files are left out already; -a reads them",
    "-s --silent --quiet --no-messages --no-progress --progress --no-warnings": "progress shows on "
    "a terminal only; 2>/dev/null hides every message",
    "--no-color --no-colour --colour --colors": "--color never, or NO_COLOR=1",
    "-p --pretty": "-f table --color always, also in a pipe",
    "-M --width --max-columns": "the table fits the terminal; COLUMNS=120 sets its width in a pipe",
    "-b --batch-size --bs --batch": "there is no batch size to choose: --threads N uses N cores, "
    "--concurrency N sends N requests at once",
    "--normalize --normalise --softmax --logits --raw --raw-scores --apply-sigmoid": "-f json has "
    "both: relevance_score, and raw_score as the model gives it",
    "--precision --dtype --quantized --quantization --quantize --half --fp16 --bf16 --fp32 --int8 "
    "--float16 --float32": "precision is part of a model's name, as in -m bge-reranker-base:fp32",
    "--gpu --cuda --use-gpu --use-cuda --gpus": "--device cuda runs local models on a GPU",
    "--cpu --no-gpu --use-cpu": "--device cpu runs local models on the CPU",
    "--cache-dir --cache-folder --model-dir": "RERANK_HOME=DIR moves models, settings and caches",
    "--revision --trust-remote-code": "rerank models pull NAME --revision REVISION fetches one "
    "commit of a model; no code of a model is run",
    "--provider --providers --service --vendor --remote --cloud": "a provider is part of the "
    "model's name: -m PROVIDER/MODEL; rerank providers lists them",
    "--list-models --list": "rerank models lists the models",
    "--list-providers": "rerank providers lists the providers",
    "--return-documents --show-documents --with-documents": "documents are always written, also in "
    "--json; -f paths and -f trec leave them out",
    "--all --no-limit": "-n 0 shows all; a pipe has all anyway",
    "--stdin --pipe": "what is piped in is read if no FILE is named; - names it",
    "--input --in --input-file --file --path --paths": "files are arguments: rerank QUERY FILE…, "
    "rerank batch IN.jsonl",
    "--requests-file --queries-file --batch-file": "rerank batch IN.jsonl ranks for many queries",
    "--candidate-limit --num-candidates --top-k-candidates --rerank-top-k": "all documents are "
    "scored; give fewer: head -n 100 FILE | rerank QUERY",
    "--local": "models of this machine are the default; only -m PROVIDER/MODEL is a service",
    "--no-rerank": "-m bm25 ranks by words alone",
    "--semantic --hybrid --fuzzy --vector --embed --embedding --embeddings --stem --synonyms": (
        "-m bm25 ranks by words, and every other model by meaning"
    ),
    "--onnx --gguf --safetensors --pytorch": "-m ./FOLDER runs a model in ONNX; rerank models "
    "export makes one of a checkpoint",
    "--collection --index --db --database --corpus-name": "there is no index: name files, or "
    "folders with -r",
    "--config --config-file --settings": "settings are in the file that `rerank config path` names",
    "--proxy": "HTTPS_PROXY and HTTP_PROXY name a proxy",
    "--cacert --ca-bundle --ca-file": "SSL_CERT_FILE=FILE names certificates to trust",
    "--language --lang --languages": "a model knows its languages: rerank models lists them",
    "--interactive --live --watch --preview --bind --multi --height --layout --ansi": (
        "docs/recipes.md shows how fzf asks again at every key"
    ),
    "--csv --tsv --jsonl --ndjson": "-f csv, -f tsv and -f jsonl write such; --input-format csv, "
    "tsv or jsonl says what a pipe holds",
    "--md --markdown --trec": "-f md and -f trec write such",
    "--xml --yaml --toml --html": "-f json, jsonl, csv, tsv and md are there for other programs",
}
_NAME_END = re.compile(r"[^\w-]")  # what follows it may be a key
_KEY = re.compile(
    r"--?(?:[a-z0-9]+-)*(?:api-?)?(?:key|token|secret|password|"
    r"auth|authorization|bearer|apikey|credentials?)(?:-file)?"
)
_KEY_HINT = (
    "a key is never an argument: rerank config set-key {} asks for it, or reads it from a pipe"
)
_KEY_COMMANDS = ("rerank config ", "rerank providers ")  # somebody may type a key behind these
_PATH = re.compile(r"\S*[./\\~]\S*")
_PROVIDER_IN_MODEL = re.compile(r"([\w.-]+)/.")

# Values that an option does not take: the value in their place, or what to do.
_VALUES: Mapping[str, Mapping[str, str]] = {
    "--device": {
        "gpu cuda:0 nvidia rocm": "cuda",
        "mps metal apple npu tpu": "models run on CPUs, and with cuda on NVIDIA's GPUs",
    },
    "--format": {
        "ndjson": "jsonl",
        "markdown": "md",
        "plain raw lines txt original": "text",
        "files names paths0 files-with-matches path": "paths",
        "pretty human": "table",
        "run qrels": "trec",
        "yaml xml html": "-f json or -f jsonl is there for other programs",
        "vimgrep quickfix rg": "grep",
    },
    "--input-format": {
        "plain txt lines raw": "text",
        "ndjson": "jsonl",
        "md mdx commonmark gfm": "markdown",
        "restructuredtext rest sphinx": "rst",
        "logs syslog": "log",
        "doc word": "docx",
        "htm": "html",
        "xlsx xls excel": "save the sheet as CSV",
        "parquet": "rerank batch reads Parquet",
    },
    "--unit": {
        "lines": "line",
        "sections heading headings chapter chapters page pages": "section",
        "paragraphs para entry entries block": "paragraph",
        "functions method methods class classes symbol symbols def": "function",
        "row rows json records jsonl csv": "record",
        "doc document whole files": "file",
        "passage passages chunk chunks sentence sentences": "--passages ranks the passages",
    },
    "--aggregate": {
        "maxp best": "max",
        "auto default": "adjusted-max",
        "firstp head": "first",
        "mean avg average top-3 topk top-k": "mean-top-3",
        "sum": "of many low scores a sum makes a high one: adjusted-max, max, mean-top-3 or first",
    },
    "--runtime": {
        "onnx ort": "onnxruntime",
        "ov vino": "openvino",
        "torch pytorch transformers": "rerank models export makes ONNX of a checkpoint",
    },
    "--truncate": {"true right tail": "end", "left head": "start", "false off no never": "none"},
    "--on-error": {"ignore continue skip warn": "keep", "raise stop exit abort": "fail"},
    "--color": {"yes on true force": "always", "no off false none": "never"},
    "--results": {"all json": "full", "score": "scores", "id index": "ids"},
    "--chunk": {"here client": "local", "server provider": "remote", "true yes on": "auto"},
    "--engine": {"spark dask cluster": "ray", "none": "local"},
    "--top-n": {"all": "0"},
}

# Commands of other tools, for each group here: the command in their place.
_COMMANDS: Mapping[str, Mapping[str, str]] = {
    "models": {
        "install download fetch get add update upgrade": "rerank models pull NAME",
        "remove delete uninstall del": "rerank models rm NAME",
        "ls search find available": "rerank models",
        "info describe inspect view card": "rerank models show NAME",
        "default set select switch set-default": "rerank models use NAME",
        "check test hash": "rerank models verify; rerank doctor -m NAME compares scores",
        "convert onnx quantize": "rerank models export FOLDER OUT",
        "where dir folder location": "rerank models path NAME",
        "wheel build pack bundle": "rerank models package FOLDER",
    },
    "providers": {
        "ls": "rerank providers",
        "info describe inspect view": "rerank providers show NAME",
        "test ping verify try": "rerank providers check NAME",
        "login auth key set-key add-key": "rerank config set-key NAME",
        "add new create": "providers.toml beside config.toml has your own, as docs/providers.md "
        "says",
    },
    "config": {
        "show ls print view dump": "rerank config",
        "add put write": "rerank config set KEY VALUE",
        "edit open": '$EDITOR "$(rerank config path)"',
        "delete rm remove del reset clear": "rerank config unset KEY",
        "rm-key remove-key delete-key del-key clear-key logout": "rerank config unset-key PROVIDER",
        "where file location": "rerank config path",
    },
}
# First words that are not commands here, and what to type instead.
_FIRST_WORDS: Mapping[str, str] = {
    "pull download install fetch": "rerank models pull NAME",
    "list ls": "rerank models, rerank providers, rerank config",
    "show info describe": "rerank models show NAME, rerank providers show NAME",
    "rm remove uninstall delete": "rerank models rm NAME",
    "verify": "rerank models verify",
    "use": "rerank models use NAME",
    "export convert": "rerank models export FOLDER OUT",
    "check test status": "rerank doctor",
    "init setup configure settings": "nothing has to be set up; rerank config shows the settings",
    "logout": "rerank config unset-key PROVIDER",
    "version": "rerank --version",
    "update upgrade": "pip install --upgrade rerank-cli",
    "completion completions": "rerank --install-completion bash, zsh or fish",
    "man usage options": "rerank --help",
    "evaluate bench benchmark": "rerank eval DATASET",
    "index embed ingest": 'nothing is indexed: rerank "your query" FILE…',
    "set get unset": "rerank config set KEY VALUE, rerank config get KEY",
}
# The first of these takes the words behind it for a query; the others are about keys.
_SEARCH_WORDS = ("search", "query", "find", "rerank", "sort", "ask", "grep", "score", "vsearch")
_KEY_WORDS = ("login", "auth", "signin", "key", "api-key", "apikey", "token", "set-key", "add-key")


def explain(error: Any, arguments: Sequence[str]) -> tuple[str, str | None]:
    """The message for a command line that typer refuses, and a hint.

    The message on a wrong value says what is right: of other hints it gets none.
    """
    ctx: Any = getattr(error, "ctx", None)
    message, hint = error.format_message().removesuffix("."), None
    if hasattr(error, "possibilities"):  # of an unknown option
        name = _as_typed(error.option_name, arguments, _options_of(ctx.command))
        message, hint = f"no such option: {name}", _option_hint(name, ctx, arguments)
    elif isinstance(error, BadValue):
        return message, _value_hint(error.names, error.value) or error.suggestion or None
    elif [*arguments[:2]] == ["config", "set"] and "=" in arguments[-1]:
        key, _, value = arguments[-1].partition("=")
        line = shlex.join(["rerank", *arguments[:-1], key, value])
        hint = _KEY_HINT.format("PROVIDER") if _is_key(key) else line
    path = ctx.command_path.removesuffix(f" {DEFAULT_COMMAND}") if ctx else "rerank"
    if path.startswith(_KEY_COMMANDS) and message.startswith("Got unexpected extra"):
        message = f"{path} takes fewer arguments"  # typer's message has those, and one may be a key
    return message, hint or f"{path} --help shows every option"


def _option_hint(name: str, ctx: Any, arguments: Sequence[str]) -> str | None:
    """The hint for an option that a command does not have; None if there is none."""
    options = _options_of(ctx.command)
    if name[1:].isdecimal() and "--top-n" in options:
        return f"did you mean -n {name[1:]}?"
    plain = _in_full(name)
    if plain in options:
        return f"did you mean {plain}?"
    if targets := [target for target in _synonyms_of(plain) if target in options]:
        return _describe(options[targets[0]])
    for names, sentence in _INSTEAD.items():
        if plain in names.split():
            return sentence
    if _KEY.fullmatch(plain):
        return _KEY_HINT.format(_provider_in(arguments))
    options_by_word = {option.strip("-"): option for option in options}
    near = _near(plain.strip("-"), options_by_word, 2)
    if near and plain.startswith("--"):
        return f"did you mean {' or '.join(options_by_word[word] for word in near)}?"
    homes = [command for command in all_commands(ctx) if plain in _options_of(command)]
    return f"{plain} is an option of {' and '.join(map(_command_words, homes))}" if homes else None


def _synonyms_of(name: str) -> list[str]:
    """The options here that others call by a name."""
    target_lists = (
        targets.split() for targets, names in _SYNONYMS.items() if name in names.split()
    )
    return [target for targets in target_lists for target in targets]


def _value_hint(names: Iterable[str], value: str) -> str | None:
    """The hint for a value that an option does not take, if there is one."""
    short, long = next(iter(names)), next(name for name in names if name.startswith("--"))
    if value.startswith("=") and short != long:
        return f"{short} {value[1:]} or {long}={value[1:]}"
    if long == "--format" and os.path.isfile(value):
        return f"--query-file {shlex.quote(value)} reads the query from a file"
    if long == "--top-n" and not value.lstrip("+-").isdecimal() and value.lower() != "all":
        return "-n N keeps the best N results; -f grep writes lines with their numbers"
    for values, instead in _VALUES.get(long, {}).items():
        if value.lower() in values.split():
            return instead if " " in instead else f"{long} {instead}"
    return None


def command_hint(error: UnknownCommand) -> str:
    """The hint for a command that a group does not have."""
    group, names, word = str(error.ctx.info_name), error.names, error.arguments[0].lower()
    for words, instead in _COMMANDS.get(group, {}).items():
        if word in words.split():
            return instead
    if group == "config" and (word in _KEY_WORDS or _is_key(word)):
        return _KEY_HINT.format("PROVIDER")
    if group == "config" and (hint := _hint_for_setting(error)):
        return hint
    if near := _near(word, names):
        return f"did you mean {error.ctx.command_path} {near[0]}?"
    hint = _hint_for_name(group, error.arguments[0])
    return hint or f"{error.ctx.command_path} has {', '.join(names)}"


def _hint_for_name(group: str, word: str) -> str | None:
    """The hint for the name of a model or a provider in place of a command."""
    if group == "models":
        from rerank_cli.models.catalogue import names_containing

        return f"rerank models show {names[0]}" if (names := names_containing(word)) else None
    word = word.partition("=")[0]  # what follows may be a key
    provider = re.split("[/:.]", word)[0]
    if group == "config":
        return _KEY_HINT.format(provider) if provider in _providers() else None
    names = [word] if provider in _providers() else _near(word.lower(), _providers())
    return f"rerank providers show {names[0]}" if names else None


def _hint_for_setting(error: UnknownCommand) -> str | None:
    """The hint for a setting that was typed in place of a command of `rerank config`."""
    word, equals, value = error.arguments[0].partition("=")
    key, values = word.replace("_", "-"), [value] if equals else error.arguments[1:]
    settings = settings_in(all_commands(error.ctx))
    if key not in settings:
        others = [name[2:] for name in _synonyms_of(f"--{key}") if name[2:] in settings]
        others += _near(key, settings)
        if not others:
            return None
        key = others[0]
    return shlex.join(["rerank", "config", "set" if values else "get", key, *values])


def setting_hint(key: str, settings: Iterable[str]) -> str | None:
    """The hint for a setting that does not exist, by its names in other tools."""
    plain, setting_keys = key.lower().replace("_", "-"), set(settings)
    if plain in _providers():
        return _KEY_HINT.format(plain)
    if _is_key(plain):
        return _KEY_HINT.format("PROVIDER")
    keys = [name[2:] for name in _synonyms_of(f"--{plain}") if name[2:] in setting_keys]
    return f"did you mean {keys[0]}?" if keys else None


def _is_key(word: str) -> bool:
    """Whether a word names a key, as COHERE_API_KEY=… and cohere.key do."""
    return _KEY.fullmatch("--" + re.sub("[_.]", "-", word.partition("=")[0].lower())) is not None


def explain_words(error: RerankError, ctx: Any) -> None:
    """Add a hint to the error that no document is found: the words may be meant for a command."""
    hint = words_hint(ctx)
    if hint == _KEY_HINT.format("PROVIDER"):  # what follows may be one
        error.args = (f"no command is called {ctx.params['arguments'][0]}",)
    error.hint = hint or error.hint


def words_hint(ctx: Any) -> str | None:
    """A hint on arguments that seem to be a command, or words beside an image."""
    from rerank_cli.media import MEDIA_FIELDS

    params = ctx.params
    words = [*(params["arguments"] or ())]
    if not words or params["query"] is not None or params["query_file"] is not None:
        return None
    place, option = next(
        ((params[name], name) for name in MEDIA_FIELDS if params[name]), (None, "")
    )
    if place is not None:
        is_other = os.path.exists(words[0]) or not os.path.exists(place)
        hint = f"with --{option} all arguments are files; -q {shlex.quote(words[0])} adds words"
        return None if is_other else hint
    if len(words) > 1 and os.path.exists(words[1]):
        return None
    if len(words) > 1 and _are_swapped(words[0], words[1], recursive=params["recursive"]):
        recursive = "-r " if params["recursive"] or Path(words[0]).is_dir() else ""
        return f"the query comes first: rerank {recursive}{_quote(words[1], words[0], *words[2:])}"
    return _query_hint(words[0], words[1:], lazy_commands(ctx))


def _are_swapped(first: str, second: str, *, recursive: bool) -> bool:
    """Whether the first argument seems to be a file or a folder, and the second one the query.

    That is missing. A folder that is missing too is known by the words that are no name.
    """
    if os.path.exists(first):
        return not _PATH.fullmatch(second)
    may_be_path = recursive or _PATH.fullmatch(first) is not None
    return may_be_path and " " not in first and " " in second


def _query_hint(query: str, files: Sequence[str], commands: Iterable[str]) -> str | None:
    """A hint on a query that looks like a command; `files` are the arguments behind it."""
    word = query.lower()
    if word in _SEARCH_WORDS:
        line = _quote(*(files[:1] or ["your query"]), *(files[1:] or ["FILE"]))
        return f"{query} is the query; to rank by what follows: rerank {line}"
    if word in _KEY_WORDS:
        return _KEY_HINT.format("PROVIDER")
    for words, instead in _FIRST_WORDS.items():
        if word in words.split():
            if files and "," not in instead:
                instead = instead.replace("NAME", shlex.quote(files[0]))
            return f"{query} was taken for the query; for the command: {instead}"
    near = _near(word, commands)
    return f"{query} was taken for the query; the command is rerank {near[0]}" if near else None


def _as_typed(name: str, arguments: Sequence[str], options: Iterable[str]) -> str:
    """An option as it was typed: a word or a number behind one hyphen, `-limit 5`, is whole.

    What may follow it, as in `--api-key=KEY`, is left out.
    """
    tables = (*_SYNONYMS, *_SYNONYMS.values(), *_INSTEAD)
    known_names = {*options, *HELP_NAMES, *(word for words in tables for word in words.split())}
    for argument in arguments:
        if re.fullmatch(r"-\d+", argument) and argument.startswith(name):
            return argument
        if re.match(r"-[A-Za-z][\w-]{2}", argument) and name[1:2] in argument[1:]:
            whole = _NAME_END.split(argument)[0]
            if _in_full(whole) in known_names or _KEY.fullmatch(_in_full(whole)):
                return whole
    return _NAME_END.split(name)[0]


def _in_full(name: str) -> str:
    """A long option in the spelling of this program."""
    if not re.match(r"-?-\w[\w-]", name):
        return name
    return "--" + name.strip("-").lower().replace("_", "-")


def _options_of(command: Any) -> dict[str, Any]:
    """The options of a command by each of their names."""
    return {
        name: each
        for each in command.params
        if each.param_type_name == "option"
        for name in [*each.opts, *each.secondary_opts]
    }


def _near(word: str, words: Iterable[str], most: int = 1) -> list[str]:
    """The words that are spelled most like another."""
    return near_words(word, words, likeness=_NEAR, most=most)


def _describe(option: Any) -> str:
    usage, sentence = short_help_record(option)
    if sentence[1].islower():  # no acronym
        sentence = sentence[0].lower() + sentence[1:]
    return f"here that is {usage}: {sentence.rstrip('.')}"


def _command_words(command: Any) -> str:
    return "rerank" if command.name == DEFAULT_COMMAND else f"rerank {command.name}"


def _provider_in(arguments: Sequence[str]) -> str:
    """The provider whose model a command line names; a placeholder if it names none."""
    names = (match[1] for text in arguments if (match := _PROVIDER_IN_MODEL.match(text)))
    provider_names = _providers()
    return next((name for name in names if name in provider_names), "PROVIDER")


def _providers() -> list[str]:
    """The names of all providers; none if a file of the user with such cannot be read."""
    from rerank_cli.providers.catalogue import provider_names

    try:
        return provider_names()
    except RerankError:
        return []


def _quote(query: str, *files: str) -> str:
    """A query in double quotes where that is safe, and files behind it."""
    safe = not re.search(r'["$`\\!]', query)
    return " ".join([f'"{query}"' if safe else shlex.quote(query), *map(shlex.quote, files)])
