"""Secrets are found by form and by place, ordinary text stays, and the time is linear. The texts: `secret_vectors`."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mentra_nb.record.write.redact import redact
from mentra_nb.secrets.mask import mask_secrets, may_hold_secret
from mentra_nb.secrets.vendors import FIXED, PREFIXES, prefixed, runs
from tests.kits.secret_vectors import CONTEXTS, HARMLESS, KEYS, SECRET


def hints(text: str) -> list[bool]:
    """Return what the quick test says of a text, of its JSON, and of JSON in JSON."""
    once = json.dumps(text, ensure_ascii=False)
    return [may_hold_secret(each) for each in (text, once, json.dumps(once))]


@pytest.mark.parametrize("vendor", KEYS)
def test_a_key_is_found_by_its_form(vendor: str) -> None:
    text = f"first {KEYS[vendor]} last"
    assert mask_secrets(text) == "first [redacted] last"
    assert mask_secrets(f"x={KEYS[vendor]}\n").count(KEYS[vendor]) == 0
    assert hints(text) == hints(f"\n{KEYS[vendor]}") == [True] * 3


@pytest.mark.parametrize("text", CONTEXTS)
def test_a_secret_is_found_by_its_place(text: str) -> None:
    masked = mask_secrets(text)
    assert SECRET[3:] not in masked
    assert mask_secrets(masked) == masked
    assert hints(text) == [True] * 3
    assert SECRET not in mask_secrets(json.dumps(text, ensure_ascii=False))


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_text_stays(text: str) -> None:
    assert mask_secrets(text) == text
    assert redact({"output": text, "input": {"argument": text, "list": [text, text, text]}})["output"] == text


def test_every_form_has_a_vector() -> None:
    keys = list(KEYS.values())
    for vendor, begins, _, _ in PREFIXES:
        for begin in begins.split():
            assert any(key.startswith(begin) and list(prefixed(key)) for key in keys), (vendor, begin)
    for vendor, hint, _ in FIXED:
        assert any(hint in key for key in (*keys, *CONTEXTS)) or "webhook" in vendor, vendor
    vendors = {name for names, _, _, _ in PREFIXES for name in names.split(", ")} | {row[0] for row in FIXED}
    assert (len(vendors) >= 90, len(KEYS) >= 200, len(CONTEXTS) >= 200, len(HARMLESS) >= 130) == (True,) * 4


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: [redacted]"),
        ("curl -H 'Authorization: Bearer abc.def-123456'", "curl -H 'Authorization: [redacted]'"),
        ("Bearer abcdef123456", "Bearer [redacted]"),
        ("export OPENAI_API_KEY=abcd1234", "export OPENAI_API_KEY=[redacted]"),
        ("password: hunter22", "password: [redacted]"),
        ("postgresql://me:pa55@host/db", "postgresql://[redacted]@host/db"),
        ("redis://:pa55@host/0", "redis://[redacted]@host/0"),
        (f"hf_{'aBcDe' * 7}", "[redacted]"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- b", "a [redacted] b"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl cut off", "[redacted]"),
        ("gh auth login --token abcd1234 --hostname h", "gh auth login --token [redacted] --hostname h"),
        ("f(user='a', password='two words 1', port=5432)", "f(user='a', password='[redacted]', port=5432)"),
        ('{"key": "a", "password": "swordfish"}', '{"key": "a", "password": "[redacted]"}'),
        ("https://h/x?token=abcd1234&page=2", "https://h/x?token=[redacted]&page=2"),
        ("https://h.example/f?sig=aB3dE5gH7&se=2026", "https://h.example/f?sig=[redacted]&se=2026"),
        ("DB_PASS='p@ss, word;1' make", "DB_PASS='[redacted]' make"),
        ("Server=h;Password=hunter2;Port=1", "Server=h;Password=[redacted];Port=1"),
        ("curl -u bob:hunter2 h", "curl -u bob:[redacted] h"),
        ("İİİ İstanbul: PASSWORD=hunter2, then", "İİİ İstanbul: PASSWORD=[redacted], then"),
    ],
)
def test_only_the_secret_is_replaced(given: str, kept: str) -> None:
    assert mask_secrets(given) == kept


@pytest.mark.parametrize(
    ("event", "kept"),
    [
        ({"argv": ["gh", "--token", "swordfish", "x"]}, {"argv": ["gh", "--token", "[redacted]", "x"]}),
        ({"headers": [["X-Api-Key", "swordfish"]]}, {"headers": [["X-Api-Key", "[redacted]"]]}),
        ({"env": [{"name": "DB_PASS", "value": "sword"}]}, {"env": [{"name": "DB_PASS", "value": "[redacted]"}]}),
        ({"username": "bob", "key": "0a1b2c3d" * 4}, {"username": "bob", "key": "[redacted]"}),
        ({"columns": ["user", "password", "email"]}, {"columns": ["user", "password", "email"]}),
        ({"name": "password_field", "value": "x"}, {"name": "password_field", "value": "x"}),
        (
            {"key": "users", "max_tokens": "many", "tokens": ["a"]},
            {"key": "users", "max_tokens": "many", "tokens": ["a"]},
        ),
        ({"dbPass": "sword", "compass": "north"}, {"dbPass": "[redacted]", "compass": "north"}),
    ],
)
def test_a_secret_is_found_by_its_place_in_an_object(event: dict[str, Any], kept: dict[str, Any]) -> None:
    assert redact(event) == kept
    assert redact(event) == event or may_hold_secret(json.dumps(event))


@given(
    st.lists(st.sampled_from([*KEYS.values(), *CONTEXTS, *HARMLESS, "=", ":", "\n", '"', "'", "x"]), max_size=4),
    st.text(max_size=6),
)
def test_the_quick_test_misses_nothing_that_is_masked(parts: list[str], other: str) -> None:
    text = other.join(parts)
    for event in ({"output": text}, {"input": {text: "value"}}):
        if redact(event) != event:
            assert may_hold_secret(json.dumps(event, ensure_ascii=False))


@given(st.text(st.sampled_from("aZ9_.~+/=- \x00\n\x7f\xe9\ud800\U0001f600"), max_size=60))
def test_letters_of_keys_are_found_where_they_stand(text: str) -> None:
    assert list(runs(text)) == [found.span() for found in re.finditer(r"[A-Za-z0-9_.~+/=-]{15,}", text)]


HOSTILE = [
    *(
        "sk-",
        "ghp_-",
        "eyJ-",
        "eyJ.",
        "eyJaaaaaaaa.",
        "letters",
        "A1",
        "token=",
        "bearer ",
        "://a:",
        "://a@b:",
        "password",
        "password='",
    ),
    *(
        "-u a:",
        "key:'",
        "<a",
        "<token>a",
        "1:",
        "x:*:a:b:",
        "\n",
        "a\n",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "QQQQ ",
        "QQQQQQQQ\n",
    ),
    *(
        "mysql ",
        "mysql -p ",
        "sshpass -",
        "set a",
        "set token ",
        "--a-",
        "echo a | ",
        "login a ",
        "\\",
        "'",
        '"',
        "&key=",
        "?key=",
        "a.b",
    ),
    *(
        "Authorization:",
        "cookie=",
        "htpasswd a b ",
        "token is ",
        "password value",
        "('token',",
        "a/b+",
        "$2a$",
        "MAAA",
        "0123456789abcdef",
    ),
    *(
        "token={",
        "token='$",
        "token=a(",
        "password: |\n ",
        "token='a\\",
        'token=\\"a',
        "token: str = ",
        "private key-",
        "api key ",
        "machine a login b ",
        "login ",
        "secret set -",
        "rabbitmqctl add_user ",
        "net use /user:a ",
        "lftp -u a",
        "snmpget -A ",
        "token a1B2c3D4e5F6 ",
        "mysql -p a1 ",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("part", HOSTILE)
def test_the_time_is_linear(part: str) -> None:
    text = part * (150_000 // len(part))
    started = time.process_time()
    may_hold_secret(text)
    mask_secrets(text)
    assert time.process_time() - started < 3


def test_ordinary_text_costs_little() -> None:
    text = "".join(
        f"{n}: drwxr-xr-x 2 ann ann 4096 report-{n}.csv, sold well in the north and in the south\n" for n in range(6)
    )
    assert not may_hold_secret(text)
    times = []
    for _ in range(200):
        started = time.perf_counter_ns()
        mask_secrets(text)
        times.append(time.perf_counter_ns() - started)
    assert sorted(times)[20] < 60_000  # nanoseconds; 12,000 on an idle machine
