"""How long jobs take from start to end on so many nodes."""

import heapq
from collections.abc import Sequence

from ngrpo.planning.costs import Span
from ngrpo.planning.jobs import Job


def wall_time(jobs: Sequence[Job], nodes: int | None = None) -> Span:
    """Hours from start to end: the longest chain, or, with so many nodes, a schedule that starts what fits.

    A node has as many devices as the largest job takes; jobs without devices never wait for one.
    """
    return Span(_end(jobs, nodes, [j.wall.low for j in jobs]), _end(jobs, nodes, [j.wall.high for j in jobs]))


def _end(jobs: Sequence[Job], nodes: int | None, hours: list[float]) -> float:
    whole = max((j.devices for j in jobs), default=0)
    free = [whole] * (nodes or len(jobs))
    waiting, ended, now = dict(enumerate(jobs)), set(), 0.0
    running: list[tuple[float, int, int | None]] = []
    while waiting or running:
        for place, job in list(waiting.items()):
            if not all(id(n) in ended for n in job.needs):
                continue
            node = None
            if hours[place] and job.devices:
                node = next((i for i, n in enumerate(free) if n >= job.devices), None)
                if node is None:
                    continue
                free[node] -= job.devices
            del waiting[place]
            heapq.heappush(running, (now + hours[place], place, node))
        now = running[0][0]
        while running and running[0][0] == now:
            _, place, node = heapq.heappop(running)
            ended.add(id(jobs[place]))
            if node is not None:
                free[node] += jobs[place].devices
    return now
