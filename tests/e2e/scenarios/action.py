"""The button under a message runs its code block, and what it printed is still there later."""

from tests.e2e.stage import PLUGIN_NAME, Stage, chat_with_block

_CODE = "print('pressed-' + 'once')\nprint('``' + '`')\nprint('![x](https://example.com/x.png)')"
_PRINTED = "pressed-once"


def play(stage: Stage) -> None:
    """3. The action button runs a block, and its result stays after a reload."""
    chat = chat_with_block(stage, "python", _CODE)
    page = stage.person_page
    page.open_chat(chat.chat_id)
    page.press(PLUGIN_NAME)
    stage.report.check("pressed, the button shows what the block printed", page.shows(_PRINTED))
    page.screenshot("action-result")
    page.reload()
    stage.report.check("a box waits for the next run by then", bool(stage.watch.waiting_boxes()))
    stage.report.check("after a reload of the page it is still shown", page.shows(_PRINTED))
    stage.report.check("an image in the output has not become one", page.images("example.com") == 0)
    page.screenshot("action-reloaded")
    content = str(stage.person.message(chat)["content"])
    stage.report.check("the stored message holds it", _PRINTED in content, content)
