#!/usr/bin/env python3
"""Writes the least sums of 1,000 random assignment problems by scipy.

    pip install scipy && python3 tools/assign-golden.py > rides/match/assign/testdata/scipy.json

A row may stay alone: it has a column of its own at that cost. The generator is
the linear congruential one of rides/match/assign/assign_test.go, which draws the
same cases, so that only their sums are stored.
"""
import json

import numpy
import scipy
from scipy.optimize import linear_sum_assignment


class Draw:
    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) / 2**31


def solve(rows, columns, share, seed):
    draw = Draw(seed)
    costs = numpy.full((rows, columns + rows), numpy.inf)
    for i in range(rows):
        costs[i, columns + i] = 400 + 1000 * draw.next()
        for j in range(columns):
            if draw.next() < share:
                costs[i, j] = 1000 * draw.next()
    at = linear_sum_assignment(costs)
    return float(costs[at].sum())


def main():
    sizes = Draw(2015)
    cases = []
    for seed in range(1, 1001):
        rows, columns = 1 + int(sizes.next() * 60), 1 + int(sizes.next() * 60)
        share = [1.0, 0.5, 0.2, 0.05][int(sizes.next() * 4)]
        cases.append({"rows": rows, "columns": columns, "share": share, "seed": seed, "cost": solve(rows, columns, share, seed)})
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    print('{"scipy":"%s","cases":[\n%s\n]}' % (scipy.__version__, lines))


main()
