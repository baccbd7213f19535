from __future__ import annotations

import base64
import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_kit import Server, said
from PIL import Image

from limner.data.endpoint import Endpoint
from limner.data.rewrite import Request, picture_for_model, usable_lines
from limner.errors import LimnerError, UsageError

APPLE = Request(3, "subject: apple\ncolour: red", frozenset(("apple", "fruit")), frozenset(("red",)))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    yield running
    running.close()


def endpoint(server: Server, **options: Any) -> Endpoint:
    return Endpoint(server.url, "tiny", **{"first_wait": 0.01, "timeout": 5.0} | options)


def test_the_question_is_a_chat_with_key_and_facts(server: Server) -> None:
    assert endpoint(server, key="s3cret").answers([APPLE, APPLE]) == ["a red apple"] * 2
    question = server.questions[0]
    assert question["model"] == "tiny"
    assert [each["role"] for each in question["messages"]] == ["system", "user"]
    assert "3 different" in question["messages"][0]["content"]
    assert question["messages"][1]["content"] == APPLE.facts
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(endpoint(server, key="s3cret"))
    endpoint(server).answers([APPLE])
    assert "Authorization" not in server.headers[-1]


def test_the_full_address_serves_as_well(server: Server) -> None:
    assert Endpoint(f"{server.url}/chat/completions", "tiny").answers([APPLE]) == ["a red apple"]


def test_pictures_go_as_data_urls_on_white(server: Server) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (32, 16), (255, 0, 0, 0)).save(file, "PNG")
    picture = picture_for_model(file.getvalue(), "a.png")
    seeing = endpoint(server, sees=True)
    seeing.answers([Request(2, "", picture=picture)])
    ((part),) = server.questions[0]["messages"][1]["content"]
    head, _, data = part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (shown.size, shown.mode, shown.getpixel((3, 3))) == ((256, 128), "RGB", (255, 255, 255))
    assert (seeing.origin, endpoint(server).origin) == ("vision:tiny", "endpoint:tiny")


def test_a_broken_picture_is_named() -> None:
    with pytest.raises(LimnerError, match=r"b\.png: not a readable picture"):
        picture_for_model(b"nonsense", "b.png")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server: Server, status: int) -> None:
    server.reply = lambda question, number: said("a red apple") if number == 2 else (status, b"", {})
    assert endpoint(server).answers([APPLE]) == ["a red apple"]
    assert len(server.questions) == 3


def test_retry_after_is_obeyed(server: Server) -> None:
    server.reply = lambda question, number: said("ok apple") if number else (429, b"", {"Retry-After": "1"})
    start = time.monotonic()
    endpoint(server).answers([APPLE])
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize(
    ("reply", "asked", "message"),
    [
        ((500, b'{"error": {"message": "out of\\nmemory."}}', {}), 3, r"answers 500, out of memory \(tried 3 times\)"),
        ((401, b"", {}), 1, r"refuses the key \(401\); put a valid one into the variable that --key-env names"),
        ((404, b"", {}), 1, "knows no model 'tiny'"),
        ((400, b'{"error": {"message": "no images here"}}', {}), 1, "answers 400, no images here; check"),
        ((302, b"", {"Location": "http://127.0.0.1:9/"}), 1, "answers 302; check --endpoint"),
        ((200, b"<html>hello</html>", {}), 3, "does not answer in the form of chat completions"),
        ((200, b'{"choices": []}', {}), 3, "does not answer in the form of chat completions"),
        ((200, b"x" * 3_000_000, {}), 1, "longer than 1 MiB"),
    ],
)
def test_faults_are_one_sentence(
    server: Server, reply: tuple[int, bytes, dict[str, str]], asked: int, message: str
) -> None:
    server.reply = lambda question, number: reply
    with pytest.raises(LimnerError, match=message) as caught:
        endpoint(server, attempts=3, key="s3cret").answers([APPLE])
    assert server.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert len(server.questions) == asked


def test_down_and_slow_endpoints(server: Server) -> None:
    def slow(question: dict[str, Any], number: int) -> tuple[int, bytes, dict[str, str]]:
        time.sleep(0.6)
        return said("late")

    server.reply = slow
    with pytest.raises(LimnerError, match=r"no answer within 0\.2 seconds \(tried 2 times\)"):
        endpoint(server, timeout=0.2, attempts=2).answers([APPLE])
    server.http.server_close()
    with pytest.raises(LimnerError, match=r"cannot be reached .*see that it runs, then run the same command again"):
        Endpoint("http://127.0.0.1:9/v1", "tiny", attempts=2, first_wait=0.01).answers([APPLE])


