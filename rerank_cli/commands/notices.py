"""What a run says on stderr of its input: what could not be read, and what was left out."""

from rerank_cli.inputs.documents import NEEDS_EXTRA, Inputs
from rerank_cli.terminal import Terminal, counted

# Of many files with the same trouble, these are named and the others counted.
_NAMED = 10


def tell_of_inputs(inputs: Inputs, terminal: Terminal) -> None:
    """Say everything about the input that results do not show by themselves."""
    report = inputs.report
    for path in report.binary[:_NAMED]:
        name = "standard input" if path == "-" else path
        terminal.warn(f"{name}: binary, not text: left out", hint=_binary_hint(inputs))
    _tell_of_more(len(report.binary), "binary", terminal)
    if extra := report.skipped[NEEDS_EXTRA]:
        terminal.warn(
            f"{counted(extra, 'file')} left out: HTML, PDF and DOCX need the extra docs",
            hint="pip install 'rerank-cli[docs]'",
        )
    for problem in report.problems[:_NAMED]:
        terminal.warn(str(problem), problem.hint)
    _tell_of_more(len(report.problems), "that could not be read", terminal)
    if report.undecodable:
        documents = counted(report.undecodable, "document")
        terminal.warn(f"{documents} had bytes that are not text in the input's encoding")


def tell_of_reading(inputs: Inputs, terminal: Terminal) -> None:
    """Say for --verbose what the input took, and what there was that is not in it."""
    if skipped := left_out(inputs):
        terminal.say(f"left out of folders and lists: {skipped}")
    if inputs.spooled:
        size = inputs.spooled
        shown = f"{size / 1e6:,.1f} MB" if size >= 100_000 else counted(size, "byte")
        terminal.say(f"{shown} copied to disk, to be gone through twice")


def left_out(inputs: Inputs) -> str:
    """What was left out of folders and lists, in words; empty where nothing was."""
    skipped = inputs.report.skipped
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items()) if count)


def _binary_hint(inputs: Inputs) -> str | None:
    if "-" in inputs.report.binary:
        return "-0 reads lines that end with NUL; --input-format pdf or docx such a file"
    return None


def _tell_of_more(count: int, what: str, terminal: Terminal) -> None:
    if count > _NAMED:
        terminal.warn(f"and {counted(count - _NAMED, 'more file')} {what}")
