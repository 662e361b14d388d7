"""Has a model fetched, and tells the user what is fetched, from where, and under which licence."""

import sys
from contextlib import ExitStack

from rerank_cli import machine
from rerank_cli.errors import NotInstalled, UsageError
from rerank_cli.models import Reference, installed, is_local, read
from rerank_cli.models.hub import offline
from rerank_cli.models.store import Installed, Store
from rerank_cli.scorers import is_remote
from rerank_cli.terminal import Terminal


def ready(model: str | None, *, pull: bool, keep_off: bool) -> None:
    """See to it that a model that was named is there, before it is opened.

    One that is not is fetched with `pull`, or if a person at the terminal agrees; with `keep_off`
    or where the environment says so never. Raises `NotInstalled` and what fetching raises.
    """
    if model is None or not is_local(model):
        if keep_off and is_remote(model):
            raise UsageError(
                f"--offline: {model} is a provider's model",
                hint="one of rerank models is run here",
            )
        return
    reference = read(model)
    if reference.entry is not None and reference.entry.folder:
        return
    try:
        installed(reference)
    except NotInstalled as error:
        barrier = "--offline" if keep_off else offline()
        if barrier is not None:
            raise _kept_off(error, barrier) from error
        asking = sys.stdin.isatty() and sys.stderr.isatty()
        if not pull and not asking:
            raise
        fetch(reference, asking=None if pull else error)


def fetch(
    reference: Reference, *, asking: NotInstalled | None = None, keep_off: bool = False
) -> Installed:
    """Fetch a model; `asking` is raised where a person is asked and does not agree."""
    barrier = "--offline" if keep_off else offline()
    if barrier is not None:
        place = Store.usual().place(reference.name, reference.precision)
        raise _kept_off(NotInstalled(str(reference), str(place)), barrier)

    from rerank_cli.models.pull import Plan, plan, pull
    from rerank_cli.progress import fetching

    terminal, store = Terminal.current(), Store.usual()

    def told(planned: Plan) -> str:
        size = f"{planned.size / 1e6:,.1f} MB"
        licence = planned.licence or "no licence that it states"
        limits = "" if planned.is_commercial else ", which allows no commercial use"
        locked = ", as before" if planned.is_locked else ""
        return (
            f"{planned.reference}: {size} from {planned.of.repository}@{planned.of.revision[:8]}"
            f"{locked}, licence {licence}{limits}"
        )

    planned = plan(reference, store, machine.features())
    terminal.say(told(planned))
    if asking is not None and not _agreed(terminal):
        raise asking
    with ExitStack() as stack:
        watch = None
        if terminal.watched:
            watch = stack.enter_context(fetching(terminal.stderr, planned.size))
        return pull(
            planned,
            store,
            waiting=lambda: terminal.say("another process is fetching it: waiting for that"),
            watch=watch,
        )


def _agreed(terminal: Terminal) -> bool:
    terminal.stderr.write("fetch it? [y/N] ")
    terminal.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _kept_off(error: NotInstalled, barrier: str) -> NotInstalled:
    """The same, with what to do where nothing may be fetched."""
    error.hint = f"{barrier} keeps off the network: without it, rerank models pull {error.model}"
    return error
