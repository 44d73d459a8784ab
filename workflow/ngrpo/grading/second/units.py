"""Units of measure and money: a word for a quantity as what it measures, and its factor to a common unit."""

import re
from fractions import Fraction

from ngrpo.grading.second.evaluation import CONTEXT, Value, inexact

_TABLE: dict[str, list[tuple[str, str]]] = {
    "length": [("mm millimeter", "1/1000"), ("cm centimeter", "1/100"), ("dm decimeter", "1/10"),
               ("m meter", "1"), ("km kilometer", "1000"), ("inch inches in", "127/5000"),
               ("ft foot feet", "381/1250"), ("yd yard", "1143/1250"), ("mi mile", "201168/125")],
    "mass": [("mg milligram", "1/1000000"), ("g gram", "1/1000"), ("kg kilogram", "1"), 
             ("lb lbs pound", "45359237/100000000"), ("oz ounce", "45359237/1600000000")],
    "time": [("ms millisecond", "1/1000"), ("s sec second", "1"), ("min minute", "60"), ("h hr hour", "3600"),
             ("day", "86400"), ("week", "604800"), ("month", "2629746"), ("year yr", "31556952")],
    "volume": [("ml mL milliliter", "1/1000"), ("l L liter", "1")],
    "dollar": [("dollar USD usd", "1"), ("cent", "1/100")],
    "euro": [("euro EUR eur", "1")],
    "pound sterling": [("GBP gbp sterling", "1")],
    "force": [("N newton", "1")], "energy": [("J joule", "1"), ("kJ", "1000")], "power": [("W watt", "1")],
    "voltage": [("V volt", "1")], "pressure": [("Pa pascal", "1")], "frequency": [("Hz hertz", "1")],
}  # fmt: skip
_UNITS = {
    word: (dimension, Fraction(factor))
    for dimension, rows in _TABLE.items()
    for words, factor in rows
    for word in words.split()
}
PERCENT = ("percent", Fraction(1, 100))
ANGLE = ("angle", None)
_SPECIAL = {
    **dict.fromkeys(("percent", "percents", "pct", "percentage", "%"), PERCENT),
    **dict.fromkeys(("degree", "degrees", "deg", "^\\circ", "^{\\circ}"), ANGLE),
}
_WORD = re.compile(r"([A-Za-z]+)(?:\s*\^\s*\{?(-?\d)\}?)?")

Unit = tuple[str, Fraction | None]
"""What is measured, and the factor to its common unit; None: π/180."""


def unit_of(words: str) -> Unit | None:
    """The unit that words name, as "cm^2", "km/h", "square meters", "dollars"; None for other words."""
    text = words.strip(" .{}").replace(r"\dollar", "dollar").replace(r"\euro", "euro").replace(r"\pound", "sterling")
    if text.lower().replace(" ", "") in _SPECIAL:
        return _SPECIAL[text.lower().replace(" ", "")]
    text = re.sub(r"\bper\b", "/", text).replace("squared", "^2").replace("cubed", "^3")
    power, total, sign = 1, Fraction(1), 1
    powers: dict[str, int] = {}
    for piece in re.findall(r"[A-Za-z]+\s*(?:\^\s*\{?-?\d\}?)?|/|\S", text):
        if piece == "/":
            sign = -1
        elif piece in ("square", "sq", "cubic"):
            power = 3 if piece == "cubic" else 2
        elif matched := _WORD.fullmatch(piece.strip()):
            known = _known(matched[1])
            if known is None:
                return None
            exponent = sign * power * int(matched[2] or 1)
            powers[known[0]] = powers.get(known[0], 0) + exponent
            total *= known[1] ** exponent
            power = 1
        elif piece not in ("*", "{", "}", "(", ")"):
            return None
    if not powers:
        return None
    return " ".join(f"{name}^{n}" for name, n in sorted(powers.items()) if n), total


def _known(word: str) -> tuple[str, Fraction] | None:
    word = re.sub(r"(?<=met|lit)re(?=s?$)", "er", word)  # British spellings
    for form in (word, word.lower(), word.lower().removesuffix("s"), word.lower().removesuffix("es")):
        if form in _UNITS and (len(word) > 1 or form == word):
            return _UNITS[form]
    return None


def in_common_unit(value: Value, unit: Unit) -> Value:
    """A quantity's value in its common unit."""
    factor = unit[1]
    if factor is None:
        return CONTEXT.pi / 180 * inexact(value)
    if isinstance(value, Fraction):
        return value * factor
    return value * factor.numerator / factor.denominator