def test_closing_ends_the_waiting(server: Server) -> None:
    server.reply = lambda question, number: (503, b"", {"Retry-After": "60"})
    waiting = endpoint(server)
    threading.Timer(0.2, waiting.close).start()
    start = time.monotonic()
    with pytest.raises(LimnerError, match=r"answers 503 \(tried once\)"):
        waiting.answers([APPLE])
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd", "http://", "ftp://host/v1"])
def test_only_web_addresses(url: str) -> None:
    with pytest.raises(UsageError, match="give an address such as http://localhost:8000/v1"):
        Endpoint(url, "tiny")


@pytest.mark.parametrize(
    "answer",
    [
        "1. a red apple\n2. apple in red, flat style\n3) fruit: one apple",
        "- a red apple\n* apple in red, flat style\n• fruit: one apple\n",
        '"a red apple."\n“apple in red, flat style”\n\n\tfruit: one  apple',
        '["a red apple", "apple in red, flat style", "fruit: one apple"]',
        "<think>\na pear?\n</think>\nHere are captions:\na red apple\napple in red, flat style\nfruit: one apple",
        "```text\na red apple\napple in red, flat style\nfruit: one apple\n```",
    ],
)
def test_captions_are_found_in_answers(answer: str) -> None:
    assert usable_lines(answer, APPLE) == ["a red apple", "apple in red, flat style", "fruit: one apple"]


@pytest.mark.parametrize(
    "line",
    [
        "", "   ", "a", "apple " + "very " * 50, "apple\x00apple", "@@ apple ## 12345 %% 67890", "Sure, a red apple",
        "apple apple apple apple apple apple apple", "I cannot describe the apple", "Here are three apples",
        "apple: rewrite the facts below into captions", "Keep every colour and the subject as given, apple",
        "a red pear", "a green apple", "a red and blue apple", "Captions: apple", "red apples:", "<think>a red apple",
    ],
)  # fmt: skip
def test_rubbish_is_dropped(line: str) -> None:
    assert usable_lines(line, APPLE) == []
    assert usable_lines(f"{line}\na red apple", APPLE) == ([] if line.startswith("<think>") else ["a red apple"])


def test_no_more_lines_than_wanted_and_none_twice() -> None:
    assert usable_lines("apple\napple\nan apple\na red apple\nred apple", APPLE) == ["apple", "an apple", "a red apple"]


def test_models_that_see_may_name_any_colour() -> None:
    assert usable_lines("a green pear on blue", Request(1, "", picture=b"x")) == ["a green pear on blue"]


def test_the_digest_tells_questions_apart() -> None:
    others = [
        APPLE.digest("endpoint:b"),
        APPLE._replace(facts="subject: pear").digest("endpoint:a"),
        APPLE._replace(wanted=4).digest("endpoint:a"),
        APPLE._replace(picture=b"x").digest("endpoint:a"),
    ]
    assert APPLE.digest("endpoint:a") == APPLE.digest("endpoint:a")
    assert len({APPLE.digest("endpoint:a"), *others}) == 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with random weights and a tokenizer of letters and words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("models") / "babbler"
    words = {
        word: i for i, word in enumerate(["<unk>", "</s>", "a", "red", "apple", "icon", "of", "flat", ",", "style"])
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(path)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=10, n_positions=512, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(path)
    return path


def test_a_language_model_from_a_folder_answers_the_same_each_time(folder: Path) -> None:
    from limner.data.language_model import LanguageModel

    model = LanguageModel(folder)
    other = APPLE._replace(facts="subject: pear\nkind: fruit, of all the fruits the longest one")
    answers = model.answers([APPLE, other])
    assert len(answers) == 2
    assert all(isinstance(answer, str) for answer in answers)
    assert answers == LanguageModel(folder).answers([APPLE, other])
    assert model.answers([APPLE]) == answers[:1]
    assert model.origin == "model:babbler"


def test_folders_that_hold_no_language_model(folder: Path, tmp_path: Path) -> None:
    from limner.data.language_model import LanguageModel

    with pytest.raises(LimnerError, match=r"no config\.json; give the folder of a Hugging Face causal"):
        LanguageModel(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(LimnerError, match="not a causal language model that can be loaded") as caught:
        LanguageModel(tmp_path)
    assert "\n" not in str(caught.value)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(LimnerError, match="not a causal language model that can be loaded"):
        LanguageModel(tmp_path)


def test_weights_that_lack_a_part_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from limner.data.language_model import LanguageModel

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in weights.items() if not key.endswith("ln_f.weight")}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(LimnerError, match=r"its weights lack .*ln_f\.weight; take another"):
        LanguageModel(tmp_path)


def test_captions_need_no_torch_until_a_folder_is_loaded() -> None:
    code = "import sys, limner.data.caption, limner.data.endpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
