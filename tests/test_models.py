"""The models' room: towers and decoders from folders and names, saving, generation, the grammar of calls."""

from __future__ import annotations

import pytest
import torch
from tiny import DECODERS, tiny_clip, tiny_model, tokenizer

from fovea.errors import ConfigError, ModelError
from fovea.verbal import read_calls
from models.clip.model import ContrastiveModel
from models.text.tokenizer import load_tokenizer
from models.vlm.connectors import ShuffleMLP
from models.vlm.grammar import CallGrammar
from models.vlm.mimetic import mimetic
from models.vlm.model import Prompt, VisionLanguageConfig, VisionLanguageModel
from models.vlm.towers import build_tower, rebuild_tower
from models.weights import digest

PICTURES = torch.randint(0, 255, (2, 128, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CALLS = ("<call>chest(nodule)</call>", "<call>chest(all)</call>", "<call>torso(liver)</call>")


def prompts(model, *texts):
    seen = model.look(PICTURES)
    out = []
    for n, text in enumerate(texts):
        ids = [model.image_id, *model.tokenizer.encode(text, add_special_tokens=False)]
        expanded, visible, _ = model.expand(ids)
        out.append(Prompt(expanded, visible, seen[n % 2][None]))
    return out


def test_clip_saves_open_clips_layout(tmp_path):
    import open_clip

    model = tiny_clip()
    model.save(tmp_path)
    again = ContrastiveModel.open(str(tmp_path)).eval()
    theirs = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    pixels, tokens = torch.randn(2, 3, 128, 128), model.tokenize(["a nodule", "no effusion at all"])
    with torch.no_grad():
        for mine, same in zip(model(pixels, tokens), again(pixels, tokens), strict=True):
            assert torch.equal(mine, same)
        assert torch.equal(theirs.encode_image(pixels, normalize=True), model(pixels, tokens)[0])


def test_logit_scale_is_at_most_100():
    model = tiny_clip()
    with torch.no_grad():
        model.clip.logit_scale.fill_(9.0)
        scale = model(torch.randn(1, 3, 128, 128), model.tokenize(["a"]))[2]
    assert float(scale) == pytest.approx(100, rel=1e-3)


def siglip(folder):
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16
    )
    SiglipVisionModel(config).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return f"hf:{folder}"


def clip(folder):
    tiny_clip().save(folder)
    return f"openclip:{folder}"


@pytest.mark.parametrize("source", [clip, siglip, lambda folder: "timm:test_resnet"])
def test_a_tower_is_rebuilt_from_its_description(tmp_path, source):
    tower = build_tower(source(tmp_path)).eval()
    again = rebuild_tower(tower.description).eval()
    again.load_state_dict(tower.state_dict())
    pixels = torch.randint(0, 255, (1, tower.image_size, tower.image_size, 3), dtype=torch.uint8)
    with torch.no_grad():
        one, other = tower(pixels), again(pixels)
    assert torch.equal(one.tokens, other.tokens)
    assert one.tokens.shape == (1, one.grid[0] * one.grid[1], tower.channels)
    assert one.pooled.shape == (1, tower.channels)
    assert len(one.pyramid) > 1


def test_towers_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="openclip:FOLDER"):
        build_tower("resnet")
    with pytest.raises(ModelError):
        build_tower(f"openclip:{tmp_path}")
    with pytest.raises(ModelError):
        build_tower(f"hf:{tmp_path}")


def test_a_pretrained_decoder_and_tokenizer_from_folders(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    plain = tokenizer()
    config = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=len(plain) - 2
    )
    decoder = LlamaForCausalLM(config)
    decoder.save_pretrained(tmp_path / "decoder")
    plain.save_pretrained(tmp_path / "tokenizer")
    words = load_tokenizer(tmp_path / "tokenizer")
    settings = VisionLanguageConfig(tower=clip(tmp_path / "clip"), decoder=str(tmp_path / "decoder"))
    model = VisionLanguageModel.build(settings, words).eval()
    kept = model.decoder.get_input_embeddings().weight[: len(plain) - 2]
    assert torch.equal(kept, decoder.get_input_embeddings().weight)
    assert model.generate(prompts(model, "found"), limit=3)
    model.save(tmp_path / "whole")
    assert digest(VisionLanguageModel.open(tmp_path / "whole")) == digest(model)


@pytest.mark.parametrize("kind", list(DECODERS))
def test_saved_model_says_the_same(tmp_path, kind):
    model = tiny_model(kind)
    model.save(tmp_path)
    again = VisionLanguageModel.open(tmp_path)
    asked = ("Is there an effusion?", "Where is it?")
    assert model.generate(prompts(model, *asked), limit=8) == again.generate(prompts(again, *asked), limit=8)


