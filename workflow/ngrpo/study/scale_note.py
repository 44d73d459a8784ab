"""What a reader must know about a scale whose numbers are no evidence about the paper."""

SCALE_NOTES = {
    "toy": "toy: proves the pipeline, not the paper",
    "smoke": "smoke: proves that real weights and real problems flow, not the paper",
}


def scale_note(scale: str, verdicts: bool) -> str:
    """A scale's note; empty where its numbers count as evidence (`verdicts` in the scale's file)."""
    return "" if verdicts else SCALE_NOTES.get(scale, f"{scale}: its numbers are no evidence about the paper")
