"""Open a report of `rerank eval --report` in headless Chromium, take pictures, and check it.

    pip install playwright axe-playwright-python
    python scripts/check_report.py report.html --pictures build/report --chromium /usr/bin/chromium

It fails if the page asks for anything outside, runs a script, is wider than the window, has 2 MB or
more, or if axe-core finds something serious.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
from playwright.sync_api import Browser, Page, sync_playwright

MAX_BYTES = 2_000_000
VIEWS = [
    ("wide-light", 1280, "light", "screen"),
    ("wide-dark", 1280, "dark", "screen"),
    ("phone-light", 380, "light", "screen"),
    ("phone-dark", 380, "dark", "screen"),
    ("print", 794, "dark", "print"),
]


def main() -> int:
    """Check a report in every view; return 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--chromium", help="the browser's path, if playwright has none")
    options = parser.parse_args()
    options.pictures.mkdir(parents=True, exist_ok=True)
    size = options.report.stat().st_size
    faults = [] if size < MAX_BYTES else [f"it has {size:,} bytes"]
    axe = next(Path(axe_playwright_python.__file__).parent.rglob("axe.min.js"))
    source = axe.read_text(encoding="utf-8")
    with sync_playwright() as playwright:
        # Chromium refuses to run as root with its sandbox; what it opens is our own.
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--no-sandbox"]
        )
        for view in VIEWS:
            faults += check_view(browser, options.report, options.pictures, source, *view)
        browser.close()
    print(f"{options.report}: {size:,} bytes, {len(VIEWS)} views")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


def check_view(
    browser: Browser,
    report: Path,
    pictures: Path,
    axe: str,
    name: str,
    width: int,
    scheme: str,
    media: str,
) -> Iterator[str]:
    """Take a picture of one view, and yield what is wrong with it."""
    address = report.resolve().as_uri()
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    requests: list[str] = []
    messages: list[str] = []

    def note_dialog(dialog: Any) -> None:
        messages.append(dialog.message)
        dialog.dismiss()

    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("dialog", note_dialog)
    page.emulate_media(media="print" if media == "print" else "screen")
    page.goto(address)
    yield from (
        f"{name}: asked for {url[:200]}"
        for url in requests
        if url != address and url[:5] != "data:"
    )
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    if overflow > 0 and media == "screen":
        yield f"{name}: is {overflow} pixels wider than the window"
    if media == "print":
        page.pdf(path=str(pictures / f"{name}.pdf"), prefer_css_page_size=True)
    else:
        page.screenshot(path=str(pictures / f"{name}.png"), full_page=True)
        yield from (f"{name}: axe: {finding}" for finding in find_faults(page, axe))
    yield from (f"{name}: console: {message}" for message in messages)
    context.close()


def find_faults(page: Page, axe: str) -> Iterator[str]:
    """What axe-core finds, moderate findings too."""
    page.evaluate(axe)
    for finding in page.evaluate("axe.run(document)")["violations"]:
        places = "; ".join(node["html"][:120] for node in finding["nodes"][:3])
        count = len(finding["nodes"])
        yield f"{finding['impact']}: {finding['id']}, {count} times: {finding['help']}: {places}"


if __name__ == "__main__":
    sys.exit(main())
