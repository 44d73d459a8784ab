"""Systems that answered alike, sample by sample: one policy under several names, whatever their rows say.

So it went with a control whose ingredient had no weight: its policy was another control's to the last bit, and both
rows looked fine.
"""

from ngrpo.claims.evidence import Reader, digest_of
from ngrpo.study.specs import RunSpec

MIXED = 10
"""Problems with right and with wrong samples from which on grades that are all the same can't be chance."""


def alike(reader: Reader) -> list[str]:
    """A sentence for each group of evaluations whose samples have the same grades, one by one.

    Of runs that learned nothing the page says so already: their policy is the base model's.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for name, spec in reader.study.evaluations.items():
        trained = spec.policy if isinstance(spec.policy, RunSpec) else None
        if reader.grades(name).frame is None or (trained and reader.run(trained.id).learned_nothing):
            continue
        right = reader.right(name)
        share = right.mean(axis=1)
        if ((share > 0) & (share < 1)).sum() >= MIXED:
            groups.setdefault((spec.benchmark.id, digest_of(right.to_numpy())), []).append(name)
    return [
        f"Evaluations {', '.join(names[:-1])} and {names[-1]}: each of {reader.right(names[0]).size:,} samples has the"
        " same grade in all of them. They are one policy under several names, and no difference between them says"
        " anything."
        for names in groups.values()
        if len(names) > 1
    ]