@pytest.mark.parametrize("kind", list(DECODERS))
def test_cache_padding_and_company_change_nothing(kind):
    model = tiny_model(kind)
    long, short = prompts(model, "How large is the nodule in this picture here?", "Where?")
    together = model.generate([long, short], limit=6)
    alone = [model.generate([prompt], limit=6)[0] for prompt in (long, short)]
    assert [out.text for out in together] == [out.text for out in alone]
    assert together[1].confidence == pytest.approx(alone[1].confidence, rel=1e-4)
    ids = list(short.ids)  # without a cache, token by token
    visible = list(short.visible)
    for _ in range(6):
        with torch.no_grad():
            embedded = model.embed(torch.tensor([ids]), short.features)
            mask = torch.tensor([visible]).long()
            places = (mask.cumsum(1) - 1).clamp(min=0)
            logits = model.decoder(
                inputs_embeds=embedded, attention_mask=mask, position_ids=places, use_cache=False
            ).logits
        token = int(logits[0, -1].argmax())
        if token == model.tokenizer.eos_token_id:
            break
        ids.append(token)
        visible.append(True)
    said = model.tokenizer.decode([t for t in ids[len(short.ids) :] if t != model.pad_id], skip_special_tokens=False)
    assert said.strip() == alone[1].text


def test_the_picture_is_seen():
    model = tiny_model()
    one, other = (
        model.embed(torch.tensor([[model.image_id] * 16]), model.look(PICTURES[:1])),
        model.embed(torch.tensor([[model.image_id] * 16]), model.look(PICTURES[1:])),
    )
    assert not torch.equal(one, other)
    with pytest.raises(ModelError, match="places"):
        model.embed(torch.tensor([[model.image_id] * 15]), model.look(PICTURES[:1]))


def test_only_valid_calls_can_be_written():
    model = tiny_model()
    grammar = CallGrammar(model.tokenizer, CALLS, budget=2)
    call = grammar.open

    class Eager(CallGrammar):
        def __call__(self, written, scores):
            scores = super().__call__(written, scores)
            if written.shape[1] == 0:
                scores[:, call] = 1e4
            return scores

    eager = Eager(model.tokenizer, CALLS, budget=2)
    for out in model.generate(prompts(model, "Is there an effusion?", "Where is it?"), eager, limit=60):
        written = [f"<call>{name}({argument})</call>" for name, argument in read_calls(out.text)]
        assert 1 <= len(written) <= 2
        assert set(written) <= set(CALLS)
        assert "".join(out.text.split()) == "".join(written)


def test_without_experts_no_call_is_written():
    model = tiny_model()
    silent = CallGrammar(model.tokenizer, ())
    scores = torch.zeros(1, len(model.tokenizer))
    assert silent(torch.zeros(1, 0, dtype=torch.long), scores)[0, silent.open] == -torch.inf


def test_connector_merges_neighbours():
    connector = ShuffleMLP(4, 8, (4, 4), 2)
    tokens = torch.randn(1, 16, 4)
    before = connector(tokens)
    changed = tokens.clone()
    changed[0, 5] += 1  # row 1, column 1: in the first square
    touched = (connector(changed) != before).any(-1)[0]
    assert before.shape == (1, 4, 8)
    assert touched.tolist() == [True, False, False, False]
    with pytest.raises(ConfigError, match="divides"):
        ShuffleMLP(4, 8, (3, 3), 2)


@pytest.mark.parametrize(("kind", "shared"), [("lfm2", 2), ("qwen3", 1)])
def test_a_new_decoder_looks_for_its_like_and_passes_it_on(kind, shared):
    import copy

    from transformers import AutoConfig, AutoModelForCausalLM

    settings = DECODERS[kind] | {"num_key_value_heads": shared, "vocab_size": 50}
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    decoder = mimetic(copy.deepcopy(plain))
    changed = {n for (n, a), b in zip(plain.named_parameters(), decoder.parameters(), strict=True) if not a.equal(b)}
    attention = [layer for layer in decoder.modules() if hasattr(layer, "q_proj")]
    assert len(changed) == 3 * len(attention)
    assert all(any(f"{part}_proj" in name for part in ("q", "v", "o", "out")) for name in changed)
    for layer in attention:
        output = layer.o_proj if hasattr(layer, "o_proj") else layer.out_proj
        keys, values = (
            part.weight.view(shared, 16, -1).repeat_interleave(2 // shared, 0).flatten(0, 1)
            for part in (layer.k_proj, layer.v_proj)
        )
        assert alignment(layer.q_proj.weight.T @ keys) > 0.3
        assert alignment(output.weight @ values) > 0.3


def alignment(product):
    """The cosine between a matrix and the identity."""
    return (product.trace() / product.norm() / len(product) ** 0.5).item()
