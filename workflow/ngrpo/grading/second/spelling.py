r"""One spelling for each sign of an answer: Unicode, spaces, sizes and styles of LaTeX, thousands separators.

Text in an answer (`\text{…}` and its kin) becomes `«…»`, so that later steps see words apart from letters that
multiply.
"""

import re
import unicodedata

from ngrpo.grading.second.habits import without_habits
from ngrpo.grading.second.units import unit_of

_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "∙": r"\cdot ",
    "÷": r"\div ", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "±": r"\pm ", "∓": r"\mp ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ",
    "∖": r"\setminus ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ", "φ": r"\phi ",
    "ω": r"\omega ", "μ": r"\mu ", "σ": r"\sigma ", "δ": r"\delta ", "ε": r"\epsilon ", "Δ": r"\Delta ",
    "Ω": r"\Omega ",
    "°": r"^\circ ", "∘": r"\circ ", "√": r"\sqrt ", "…": r"\ldots ", "→": r"\to ", "∨": r"\lor ", "∧": r"\land ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "⟨": r"\langle ", "⟩": r"\rangle ",
    "€": r"\euro ", "£": r"\pound ", "“": '"', "”": '"', "’": "'", "′": "'", "∶": ":",
}  # fmt: skip
_FRACTIONS = {"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5),
              "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8)}  # fmt: skip
_RAISED = {c: str(unicodedata.digit(c)) for c in "⁰¹²³⁴⁵⁶⁷⁸⁹"} | {"⁻": "-", "⁺": "+", "ⁿ": "n"}
_LOWERED = {c: str(unicodedata.digit(c)) for c in "₀₁₂₃₄₅₆₇₈₉"}

_SYNONYMS = {
    "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "dfrac": "frac", "tfrac": "frac",
    "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "varnothing": "emptyset", "land": "land", "wedge": "land",
    "vee": "lor", "lvert": "vert", "rvert": "vert", "mid": "vert", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots",
    "dotsb": "ldots", "varphi": "phi", "varepsilon": "epsilon", "bar": "overline", "lbrace": "{", "rbrace": "}",
    "lbrack": "[", "rbrack": "]", "ast": "cdot", "bullet": "cdot", "approx": "approx", "simeq": "approx",
    "cong": "approx", "backslash": "setminus", "smallsetminus": "setminus", "rightarrow": "to", "R": "mathbb{R}",
    "Z": "mathbb{Z}", "N": "mathbb{N}", "reals": "mathbb{R}", "colon": "colon", "lt": "lt", "gt": "gt", "log": "log",
    "arcsin": "arcsin", "degree": "circ", "textdegree": "circ", "vdots": "ldots", "choose": "choose",
    "overrightarrow": "vec",
}  # fmt: skip
_SPELLED_OUT = {"lt": "<", "gt": ">", "colon": ":", "vert": "|", "{": r"\{", "}": r"\}", "[": "[", "]": "]"}
_WITHOUT_MEANING = (
    "displaystyle", "textstyle", "scriptstyle", "left", "right", "bigl", "bigr", "Bigl", "Bigr", "biggl",
    "biggr", "Biggl", "Biggr", "big", "Big", "bigg", "Bigg", "limits", "nolimits", "quad", "qquad", "thinspace",
    "medspace", "enspace", "hfill", "bf", "rm", "it",
    "sf", "tt", "tiny", "small", "normalsize", "large", "Large", "huge", "Huge",
    "mathstrut", "middle", "nonumber", "notag",
)  # fmt: skip
_STYLES = r"mathrm|mathbf|boldsymbol|bm|mathit|mathsf|mathcal|mathnormal|underline|operatorname\*?|emph|hbox|boxed|fbox"
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textsf|mbox|textnormal)\s{0,4}\{([^{}]{0,400})\}")
_STYLED = re.compile(rf"\\(?:{_STYLES})\s{{0,4}}\{{([^{{}}]{{0,400}})\}}")
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_SPACES = re.compile(r"\\[,;:! ]|~|\\(?=\s)|[\s\u200b-\u200f\u2060\ufeff]+")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{(?:aligned|align\*?|gathered|gather\*?|equation\*?|split|center)\}")
_JOINED = re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\,)\s{0,2}(?=\d{3}(?!\d))")
_ESCAPED_TWICE = re.compile(
    r"(?<!\\)\\\\(?=(?:left|right|d?frac|sqrt|text|pi|begin|end|times|cdot|infty|cup)(?![A-Za-z]))"
)
_SPACED = re.compile(r"(?<![\d.,/^_}])(\d{1,3})((?:[ ]\d{3})+)(?![\d/])")
_EXPONENT = re.compile(r"(?<![A-Za-z\\\d.])(\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})[eE]([+-]?\d{1,9})(?![\d.A-Za-z])")
_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_MAGNITUDES = {"thousand": "1000", "million": "1000000", "billion": "1000000000", "trillion": "1000000000000"}
NEW_ROW = "\N{RETURN SYMBOL}"
"""Stands for a double backslash, the end of a matrix's row."""
_LEADING_WORDS = re.compile(
    r"^\s*(?:«[^»]{0,60}?(?:answer|result|value|solution)s?(?:\s+(?:is|are))?\s*[:=]?\s*»(?=\s*[^\s.,!])|"
    r"(?i:(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*[:=]?)\s)\s*"
)


