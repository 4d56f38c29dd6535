"""Makes tests/data/chat_mutants.json: chat templates with one place changed, and what Jinja makes of
them.

    python make_chat_mutants.py OUTPUT_FOLDER

A mutant is [base, offset, length, text]: that many characters of templates[base] become `text`. Its
digest is FNV-1a (64 bits) over all renderings of chat_golden.json's conversations, each followed by
a zero byte: for each conversation, each prompt and each date (null: none is given), "\\1" where Jinja
fails. Needs jinja2.
"""

import json
import pathlib
import random
import re
import sys

import chat_templates as chat

DATES = [None, "01 Jan 2026"]
TOKEN = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\w+|[{}%#]{2}|[=!<>]=|\S", re.S)
TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.S)
SWAPS = {
    "==": "!=", "!=": "==", "+": "~", "~": "+", "and": "or", "or": "and", "first": "last", "index0": "index",
    "role": "content", "content": "role", "trim": "upper", "system": "user", "not": "", "if": "for", "true": "false",
    "none": "true", "messages": "messages[-2:]", "message": "messages[-1]", "is": "is not", "in": "not in",
    "bos_token": "eos_token", "0": "1", "1": "0", "defined": "none", "add_generation_prompt": "true", "elif": "else",
    "else": "endif", "endfor": "endif", "raise_exception": "strftime_now",
}
INSERTIONS = [
    "x", " ", "\n", "{{ 'x' }}", "{% set messages = messages[1:] %}", "{% set messages = messages[-2:] %}",
    "{# nothing #}", "{{ bos_token }}", "{{ '<|im_start|>user\\nfixed<|im_end|>\\n' }}", "{{ messages | length }}",
    "{% if loop.last %}x{% endif %}", "{% if messages | length > 2 %}x{% endif %}", "{% if not messages %}x{% endif %}",
    "{% if 'x' in messages[0].content %}x{% endif %}", "{{ eos_token }}", "{% raw %}{% endraw %}",
    "{%- if false %}x{% endif -%}", "{% if tools %}x{% endif %}", "{{ '' if true else 'x' }}", "{{ none }}",
    "{% set message = messages[0] %}", "{% set ns = namespace(x=1) %}", "{% macro f() %}x{% endmacro %}",
]
# The kinds of the report that led here, and their like.
NAMED = [
    ("{% for", "{{ '<|im_start|>system\\nA fixed turn.<|im_end|>\\n' }}{% for"),
    ("in messages", "in messages[-2:]"), ("in messages", "in messages[1:]"), ("in messages", "in messages | reverse"),
    ("message.content", "(message.content | trim if message.role == 'assistant' else message.content)"),
    ("message['content'] | trim", "message['content']"), ("message.content", "message.content.strip()"),
    ("message.content", "message.content.rstrip()"), ("message.content", "message.content | upper"),
    ("message.content", "message.content[:20]"), ("message.content", "(message.content or 'nothing')"),
    ("message.content", "message.content | replace('a', 'b')"), ("message.role", "message.role | upper"),
    ("message.role", "('user' if message.role == 'system' else message.role)"),
    ("assistant\\n'", "assistant\\nSure: '"), ("assistant<|end_header_id|>\\n\\n'", "assistant<|end_header_id|>\\n\\nSure: '"),
    ("' }}{% endif %}", "' }}{{ 'Sure: ' }}{% endif %}"), ("if add_generation_prompt", "if not add_generation_prompt"),
    ("if add_generation_prompt", "if add_generation_prompt and messages[-1].role == 'user'"),
    ("<|im_end|>\\n' }}{% endfor", "<|im_end|>' }}{% endfor"), ("<|im_end|>\\n' }}{% endfor", "' + eos_token + '\\n' }}{% endfor"),
    ("{% endfor %}", "{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"),
    ("{% endfor %}", "{% if loop.index == 3 %}{{ 'third' }}{% endif %}{% endfor %}"),
    ("{% endfor %}", "{% if loop.index0 % 2 == 1 %}{{ 'odd' }}{% endif %}{% endfor %}"),
    ("{% for message in messages %}", "{% for message in messages %}{% if message.role != 'system' %}"),
    ("{% endfor %}", "{% endfor %}{% for message in messages %}{% endfor %}"),
    ("messages[0]['role'] != 'system'", "messages[0]['role'] == 'user'"),
    ("26 Jul 2024", "26 July 2024"), ("%d %b %Y", "%d %B %Y"), ("December 2023", "June 2024"),
]


