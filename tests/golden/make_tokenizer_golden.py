"""Makes tests/data/tokenizer_{strings,smollm2,llama3}.json: strings, and the ids that the reference
implementations give for them.

    python make_tokenizer_golden.py SMOLLM2.gguf LLAMA3_TOKENIZER.model OUTPUT_FOLDER

SmolLM2: Hugging Face tokenizers, built from the GGUF file's vocabulary and merges (Digits, then
ByteLevel). Llama 3: tiktoken with the published pattern. Neither parses special tokens.
Needs gguf, tokenizers, tiktoken, and a Python whose unicodedata is Unicode 14: code points newer
than that are left out, because PCRE2 10.42 does not know them.
"""

import base64
import json
import pathlib
import random
import sys
import unicodedata

import gguf
import tiktoken
import tokenizers

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
NEARLY_WHITE = "\u180e\u200b\u200c\u200d\u2060\ufeff\x1c\x1d\x1e\x1f"

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Việt Nam, Ελλάδα, Россия, საქართველო, Հայաստան.",
    "في البداية خلق الله السماوات والأرض. שלום עולם!",
    "मेरा नाम राज है। ภาษาไทย ကမ္ဘာ ଓଡ଼ିଆ தமிழ் తెలుగు",
    "今日は世界！你好，世界。안녕하세요 세계. 𠮷野家で𩸽を食べる",
    "naïve café résumé, nai\u0308ve cafe\u0301 re\u0301sume\u0301",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️ 1️⃣ ☎︎ 🧑🏿‍🚀",
    "a\u202eright to left\u202c b \u2067isolate\u2069 \u200f\u200e",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘",
    "def f(x, *args, **kw):\n\tif x != 0x7F:\r\n        return {'a': [1, 2.5e-3]}  # done\n\n\n",
    "#include <vector>\nint main() { std::vector<int> v{1,2,3}; return v[0]<<2 ^ ~v[1]; }",
    "SELECT * FROM `t` WHERE a >= 10 AND b LIKE '%x_y%' -- comment",
    "<div class=\"a\" onclick='b()'>&nbsp;&lt;</div><!-- x -->",
    "https://user:pw@example.org:8080/p/a/t/h?query=string&x=%20#hash",
    "E = mc², ∑_{i=0}^{n} xᵢ ≤ ½ · ∞; ℵ₀ ⊂ ℝ, 3¾ + Ⅷ = ①②③ ٣٤٥ १२३ 𝟘𝟙𝟚",
    "1234567890 1,234,567.89 0000 12 123 1234 12345 123456 3.14159265358979",
    "\\n is not a newline; \\\\ neither\0 but NUL is\x01\x02\x04\x06\x13\x14\x16\x1d\x7f",
    "AaBbCcDd ÀàÉé ŁłŃń Œœǅǈǋǲʰʱªº ﬁﬂﬅﬆ ẞß İıKÅ",
    "----====____....,,,,;;;;::::!!!!????\n''''\"\"\"\"((([[[{{{}}}]]])))",
    "``fancy'' “quotes” ‘single’ «guillemets» „low“ ‚x‘ …—–-‐‑",
]
SPECIALS = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>user<|end_header_id|>",
    "<|im_start|>system\nhi<|im_end|>\n", "<|endoftext|>", "<|python_tag|>", "<|eom_id|>",
    "<|reserved_special_token_17|>", "<repo_name>", "<|im_start", "|im_end|>", "< |im_end|>",
    "<|IM_END|>", "<<|im_end|>>", "<|eot_id|><|eot_id|>", "<file_sep>", "<jupyter_code>",
]