def spelled(text: str) -> str:
    """An answer in one spelling; words as `«words»`, set braces as `\\{ \\}`, a number's digits without separators."""
    text = without_habits(_ESCAPED_TWICE.sub(r"\\", text)).replace("\\\\", NEW_ROW)
    for old, new in (("\\$", "\\dollar "), ("$", " "), (r"\(", " "), (r"\)", " "), (r"\[", " "), (r"\]", " ")):
        text = text.replace(old, new)
    text = _plain_signs(text).replace("...", r"\ldots ")
    text = _JOINED.sub("", text)
    text = _ENVIRONMENT.sub(" ", text).replace(r"\%", "%")
    text = _COMMAND.sub(_one_name, text)
    for _ in range(4):  # nested styles, innermost first
        text = _TEXT.sub(_as_words, text)
        text = _STYLED.sub(_as_styled, text)
    text = _SPACES.sub(" ", text).strip()
    text = _SPACED.sub(lambda m: m[1] + m[2].replace(" ", ""), text)
    text = _EXPONENT.sub(r"(\1\\cdot 10^{\2})", text)
    text = _LEADING_WORDS.sub("", text)
    return re.sub(r"(?<=[\w}»)\]%|!])\s*[.,;]+\s*$", "", text).strip()


def _plain_signs(text: str) -> str:
    """Unicode signs as LaTeX, raised digits as exponents, digits of any script as ASCII, invisible characters gone."""
    parts: list[str] = []
    for c in text:
        previous = parts[-1] if parts else ""
        if c.isascii():
            parts.append(c)
        elif c in _SIGNS:
            parts.append(_SIGNS[c])
        elif c in _FRACTIONS:
            parts.append(r"\frac{{{}}}{{{}}}".format(*_FRACTIONS[c]))
        elif c in _RAISED or c in _LOWERED:
            mark, digit = ("^", _RAISED[c]) if c in _RAISED else ("_", _LOWERED[c])
            if previous.startswith(mark + "{"):
                parts[-1] = previous[:-1] + digit + "}"
            else:
                parts.append(mark + "{" + digit + "}")
        elif unicodedata.category(c) in ("Cf", "Cc", "Cs"):
            continue
        else:
            parts.append(unicodedata.normalize("NFKC", c))
    return "".join(parts)


def _one_name(command: re.Match[str]) -> str:
    name = command[1]
    if name in _WITHOUT_MEANING:
        return " "
    name = _SYNONYMS.get(name, name)
    return _SPELLED_OUT.get(name, "\\" + name)


def _as_words(match: re.Match[str]) -> str:
    """Text that is a number, a letter or a formula is what it says; the rest becomes words."""
    inner = _SPACES.sub(" ", match[1].replace("«", "").replace("»", "")).strip()
    after_number = re.search(r"[\d})]\s*$", match.string[: match.start()]) and re.fullmatch(r"[A-Za-z/^\d ]+", inner)
    if not after_number and not re.search(r"[A-Za-z]{2}", re.sub(r"\\[A-Za-z]+", "", inner)):
        return f" {inner} " if len(inner) != 1 else inner
    return f"«{inner}»"


def _as_styled(match: re.Match[str]) -> str:
    inner = match[1]
    if match[0].startswith((r"\mathrm", r"\operatorname")) and re.search(r"[A-Za-z]{2}", inner) and "\\" not in inner:
        return _as_words(match)
    if match[0].startswith(r"\mathrm") and re.search(r"\d[\s~\\,]*$", match.string[: match.start()]) and unit_of(inner):
        return f"«{inner}»"
    return f"{{{inner}}}"


def magnitude(word: str) -> str | None:
    """A factor that is written as a word: "million" is 1000000."""
    return _MAGNITUDES.get(word.lower())


def number_word(word: str) -> int | None:
    """A small number that is written as a word."""
    tens, _, ones = word.lower().replace(" ", "-").partition("-")
    if tens in _NUMBERS and not ones:
        return _NUMBERS.index(tens)
    if tens in _TENS and (not ones or ones in _NUMBERS[1:10]):
        return 10 * (_TENS.index(tens) + 2) + (_NUMBERS.index(ones) if ones else 0)
    return None


def squeezed(text: str) -> str:
    """An answer without spaces and braces, for names and for what no parser reads: equal strings are equal answers."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)|[{}«»]", "", text).rstrip(".")
