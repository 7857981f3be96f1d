"""Open WebUI's real page in Chromium, as a signed-in person sees and uses it.

Buttons are found by what a screen reader says of them, so a change of looks breaks nothing here.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.e2e.client import Client
from tests.e2e.model import MODEL_ID

CHROMIUM = "/usr/bin/chromium"
"""Debian's; Playwright's own browsers are not downloaded."""

SHOW_SECONDS = 30
"""How long the page may take to show something."""


class ChatPage:
    """One window, signed in as one person."""

    def __init__(self, page: Page, screenshots: Path) -> None:
        self._page = page
        self._screenshots = screenshots

    def ask(self, text: str, *, tool_id: str) -> None:
        """Begin a chat with the tool chosen, type a message and send it."""
        self._open_with_tool(tool_id)
        self._page.locator("#chat-input").click()
        # Inserted, as a paste is: typed character by character, the editor makes quotes and signs typographic.
        self._page.keyboard.insert_text(text)
        self._page.locator("#send-message-button").click()

    def open_chat(self, chat_id: str) -> None:
        """Show a chat that exists."""
        self._open(f"/c/{chat_id}")

    def reload(self) -> None:
        """Load the page anew."""
        self._page.reload()

    def press(self, name: str) -> None:
        """Press the button that a screen reader calls so; the last of them where there are several."""
        self._page.get_by_role("button", name=name, exact=True).last.click()

    def open_tool_result(self) -> None:
        """Open the tool result of the last reply."""
        self._page.get_by_text("View Result").last.click()
        expect(self._messages.get_by_text("Output", exact=True).last).to_be_visible()

    def shows(self, text: str) -> bool:
        """Wait until the text stands in the conversation, and say whether it came."""
        return _appeared(self._messages.get_by_text(text).last)

    def occurrences(self, text: str) -> int:
        """Count how often the text stands in the conversation now."""
        shown: str = self._messages.inner_text()
        return shown.count(text)

    def images(self, address: str) -> int:
        """Count the images in the conversation whose address has this in it."""
        count: int = self._messages.locator(f"img[src*='{address}']").count()
        return count

    def admin_valves(self, tool_name: str) -> str:
        """Open the tool's valves as an administrator does, and give the form's text."""
        self._open("/workspace/tools")
        expect(self._page.get_by_text(tool_name, exact=True).first).to_be_visible()
        self.press("Valves")
        return self._form_text()

    def person_valves(self, tool_id: str) -> str:
        """Open the person's own valves of the tool, from beside the message field, and give the form's text."""
        self._open_with_tool(tool_id)
        self._page.locator("#integration-menu-button").click()
        self._page.get_by_role("menuitem", name=re.compile(r"^\s*Tools\b")).click()
        self.press("Valves")
        return self._form_text()

    def screenshot(self, name: str) -> None:
        """Keep what is shown as NAME.png."""
        self._page.wait_for_timeout(500)  # lets movements on the page come to rest
        self._page.screenshot(path=self._screenshots / f"{name}.png")

    @property
    def _messages(self) -> Locator:
        return self._page.locator("#messages-container")

    def _open_with_tool(self, tool_id: str) -> None:
        self._open(f"/?models={MODEL_ID}&tools={tool_id}")
        expect(self._page.get_by_role("button", name="Available Tools")).to_be_visible()

    def _open(self, path: str) -> None:
        self._page.goto(path)
        self._page.locator("#chat-input, #sidebar").first.wait_for()

    def _form_text(self) -> str:
        form = self._page.get_by_role("dialog").last
        form.get_by_text("Custom").or_(form.get_by_text("Default")).first.wait_for()
        text: str = form.inner_text()
        return text


@contextmanager
def chromium() -> Iterator[Browser]:
    """Lend a browser without a window."""
    with sync_playwright() as playwright:
        # Chromium refuses its own sandbox under root; /dev/shm is small in containers.
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        try:
            yield browser
        finally:
            browser.close()


def signed_in_page(browser: Browser, client: Client, screenshots: Path) -> ChatPage:
    """Open a window in the client's name."""
    context = browser.new_context(base_url=client.url, viewport={"width": 1280, "height": 1000}, locale="en-US")
    context.set_default_timeout(SHOW_SECONDS * 1000)
    context.add_init_script(f"localStorage.setItem('token', {json.dumps(client.token)})")
    return ChatPage(context.new_page(), screenshots)


def _appeared(found: Locator) -> bool:
    try:
        expect(found).to_be_visible(timeout=SHOW_SECONDS * 1000)
    except AssertionError:
        return False
    return True
