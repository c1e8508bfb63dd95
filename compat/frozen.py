#!/usr/bin/env python3
"""frozen.py FROM TO COUNTED LIST…: what the loads asked of a TSD whose storage was frozen from FROM to TO (seconds since 1970).

A TSD's worker that waits for storage does not notice that its client has left, and the client's next connection blocks the next worker. So a
load may make six connects from FROM to its end, when all its points were confirmed. By half-close each burst is a connection of its own, and
most come through: there five may be given up, and the sixth may not. A connection was given up when the next one sent points again.

Two more things must hold, or the count would say nothing. Of new series nothing was confirmed until TO, and a point had waited for 60 s by
then: the storage was frozen, and in the way. And COUNTED, the connections that the TSD counted from before the first load to the end of the last,
is what the loads tell, each with one more for its start-up check. Prints a line a list, then the counts; the exit status is 1 if anything does
not hold. Standard library only.
"""

import argparse
import pathlib
import sys
from itertools import pairwise

ALLOWED = 6
SECONDS = 60


class Load:
    """One list: its tally when the freeze began, when it ended, and at the end."""

    def __init__(self, path, start, end):
        self.path = path
        _, series, self.confirmation = pathlib.Path(path).name.split("-", 2)
        self.series_are_new, self.confirms_by_half_close = series == "new", self.confirmation == "half-close"
        moments = [(start, dict.fromkeys(["connects", "points_confirmed", "points_resent", "oldest_pending"], 0.0))]
        with open(path, encoding="utf-8") as lines:
            for kind, *words in map(str.split, lines):
                if kind == "moment":
                    moments.append((float(words[0]), {name: float(value) for name, value in pairs(words[1:])}))
                elif kind == "stats":
                    tally = dict(pairs(words))
        self.all_connects, self.failures = int(tally["connects"]), int(tally["connect_failures"])
        before = [tally for at, tally in moments if at <= start][-1]
        frozen = [tally for at, tally in moments if at <= end][-1]
        self.connects = self.all_connects - int(before["connects"])
        self.confirmed = int(frozen["points_confirmed"] - before["points_confirmed"])
        self.oldest = frozen["oldest_pending"]
        since = [before] + [tally for at, tally in moments if at > start] + [{name: float(tally[name]) for name in ("connects", "points_resent")}]
        self.given_up = len({later["connects"] for earlier, later in pairwise(since) if later["points_resent"] > earlier["points_resent"]})

    def complaints(self):
        if self.confirms_by_half_close and self.given_up >= ALLOWED:
            yield f"{ALLOWED - 1} may be given up"
        if not self.confirms_by_half_close and self.connects > ALLOWED:
            yield f"{ALLOWED} connects are allowed"
        if self.failures:
            yield f"{self.failures} connects failed though the TSD was there"
        if self.series_are_new and self.confirmed:
            yield "no new series can have been confirmed"
        if self.series_are_new and self.oldest < SECONDS:
            yield f"no point waited for {SECONDS} s"

    def count(self):
        return f"{self.given_up} given up" if self.confirms_by_half_close else str(self.connects)


def pairs(words):
    return (word.split("=") for word in words)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", metavar="FROM", type=float)
    parser.add_argument("end", metavar="TO", type=float)
    parser.add_argument("counted", metavar="COUNTED", type=int)
    parser.add_argument("lists", metavar="LIST", nargs="+")
    args = parser.parse_args()
    failed = False
    counts = {True: [], False: []}
    expected = 0
    for path in args.lists:
        load = Load(path, args.start, args.end)
        complaints = "".join(f"; FAILED: {complaint}" for complaint in load.complaints())
        failed |= bool(complaints)
        print(
            f"{path}: {load.connects} connects, {load.given_up} given up; {load.confirmed} points confirmed in the freeze, "
            f"the oldest then pending for {load.oldest:.1f} s{complaints}"
        )
        counts[load.series_are_new].append(f"{load.confirmation} {load.count()}")
        expected += load.all_connects + 1
    if args.counted != expected:
        failed = True
        print(f"FAILED: the TSD counted {args.counted} connections, the loads {expected}")
    else:
        print(f"connects: known series {', '.join(counts[False])}; new series {', '.join(counts[True])}; the TSD's own count agrees")
    return failed


if __name__ == "__main__":
    sys.exit(main())
