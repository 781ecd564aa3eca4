"""The tokenizer learned on training text: the same for the same texts, and nothing is unknown to it."""

from hfvla.data.tokenizers import IMAGE_TOKENS, learn_tokenizer

TEXTS = ["A red building with a helipad.", "Đèn giao thông màu gì?"] * 20


def test_the_same_texts_give_the_same_tokenizer():
    one, two = learn_tokenizer(TEXTS, 400), learn_tokenizer(iter(TEXTS), 400)
    assert one.get_vocab() == two.get_vocab() and len(one) <= 400
    assert one.get_vocab() != learn_tokenizer(TEXTS[:1] * 40, 400).get_vocab()


def test_any_text_comes_back():
    tokenizer = learn_tokenizer(TEXTS, 400)
    for text in ("A red building.", "Đèn xanh", "日本語 ☂"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    learned, unseen = (len(tokenizer(text).input_ids) for text in ("building with a helipad", "xqzvk jwpyf b hgnm"))
    assert learned < unseen / 2


def test_special_tokens_have_ids_and_names():
    tokenizer = learn_tokenizer(TEXTS, 400)
    for name, text in IMAGE_TOKENS.items():
        assert getattr(tokenizer, name) == text and len(tokenizer(text).input_ids) == 1
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, None)


def test_special_tokens_of_another_processor():
    tokens = {"image_token": "<|image_pad|>", "vision_start_token": "<|vision_start|>"}
    tokenizer = learn_tokenizer(TEXTS, 400, tokens)
    assert tokenizer.image_token == "<|image_pad|>" and tokenizer.vision_start_token == "<|vision_start|>"
    for text in tokens.values():
        assert len(tokenizer(text).input_ids) == 1 and text in tokenizer.all_special_tokens
    assert not set(IMAGE_TOKENS.values()) & set(tokenizer.get_vocab())
    saved = tokenizer("A red <|image_pad|> building").input_ids
    assert tokenizer.decode(saved, skip_special_tokens=True) == "A red  building"
