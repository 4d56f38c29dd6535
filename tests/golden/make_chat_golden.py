"""Makes tests/data/chat_golden.json: conversations as Jinja renders them.

    python make_chat_golden.py OUTPUT_FOLDER [FORMAT=TEMPLATE.jinja ...]

The templates are those of chat_templates.py; a published one given as FORMAT=FILE is checked to
render the same text as that format's, and is not written anywhere. Needs jinja2.
"""

import json
import pathlib
import sys

import chat_templates as chat


def texts_of(template, name, messages):
    dated = name in ("llama3.1", "llama3.2")
    texts = []
    for date in DATES if dated else [None]:
        more = {} if date is None else {"date_string": date}
        texts += [chat.render(template, messages, prompt, **more) for prompt in (False, True)]
    if dated:  # the date of a template that is given none
        assert chat.render(template, messages, True) == texts[1], name
    return texts


DATES = ["26 Jul 2024", "01 Jan 2026"]


def main():
    templates = {name: chat.compiled(text) for name, text in chat.SHORT.items()}
    published = [argument.split("=", 1) for argument in sys.argv[2:]]
    golden = {"templates": chat.SHORT, "bos_token": chat.BOS, "dates": DATES, "cases": []}
    for messages in chat.conversations():
        case = {"messages": messages, "rendered": {}}
        for name, template in templates.items():
            case["rendered"][name] = texts_of(template, name, messages)
        for name, path in published:
            template = chat.compiled(pathlib.Path(path).read_text())
            assert texts_of(template, name, messages) == case["rendered"][name], (name, path, messages)
        golden["cases"].append(case)
    path = pathlib.Path(sys.argv[1]) / "chat_golden.json"
    path.write_text(json.dumps(golden, indent=1) + "\n")
    print(path, path.stat().st_size, "bytes;", len(golden["cases"]), "conversations; checked:", published)


if __name__ == "__main__":
    main()
