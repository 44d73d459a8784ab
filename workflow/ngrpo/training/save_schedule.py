"""When a training is to be saved: so many minutes after the last time, and before its job's time is over."""

import time


class SaveSchedule:
    """What a run's steps and saves have taken, and whether the next save is due.

    All times in seconds; `now` and `ends` since the epoch; ends None: the job has no limit.
    """

    SPARE = 20.0  # to export the policy, end Ray and leave

    def __init__(self, every: float, ends: float | None, now: float | None = None):
        self.every, self.ends = every, ends
        self.last_save = self.last_step = time.time() if now is None else now
        self.longest_step = self.longest_save = 0.0

    def stepped(self, now: float) -> None:
        """A step has ended; the first one of a job includes loading."""
        self.longest_step, self.last_step = max(self.longest_step, now - self.last_step), now

    def saved(self, began: float, now: float) -> None:
        """A checkpoint was written."""
        self.longest_save, self.last_save = max(self.longest_save, now - began), now

    def due(self, now: float) -> bool:
        """Whether the last save is as long ago as it may be."""
        return now - self.last_save >= self.every

    def runs_out(self, now: float) -> bool:
        """Whether another step as long as the longest might not be saved before the job's end."""
        step = max(self.longest_step, now - self.last_step)
        return self.ends is not None and now + 1.5 * step + 2 * self.longest_save + self.SPARE > self.ends
