"""How answers are written beside plain LaTeX: colors, signs that end a proof, programs' spelling, residues, remarks."""

import re

_COLORED = re.compile(r"\\(?:textcolor|color)\s{0,4}\{[^{}]{0,40}\}")
_ENDS = re.compile(r"\\(?:blacksquare|square|Box|qed|checkmark)(?![A-Za-z])")
_CHOOSE = re.compile(r"\{([^{}\\]{1,80})\\choose\b([^{}\\]{1,80})\}")
_ROOT = re.compile(r"(?<![A-Za-z\\])sqrt\s{0,4}(?=\()")
_PI = re.compile(r"(?<![A-Za-z\\{])pi(?![A-Za-z])")
_REPEATING = re.compile(r"\s*(-?\d{1,40}\.\d{0,40})\((\d{1,40})\)\s*")
_RESIDUE = re.compile(r"\(?\s{0,4}\\(?:pmod|mod|bmod)\s{0,4}(?:\{\s{0,4}(\d{1,20})\s{0,4}\}|(\d{1,20}))\s{0,4}\)?\s*$")
_REMARK = re.compile(
    r"\s{0,4}\(\s{0,4}\\text\{\s{0,4}(?:since|because|as|where|for|if|when)\b[^{}]{0,200}\}[^()]{0,200}\)\s*$"
)
_TO = re.compile(r"^\s*(\d{1,20})\s*(?:\\text\{\s*to\s*\}|to)\s*(\d{1,20})\s*$")
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
          "sixteen": 16}  # fmt: skip
_BASE = re.compile(rf"(?<=[0-9A-F])_\{{\s{{0,4}}({'|'.join(_BASES)})\s{{0,4}}\}}\s*$")


def without_habits(text: str) -> str:
    """An answer without what only decorates it, with programs' names as LaTeX's."""
    text = _ENDS.sub(" ", _COLORED.sub(" ", text))
    text = text.replace("\N{FRACTION SLASH}", "/").replace("\N{DIVISION SLASH}", "/").replace("**", "^")
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    text = _PI.sub(r"\\pi ", _ROOT.sub(r"\\sqrt", text))
    text = _REMARK.sub(" ", text.replace(r"\text{ mod }", r"\bmod "))
    text = _TO.sub(r"\1:\2", text)
    text = _RESIDUE.sub(lambda m: rf" \bmod {m[1] or m[2]}", text)
    text = _BASE.sub(lambda m: f"_{{{_BASES[m[1]]}}}", text)
    repeating = _REPEATING.fullmatch(text)
    return rf"{repeating[1]}\overline{{{repeating[2]}}}" if repeating else text