def make_strings():
    """Deterministic. Every string is valid UTF-8."""
    rng = random.Random(20240726)
    by_category = {}
    for code in range(0x110000):
        category = unicodedata.category(chr(code))
        if category not in ("Cs", "Cn"):
            by_category.setdefault(category, []).append(code)
    strings = ["", *SENTENCES, *SPECIALS]
    # Contractions: all cases, with what folds to ASCII letters, in several surroundings.
    for tail in ["s", "t", "re", "ve", "m", "ll", "d", "ſ", "S", "T", "RE", "Re", "rE", "VE", "vE", "M",
                 "LL", "lL", "D", "sx", "tS", "rſ", "x", "ss", "lll", "é", "\u0301s", "1", " s"]:
        for text in (f"'{tail}", f"I'{tail}", f"I '{tail} b", f"x’{tail}", f"9'{tail}9", f"\n'{tail}\n"):
            strings.append(text)
    # Runs of digits, letters, symbols and white space around the sizes where tokens end.
    for n in (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 200):
        for unit in ("a", "A", "7", " ", "\n", "\t", "-", "=", "é", "中", "😀", "\u0301", "\r\n", " \n", "ab"):
            strings.append(unit * n)
            if n <= 33:
                strings.append(f"x{unit * n}y")
    # Mixtures of white space and what looks like it.
    for _ in range(220):
        n = rng.choice([1, 2, 3, 4, 6, 9, 14])
        mix = "".join(rng.choice(WHITE[:6] * 4 + WHITE + NEARLY_WHITE) for _ in range(n))
        strings.append(mix)
        strings.append(rng.choice("ax1.é中") + mix + rng.choice("bx2!é中"))
    # One and several characters of every category, alone and inside words.
    for category in sorted(by_category):
        codes = by_category[category]
        for _ in range(9):
            some = "".join(chr(rng.choice(codes)) for _ in range(rng.choice([1, 2, 5])))
            strings += [some, f"ab{some}cd 12{some}34"]
    # First and last characters of each encoded length, and neighbours of surrogates.
    edges = [0x00, 0x01, 0x7F, 0x80, 0x7FF, 0x800, 0xFFF, 0x1000, 0xCFFF, 0xD000, 0xD7FF, 0xE000,
             0xFFFD, 0xFFFE, 0xFFFF, 0x10000, 0x3FFFF, 0x40000, 0x7FFFF, 0x80000, 0xFFFFF, 0x100000,
             0x10FFFF]
    for code in edges:
        strings += [chr(code), chr(code) * 2, f"a{chr(code)}b"]
    # Soup of assigned code points, of code blocks, and of pieces of sentences.
    categories = sorted(by_category)
    for _ in range(220):
        soup = (chr(rng.choice(by_category[rng.choice(categories)])) for _ in range(rng.randint(2, 20)))
        strings.append("".join(soup))
    for _ in range(220):
        text = rng.choice(SENTENCES)
        a = rng.randrange(len(text))
        b = rng.choice(SENTENCES + SPECIALS)
        c = rng.randrange(len(b))
        strings.append(text[a : a + rng.randint(1, 12)] + b[c : c + rng.randint(1, 12)])
    for _ in range(120):
        strings.append("".join(chr(rng.choice(b" \n\t'aesStTrRlLdDmM09.,-(){}<|>_")) for _ in range(rng.randint(3, 24))))
    return list(dict.fromkeys(strings))


def smollm2_encoder(path):
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    model = tokenizers.models.BPE({t: i for i, t in enumerate(tokens)}, merges)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def llama3_encoder(path):
    ranks = {}
    for line in pathlib.Path(path).read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    encoding = tiktoken.Encoding("llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens={})
    return encoding.encode_ordinary


def main():
    smollm2, llama3, output = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"unicodedata is {unicodedata.unidata_version}, not 14.0.0")
    strings = make_strings()
    print(len(strings), "strings")

    def write(name, value):
        text = json.dumps(value, ensure_ascii=True, separators=(",", ":")).replace('],[', '],\n[')
        (output / name).write_text(text + "\n")
        print(name, len(text))

    text = "[" + ",\n".join(json.dumps(s, ensure_ascii=True) for s in strings) + "]\n"
    (output / "tokenizer_strings.json").write_text(text)
    print("tokenizer_strings.json", len(text))
    write(
        "tokenizer_smollm2.json",
        {"made_by": f"tokenizers {tokenizers.__version__}", "ids": encode_all(smollm2_encoder(smollm2), strings)},
    )
    write(
        "tokenizer_llama3.json",
        {"made_by": f"tiktoken {tiktoken.__version__}", "ids": encode_all(llama3_encoder(llama3), strings)},
    )


def encode_all(encode, strings):
    return [list(encode(s)) for s in strings]


if __name__ == "__main__":
    main()
