#!/usr/bin/env python3
"""Reads back what `tools/load` sent, by the server's own query API, and compares every point.

    acceptance.py SERVER URL LIST…                      each LIST is what one load printed
    acceptance.py --rejected KIND SERVER URL LIST…      every point was refused, for this reason, and none is there
    acceptance.py --together SERVER URL LIST…           several processes sent series of one prefix, later ones perhaps those of one before
    acceptance.py --lossy SERVER URL LIST…              the server was killed: points may be missing, the last ones may not

What must hold for each list: the load's tally is whole (taken = confirmed), something was sent, the names under its prefix are just the
expected ones, each with just the expected series, and each series has the expected points and no other. Where a list names only the last value
of a series: that value is the last, counters never fall, and there are as many points as were confirmed. Prints one line a list; the exit
status is 1 after any difference. Standard library only.
"""

import argparse
import json
import math
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from bisect import bisect_left

SHOWN = 10  # differences printed of each list
SETTLE = 2  # seconds before the first look: a TSD shows points after some 1.5 s, refused ones would show then too
PATIENCE = 60  # seconds that a server may take to show everything


class Difference(Exception):
    """What is on the server is not what was sent."""


def fetch(url, body=None, **options):
    """The JSON that a server answers; its error text as a difference, for a server that cannot read its data is one."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"}), timeout=120) as answer:
            return json.load(answer, **options)
    except urllib.error.HTTPError as error:
        raise Difference(f"{url} answers {error.code}: {error.read(2000).decode(errors='replace')}") from error


# One reader a server: (url, expected) -> {(name, tags): [(seconds, value), …]} of all that is there under the prefix of a list.


def read_opentsdb(url, expected):
    names = fetch(f"{url}/api/suggest?type=metrics&max=1000000&q={urllib.parse.quote(expected.prefix)}")
    found = {}
    for name in names:
        # `none` keeps series apart; the end must be given, or points ahead of the clock are not seen.
        query = {"start": 1, "end": expected.end, "queries": [{"metric": name, "aggregator": "none"}]}
        for series in fetch(f"{url}/api/query", query):
            points = sorted((int(at), value) for at, value in series["dps"].items())
            put(found, series["metric"], series["tags"], points)
    return found


def read_victoria(url, expected):
    urllib.request.urlopen(f"{url}/internal/force_flush").close()  # or the last second is not seen
    match = '{__name__=~"%s.*"}' % expected.prefix.replace(".", "[.]")
    query = urllib.parse.urlencode({"match[]": match, "start": 0, "end": expected.end})
    found = {}
    with urllib.request.urlopen(f"{url}/api/v1/export?{query}", timeout=120) as answer:
        for line in answer:
            series = json.loads(line, parse_int=float)
            name = series["metric"].pop("__name__")
            put(found, name, series["metric"], ((at / 1000, value) for at, value in zip(series["timestamps"], series["values"])))
    return {key: sorted(points) for key, points in found.items()}  # a series comes in blocks


def read_influxdb(url, expected):
    statement = 'SELECT value FROM /^%s/ GROUP BY *' % expected.prefix.replace(".", "[.]")
    query = urllib.parse.urlencode({"db": "opentsdb", "epoch": "s", "q": statement})
    found = {}
    for result in fetch(f"{url}/query?{query}", parse_int=float)["results"]:
        if "error" in result:
            raise Difference(result["error"])
        for series in result.get("series", []):
            tags = {key: value for key, value in series["tags"].items() if value}  # keys of other series of that name come empty
            put(found, series["name"], tags, ((at, value) for at, value in series["values"]))
    return found


def read_kairosdb(url, expected):
    names = fetch(f"{url}/api/v1/metricnames?prefix={urllib.parse.quote(expected.prefix)}")["results"]
    found = {}
    for name in names:
        keys = sorted(expected.keys.get(name, ["host"]))
        metric = {"name": name, "group_by": [{"name": "tag", "tags": keys}]}
        answer = fetch(f"{url}/api/v1/datapoints/query", {"start_absolute": 1, "end_absolute": expected.end * 1000, "metrics": [metric]})
        for series in answer["queries"][0]["results"]:
            # An unexpected key merges series here, and shows as one with a tag of several values.
            tags = {key: ",".join(values) for key, values in series["tags"].items()}
            put(found, name, tags, ((at / 1000, value) for at, value in series["values"]))
    return found


# One a server that has quantiles of its own: (url, name, quantile, end) -> {tags: value}.


def quantile_opentsdb(url, name, quantile, end):
    by_tag = [{"type": "wildcard", "tagk": tag, "filter": "*", "groupBy": True} for tag in ("host", "size")]
    query = {"metric": name, "aggregator": "sum", "percentiles": [100 * quantile], "filters": by_tag}
    answer = fetch(f"{url}/api/query", {"start": 1, "end": end, "queries": [query]})
    return {tuple(sorted(series["tags"].items())): value for series in answer for value in series["dps"].values()}


def quantile_victoria(url, name, quantile, end):
    urllib.request.urlopen(f"{url}/internal/force_flush").close()
    expression = 'histogram_quantile(%s, {__name__="%s_bucket"})' % (quantile, name)
    query = urllib.parse.urlencode({"query": expression, "nocache": 1, "time": int(time.time()) + 5})
    answer = fetch(f"{url}/api/v1/query?{query}")["data"]["result"]
    return {tuple(sorted(series["metric"].items())): float(series["value"][1]) for series in answer}


def put(found, name, tags, points):
    found.setdefault((name, tuple(sorted(tags.items()))), []).extend(points)


def exactly(sent, found):
    """Whole numbers to the last digit; a number read as a double is compared as one."""
    return sent == found or (isinstance(found, float) and float(sent) == found)


def nearly(sent, found):
    """VictoriaMetrics keeps decimals of one exponent a block of points."""
    return math.isclose(sent, found, rel_tol=1e-11)


SERVERS = {
    "opentsdb": (read_opentsdb, exactly),
    "victoria": (read_victoria, nearly),
    "influxdb": (read_influxdb, exactly),
    "kairosdb": (read_kairosdb, exactly),
}
QUANTILES = {"opentsdb": quantile_opentsdb, "victoria": quantile_victoria}


class Expected:
    """What one load printed."""

    def __init__(self, *paths):
        self.stats, self.keys, self.snapshots = {}, {}, 0
        self.restarted = set()  # series that a process has taken over from one before it, whose list comes first
        self.quantiles = []  # (name, quantile, value, tags)
        self.points = {}  # (name, tags) -> [(time or "#k" or "last", value text)]
        for path in paths:
            self.read(path)
        if not self.points and not self.quantiles:
            raise Difference("the list is empty")
        self.prefix = self.stats["prefix"] + "."
        self.end = int(time.time()) + 86_400  # snapshots by hand run ahead of the clock

    def read(self, path):
        texts = {}  # most texts come thousands of times
        has_tally = False
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                kind, rest = line.rstrip("\n").split(" ", 1)
                if kind == "moment":  # frozen.py reads these
                    continue
                if kind == "stats":
                    has_tally = True
                    for key, value in (pair.split("=") for pair in rest.split()):
                        self.stats[key] = str(int(self.stats.get(key, 0)) + int(value)) if value.isdigit() else value
                    continue
                name, at, value, tags = rest.split(" ", 3)
                if kind == "quantile":
                    self.quantiles.append((name, float(at), float(value), dict(tag.split("=") for tag in tags.split(" "))))
                    continue
                key = texts.get((name, tags)) or (name, tuple(sorted(tuple(tag.split("=")) for tag in tags.split(" "))))
                texts[(name, tags)] = key
                self.keys.setdefault(name, set()).update(tag for tag, _ in key[1])
                at = at if at == "last" or at.startswith("#") else int(at)
                if at == "last" and self.points.pop(key, None):
                    self.restarted.add(key)
                self.points.setdefault(key, []).append((at, value))
                if isinstance(at, str) and at.startswith("#"):
                    self.snapshots = max(self.snapshots, int(at[1:]))
        if not has_tally:
            raise Difference(f"{path} has no tally: its load ended early")

    def stat(self, name):
        return int(self.stats[name])


def value_is(text, found, same):
    if text == "*":
        return True
    if text.startswith("~"):
        return math.isclose(float(text[1:]), found, rel_tol=0.01)
    return same(float(text) if any(c in text for c in ".en") else int(text), found)


def snapshot_times(found, expected):
    """The times of the snapshots, from the first series that has them all; the comparison shows whether the others agree."""
    for key, points in expected.points.items():
        if points[-1][0] == f"#{expected.snapshots}" and len(points) == expected.snapshots:
            times = sorted({at for at, _ in found.get(key, [])})
            if len(times) == expected.snapshots:
                return times
    raise Difference(f"no series has {expected.snapshots} snapshots")


def compare(server, url, expected, lossy):
    read, same = SERVERS[server]
    found = read(url, expected)
    times = snapshot_times(found, expected) if expected.snapshots else []
    differences = []
    for name, tags in sorted(found.keys() - expected.points.keys()):
        differences.append(f"not sent: {name} {dict(tags)}: {found[name, tags][:2]}")
    stored = again = 0
    for key, points in expected.points.items():
        distinct = sorted(set(found.get(key, [])))
        stored += len(distinct)
        again += len(found.get(key, [])) - len(distinct)
        if points[0][0] == "last":
            differences += last_differs(key, points, distinct, same, key in expected.restarted)
        else:
            differences += points_differ(key, [(times[int(at[1:]) - 1] if isinstance(at, str) else at, value) for at, value in points], distinct, same)
    confirmed = expected.stat("points_confirmed")
    if again > expected.stat("points_resent"):
        differences.append(f"{again} points are there twice, only {expected.stat('points_resent')} were sent twice")
    if stored > confirmed or (stored < confirmed and not lossy):
        differences.append(f"{confirmed} points were confirmed, {stored} are there")
    if stored == 0:
        differences.append("nothing is there")
    return differences, len(found), stored, confirmed - stored


def last_differs(key, points, found, same, restarted):
    name, tags = key
    if len(points) != 1:
        yield f"{name} {dict(tags)}: listed {len(points)} times"
    elif not found:
        yield f"missing: {name} {dict(tags)}"
    elif not value_is(points[0][1], found[-1][1], same):
        yield f"{name} {dict(tags)}: last is {found[-1]}, sent was {points[0][1]}"
    else:
        times = [at for at, _ in found]
        if len(set(times)) != len(times):
            yield f"{name} {dict(tags)}: two values at one time"
        if ".counter." in name and not restarted and any(later < earlier for (_, earlier), (_, later) in zip(found, found[1:])):
            yield f"{name} {dict(tags)}: falls"


def points_differ(key, sent, found, same):
    name, tags = key
    if len(sent) == len(found) and all(at == time and value_is(value, there, same) for (at, value), (time, there) in zip(sent, found)):
        return
    known = [at for at, _ in sent]
    for at, there in found:
        index = bisect_left(known, at)
        if index == len(known) or known[index] != at:
            yield f"not sent: {name} {dict(tags)} at {at}: {there}"
        elif not value_is(sent[index][1], there, same):
            yield f"{name} {dict(tags)} at {at}: {there}, sent was {sent[index][1]}"
    there = {at for at, _ in found}
    for at, value in sent:
        if at not in there:
            yield f"missing: {name} {dict(tags)} at {at}: {value}"


def compare_quantiles(server, url, expected):
    worst = 0.0
    for name, quantile, value, tags in expected.quantiles:
        found = QUANTILES[server](url, name, quantile, expected.end).get(tuple(sorted(tags.items())))
        if found is None or not math.isclose(found, value, rel_tol=0.15):
            raise Difference(f"{name} {tags}: quantile {quantile} is {found}, of what was recorded {value}")
        worst = max(worst, abs(found / value - 1))
    return f"{len(expected.quantiles)} quantiles, off by {worst:.1%} at most"


def check(server, url, paths, rejected, lossy):
    expected = Expected(*paths)
    taken, confirmed = expected.stat("points_taken"), expected.stat("points_confirmed")
    if not 0 < taken == confirmed:
        raise Difference(f"{taken} points were taken, {confirmed} confirmed")
    if rejected:
        found = SERVERS[server][0](url, expected)
        if found or expected.stat(rejected) != confirmed or expected.stat("rejected") != confirmed:
            raise Difference(f"{expected.stats}, and {len(found)} series are there: not each of {confirmed} points was refused as {rejected}")
        return f"{confirmed} points refused as {rejected}"
    if expected.stat("rejected"):
        raise Difference(f"points were rejected: {expected.stats}")
    if expected.quantiles:
        return compare_quantiles(server, url, expected)
    differences, series, stored, lost = compare(server, url, expected, lossy)
    if differences:
        raise Difference("\n".join([f"{len(differences)} differences", *differences[:SHOWN]]))
    return f"{series} series, {stored} points" + (f", {lost} of {confirmed} lost" if lossy else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rejected", metavar="KIND")
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--lossy", action="store_true")
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("url")
    parser.add_argument("lists", metavar="LIST", nargs="+")
    args = parser.parse_args()
    failed = False
    time.sleep(SETTLE)
    for paths in [args.lists] if args.together else [[path] for path in args.lists]:
        started = time.monotonic()
        try:
            result = patiently(lambda: check(args.server, args.url, paths, args.rejected, args.lossy))
            print(f"{paths[0]}: {result} ({time.monotonic() - started:.1f} s)", flush=True)
        except (Difference, OSError) as difference:
            failed = True
            print(f"{paths[0]}: FAILED: {difference}", flush=True)
    return failed


def patiently(look):
    """The first look without a difference, or the last difference."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return look()
        except Difference:
            if time.monotonic() > deadline:
                raise
        time.sleep(SETTLE)


if __name__ == "__main__":
    sys.exit(main())
