"""Captions for the tokenizer case: ordinary ones by template, and every oddity of text worth a line."""

SUBJECTS = ["boat", "lighthouse", "tree", "sun over the sea", "moon", "mountain", "flower", "bird", "fish", "tower"]
COLORS = ["red", "orange", "yellow", "green", "turquoise", "blue", "violet", "black-and-white"]
SETTINGS = ["by day", "at dusk", "at night", "in the rain"]
STYLES = ["flat colours", "ink hatching", "a mosaic"]

ODD = [
    "",
    " ",
    "\t\n  \r\n",
    "a",
    "A",
    "  a   photo\tof\n\na   cat  ",
    "a photo of a cat",
    "inkwsh style, a red lighthouse on a cliff at dusk",
    "Ein Bär, 3 Äpfel & café!!",
    "Ein Ba\u0308r, 3 A\u0308pfel & cafe\u0301!!",
    "!",
    "!!",
    "!!!",
    "hello! world",
    "hello!world ! again!",
    "wow!!! such postcard!?!",
    "it's the bird's nest, we're sure, I'll say, they've gone, I'd go, I'm here, don't",
    "IT'S THE BIRD'S NEST, WE'RE SURE, I'LL SAY",
    "it\u2019s a typographic apostrophe",
    "'s 't 're 've 'm 'll 'd",
    "rock'n'roll 'quoted' \"double\" `tick`",
    "year 2024, 007, 3.14, 1,000,000 and 10^9",
    "½ ² Ⅳ ٣ 五",
    "(brackets:1.2), [square], {curly}, <angle>",
    "under_score, kebab-case, camelCase, C++ / C#, a\\b",
    "e-mail: someone@example.org?x=1&y=2#z",
    "...", ". . .", "--", "—", "… — – - ‐", "?!", "a,b;c:d",
    "<|startoftext|>",
    "<|endoftext|>",
    "a <|endoftext|> b",
    "a<|endoftext|>b<|startoftext|>c",
    "<|ENDOFTEXT|>",
    "<|endoftext",
    "</w>",
    "word</w> word",
    "日本の葉書、赤い灯台",
    "Почтовая открытка с маяком",
    "Ελληνική κάρτα ΟΔΥΣΣΕΥΣ",
    "بطاقة بريدية",
    "גלויה עם מגדלור",
    "ไปรษณียบัตร",
    "हिन्दी पोस्टकार्ड",
    "İstanbul ısparta STRASSE straße ẞ",
    "ﬁsh ﬂower Å Å Ω Ω",
    "🌙 moon emoji 🏔️ and 👩‍👩‍👧 family 🇫🇷",
    "zero\u200bwidth and no\u00a0break and soft\u00adhyphen",
    "thin\u2009space\u3000ideographic\u2028line\u0085next",
    "\ufeffbyte order mark",
    "control \x01 \x7f bytes",
    "null \x00 byte",
    "combining a\u0301\u0323 z\u0335 stack",
    "𝔊𝔬𝔱𝔥𝔦𝔠 𝟙𝟚𝟛 letters",
    "supercalifragilisticexpialidocious",
    "xqzjvkw",
    "a " * 80,
    "a red boat, " * 30,
    "!" * 120,
    "lighthouse" * 20,
    "é" * 100,
    "a " * 75,
    "a " * 74,
    "a " * 76,
]


def all_captions():
    """Ordinary captions first, then the odd ones; at least 200, no duplicates."""
    made = []
    for i, subject in enumerate(SUBJECTS):
        for j, color in enumerate(COLORS):
            setting, style = SETTINGS[(i + j) % 4], STYLES[(i + 2 * j) % 3]
            made.append(f"a {color} {subject} {setting}, {style}")
            if (i + j) % 2 == 0:
                made.append(f"a postcard of a {color} {subject}")
    made += [f"a picture {setting}" for setting in SETTINGS] + ["a postcard", "A Postcard", "postcard of sks cylinder"]
    made += [f"the {a} and the {b}, drawn in {s}" for a, b, s in zip(SUBJECTS, SUBJECTS[1:], STYLES * 4)]
    captions = list(dict.fromkeys(made + ODD))
    assert len(captions) >= 200, len(captions)
    return captions
