"""Packing, masks and the model's two ways to read the same conversation."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_model

from curriculum.parts.packing import collate, encode, pack
from fovea.errors import InputError
from fovea.types import Message, Part, Record


def record(name: str, question: str, answer: str, overlay: bool = False) -> Record:
    messages = (
        Message("system", (Part("Answer from the picture."),)),
        Message("user", (Part("A chest radiograph.\n"), Part(image=0), Part("\n" + question))),
    )
    if overlay:
        messages += (
            Message("assistant", (Part("<call>a(b)</call>"),)),
            Message("tool", (Part("found "), Part(image=1))),
        )
    return Record(
        name, name, "size", (*messages, Message("assistant", (Part(answer),))), (name, *(["o" + name] * overlay))
    )


RECORDS = [
    record("a", "How large is the nodule?", "The nodule measures 12.4 mm."),
    record("a", "Is there an effusion?", "No, there is no effusion.", overlay=True),
    record("a", "Where is it?", "It is on the left."),
    record("b", "How large is the nodule?", "The nodule measures 7 mm.", overlay=True),
    Record("t", "t", "reading", (Message("user", (Part("Repeat: 1 2"),)), Message("assistant", (Part("1 2"),)))),
]


@pytest.mark.parametrize("kind", ["lfm2", "qwen3"])
def test_packed_loss_is_the_loss_of_conversations_one_by_one(kind):
    model = tiny_model(kind)
    features = {name: torch.randn(16, model.tower.channels) for name in ("a", "b", "oa", "ob")}
    encoded = [encode(item, model) for item in RECORDS]
    with torch.no_grad():
        alone = [model(collate(pack([[e]], 512, model.gap, model.pad_id), model.pad_id, features)) for e in encoded]
        groups = [encoded[:3], encoded[3:4], encoded[4:]]
        for length in (512, 110):
            rows = pack(groups, length, model.gap, model.pad_id)
            together, weight = model(collate(rows, model.pad_id, features))
            assert float(weight) == pytest.approx(sum(float(w) for _, w in alone), rel=1e-5)
            assert float(together) == pytest.approx(sum(float(loss) for loss, _ in alone), rel=1e-4)
    assert len(pack(groups, 512, model.gap, model.pad_id)) == 1
    assert sum(len(r.ids) for r in pack(groups, 512, model.gap, model.pad_id)) < sum(len(e.ids) for e in encoded)


def test_only_the_assistant_is_supervised():
    model = tiny_model("lfm2")
    encoded = encode(RECORDS[1], model)
    spoken = [token for token, label in zip(encoded.ids, encoded.labels, strict=True) if label >= 0]
    text = model.tokenizer.decode(spoken, skip_special_tokens=False)
    assert "".join(text.split()) == "<call>a(b)</call></s>No,thereisnoeffusion.</s>"


def test_a_conversation_longer_than_a_row_is_refused():
    model = tiny_model("lfm2")
    with pytest.raises(InputError, match="tokens"):
        pack([[encode(RECORDS[0], model)]], 20, model.gap, model.pad_id)


def test_same_text_about_other_pictures_is_not_shared():
    model = tiny_model("lfm2")
    one, other = encode(record("a", "Q?", "A."), model), encode(record("b", "Q?", "A."), model)
    rows = pack([[one, other]], 512, model.gap, model.pad_id)
    assert sum(row.images.count("a") + row.images.count("b") for row in rows) == 2