def digest(texts):
    value = 0xCBF29CE484222325
    for byte in b"".join(text.encode() + b"\0" for text in texts):
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def outcome(text, conversations):
    try:
        template = chat.compiled(text)
    except Exception:
        template = None
    texts = []
    for messages in conversations:
        for prompt in (False, True):
            for date in DATES:
                more = {} if date is None else {"date_string": date}
                try:
                    texts.append(chat.render(template, messages, prompt, **more))
                except Exception:
                    texts.append("\1")
    return digest(texts)


def edits(text, random):
    """Every kind of change at every place, as (kind, offset, length, replacement)."""
    tokens = [m.span() for m in TOKEN.finditer(text)]
    tags = [m.span() for m in TAG.finditer(text)]
    for i, (a, b) in enumerate(tokens):
        token = text[a:b]
        yield "delete", a, b - a, ""
        yield "double", b, 0, " " + token
        if i + 1 < len(tokens):
            c, d = tokens[i + 1]
            yield "swap", a, d - a, text[c:d] + text[b:c] + token
        if token in SWAPS:
            yield "other", a, b - a, SWAPS[token]
        if token[0] in "'\"" and len(token) > 2:
            at = random.randrange(a + 1, b - 1)
            yield "literal", at, 1, ""
            yield "literal", at, 0, random.choice(["x", " ", "\\n", "\n", "\\x41", "\\u00e4", "\\\\"])
            yield "literal", a + 1, b - a - 2, ""
        if token in ("{{", "{%"):
            yield "sign", b, text[b] in "-+", random.choice([s for s in ("-", "+", "") if s != text[b]])
        if token in ("}}", "%}"):
            yield "sign", a - (text[a - 1] in "-+"), text[a - 1] in "-+", random.choice(["-", "+", " "])
    for i, (a, b) in enumerate(tags):
        yield "delete tag", a, b - a, ""
        yield "double tag", b, 0, text[a:b]
        if i + 1 < len(tags):
            c, d = tags[i + 1]
            yield "swap tags", a, d - a, text[c:d] + text[b:c] + text[a:b]
        for insertion in INSERTIONS:
            yield "insert", random.choice([a, b]), 0, insertion
    yield "insert", len(text), 0, random.choice(INSERTIONS)


def main():
    rng = random.Random(13)
    conversations = list(chat.conversations())
    bases = list(chat.SHORT.items()) + chat.LONG
    mutants, seen = [], {text for _, text in bases}

    def add(base, offset, length, text):
        whole = bases[base][1]
        changed = whole[:offset] + text + whole[offset + length:]
        if changed in seen:
            return 0
        seen.add(changed)
        mutants.append([base, offset, int(length), text, outcome(changed, conversations)])
        return 1

    for base, (_, whole) in enumerate(bases):
        for old, new in NAMED:
            if old in whole:
                add(base, whole.index(old), len(old), new)
        kinds = {}
        for kind, *edit in edits(whole, rng):
            kinds.setdefault(kind, []).append(edit)
        for kind, places in sorted(kinds.items()):
            rng.shuffle(places)
            wanted = 25 if kind == "insert" else 9
            for edit in places:
                if wanted == 0:
                    break
                wanted -= add(base, *edit)
    golden = {
        "templates": [[name, text, outcome(text, conversations)] for name, text in bases],
        "dates": DATES,
        "mutants": mutants,
    }
    path = pathlib.Path(sys.argv[1]) / "chat_mutants.json"
    body = json.dumps({**golden, "mutants": []})[:-2]
    path.write_text(body + "\n" + ",\n".join(json.dumps(m) for m in mutants) + "\n]}\n")
    json.loads(path.read_text())
    same = sum(m[4] == golden["templates"][m[0]][2] for m in mutants)
    print(path, path.stat().st_size, "bytes;", len(mutants), "mutants, of which", same, "render as before")


if __name__ == "__main__":
    main()
