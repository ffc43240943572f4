"""Records: exactly one of text and messages, ids that depend on the content alone."""

import pytest

from data_gen import UsageError
from data_gen.record import Item, Record, item_messages, record_id

MESSAGES = ({"role": "user", "content": "سلام"}, {"role": "assistant", "content": "وعلیکم السلام\n۔"})


def make(**kwargs: object) -> Record:
    fields: dict = {"id": "1", "source": "s", "task": "t", "language": "ur", "meta": {"demos": ["a"], "rouge": 0.5}}
    return Record(**(fields | kwargs))


@pytest.mark.parametrize("content", [{}, {"text": "a", "messages": MESSAGES}, {"messages": ({"role": "bot", "content": "a"},)}])
def test_content_is_checked(content: dict) -> None:
    with pytest.raises(UsageError):
        make(**content)


def test_id_is_the_contents() -> None:
    assert record_id("اردو") == record_id("اردو") != record_id("اردو ")
    assert len(record_id(MESSAGES)) == 16
    # Computed with sha256sum over {"text":"a"}: the id may never change, published data is known by it.
    assert record_id("a") == "6193c97585a0f731"
    swapped = tuple({"content": m["content"], "role": m["role"]} for m in MESSAGES)
    assert record_id(swapped) == record_id(MESSAGES)


def test_item_messages_join_the_input() -> None:
    item = Item("sentiment", "جذبہ بتائیں۔", "آج خوشی ہے۔", "مثبت", "ur")
    assert [m["content"] for m in item_messages(item)] == ["جذبہ بتائیں۔\n\nآج خوشی ہے۔", "مثبت"]
